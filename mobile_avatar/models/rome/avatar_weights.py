"""What ROME avatars are made with, as one small safetensors file: the networks of the linear mode and the renderer."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file
from mobile_avatar.models.bilayer.weights import load_state, read_safetensors
from mobile_avatar.models.rome.compact_renderer import CompactConfig, CompactRenderer
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.networks import RomeNetworks

FORMAT = "mobile-avatar-rome-creation"
VERSION = 1
OWN = ("format", "version", "config")
"""Metadata that is not about the weights' origin."""
PARTS = ("texture_encoder", "linear_basis", "basis_regressor", "frame_regressor")
LARGEST_FILE = 20_000_000
"""Bytes that may come with the package."""
REMEDY = "make one with `python -m mobile_avatar.training.rome_pack`"
HALVED = ("networks.linear_basis.", "networks.basis_regressor.")
"""Stored in half precision: the largest parts, where it moves vertices by hundredths of a millimetre. In the others it
would be seen: a camera that is off by a thousandth moves the whole picture."""


@dataclass(frozen=True)
class AvatarWeights:
    """Networks that fit each other, in eval mode."""

    networks: RomeNetworks
    """With PARTS; the texture encoder is the one that was trained with the renderer."""
    renderer: CompactRenderer
    """Not folded. Its pictures may be larger than what the networks read."""
    facts: dict[str, str]
    """license, trained_on, ..."""

    def __post_init__(self) -> None:
        missing = [name for name in PARTS if name not in self.networks.parts]
        if missing:
            raise BadInput(
                f"these ROME weights lack {', '.join(missing)}, which avatars are made with; "
                "train them with `mobile-avatar train linear-rome`"
            )
        if not self.networks.config.photo_shape:
            raise BadInput(
                "these ROME weights get the shape from DECA, not from the photo; train `mobile-avatar train rome` anew"
            )


def save_avatar_weights(weights: AvatarWeights, path: Path, half: bool = True) -> None:
    """Write PARTS and the renderer atomically.

    Args:
        half: store HALVED in half precision, but for variances, of which small ones would become zero.

    Raises:
        BadInput: the file would have more than LARGEST_FILE bytes.
    """
    config = {"networks": weights.networks.config.to_dict(), "renderer": weights.renderer.config.to_dict()}
    own = {"format": FORMAT, "version": str(VERSION), "config": json.dumps(config)}
    with replace_file(Path(path)) as temporary:
        save_file(_state(weights, half), temporary, weights.facts | own)
        size = temporary.stat().st_size
        if size > LARGEST_FILE:
            raise BadInput(
                f"{path} would have {size / 1e6:.1f} MB, but at most {LARGEST_FILE / 1e6:.0f} may come with the "
                "package; train a smaller --preset"
            )


def load_avatar_weights(path: Path) -> AvatarWeights:
    """Read such a file; never unpickles.

    Raises BadInput for a file that is missing, damaged, of another kind or of a newer version, and for one whose
    tensors are not exactly those of its config.
    """
    path = Path(path)
    metadata, state = read_safetensors(path, FORMAT, VERSION, "ROME creation", REMEDY)
    config = json.loads(metadata["config"])
    if set(config) != {"networks", "renderer"} or not isinstance(config["networks"], dict):
        raise BadInput(f"{path} does not describe its networks and its renderer; {REMEDY}")
    networks = RomeNetworks(RomeConfig.from_dict(config["networks"], str(path)), PARTS)
    renderer = CompactRenderer(CompactConfig.from_dict(config["renderer"], str(path)))
    load_state(torch.nn.ModuleDict({"networks": networks, "renderer": renderer}), state, path)
    facts = {key: value for key, value in metadata.items() if key not in OWN}
    return AvatarWeights(networks.eval(), renderer.eval(), facts)


def _state(weights: AvatarWeights, half: bool) -> dict[str, Tensor]:
    state = {f"renderer.{key}": value for key, value in weights.renderer.state_dict().items()}
    for part in PARTS:
        own = weights.networks.part(part).state_dict()
        state |= {f"networks.{part}.{key}": value for key, value in own.items()}
    limit = torch.finfo(torch.float16).max

    def stored(key: str, value: Tensor) -> Tensor:
        narrow = half and key.startswith(HALVED) and value.is_floating_point() and "running_" not in key
        # What half precision cannot hold stays as it is.
        narrow = narrow and bool((value.abs() <= limit).all())
        return value.detach().cpu().to(torch.float16 if narrow else value.dtype).contiguous()

    return {key: stored(key, value) for key, value in state.items()}
