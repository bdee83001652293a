"""Starting points of regressors: networks in torchvision's format, trained on ImageNet, that the user supplies.

Nothing is downloaded.
"""

from pathlib import Path

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.mobilenet_v2 import MobileNetV2
from mobile_avatar.models.rome.resnet50 import ResNet50
from mobile_avatar.training.foreign_weights import read_tensors


def load_torchvision(network: ResNet50 | MobileNetV2, path: Path) -> bool:
    """Fill `network` from a torchvision state dict (.pth or .safetensors); everything but its head has to fit.

    A head of another length (ImageNet's 1000 classes) is left out, and the network keeps its own, fresh one.

    Returns:
        Whether the file's head was taken.

    Raises:
        BadInput: the file is missing, unreadable, or of another network; the first tensor that does not fit is named.
    """
    name = type(network).__name__
    state = read_tensors(Path(path), f"a {name} in torchvision's format")
    own = network.state_dict()
    head = {key for key in own if key.startswith(f"{network.head}.")}
    fits = all(key in state and state[key].shape == own[key].shape for key in head)
    for key, value in own.items():
        if key in head and not fits:
            state[key] = value
        # Very old files do not count batches; nothing depends on it.
        elif key.endswith("num_batches_tracked"):
            state.setdefault(key, value)
        elif key not in state:
            raise BadInput(f"{path}: tensor {key} is missing; it is not a {name} in torchvision's format")
        elif state[key].shape != value.shape:
            raise BadInput(f"{path}: tensor {key} has shape {tuple(state[key].shape)}, {name} has {tuple(value.shape)}")
    unknown = sorted(state.keys() - own.keys())
    if unknown:
        raise BadInput(f"{path}: {len(unknown)} tensors that no {name} has (first: {unknown[0]})")
    network.load_state_dict(state)
    return fits
