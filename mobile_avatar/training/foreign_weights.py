"""Weights that the user brings from elsewhere: VGG networks of perceptual losses and metrics."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.official_runs import read_checkpoint


def read_tensors(path: Path, expected: str) -> dict[str, Tensor]:
    """A state dict in a .safetensors or torch file, as FP32; BadInput asks for `expected` when it is neither."""
    if not path.is_file():
        raise BadInput(f"{path}: there is no such weights file; pass {expected}")
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise BadInput(f"{path} is not a readable safetensors file; pass {expected}") from error
    else:
        state = read_checkpoint(path, expected)
    return {key: value.float() for key, value in state.items()}
