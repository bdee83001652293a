"""Perceptual losses: L1 between features of a VGG network that the user supplies (thesis section 4).

Nothing is downloaded. A file is a state dict in torchvision's format (`features.N.weight`, as .pth or .safetensors);
the widths of the network are taken from its tensors.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.errors import BadInput
from mobile_avatar.training.foreign_weights import read_tensors
from mobile_avatar.training.losses import wide

LAYER_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


@dataclass(frozen=True)
class Recipe:
    """What belongs to one perceptual network."""

    convolutions: tuple[int, ...]
    """Positions of the convolutions in torchvision's `features`, as far as they are used."""
    layers: tuple[int, ...]
    """Activations that are compared: relu1_1, 2_1, 3_1, 4_1 and 5_1."""
    scale: float
    """Inputs are scale * (x + 1) ..."""
    mean: tuple[float, float, float]
    """... minus this (in the order R, G, B) ..."""
    std: tuple[float, float, float]
    """... over this."""
    weight: float
    """Weight of the loss in the total."""


RECIPES = {
    "vgg19": Recipe(
        (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28),
        (1, 6, 11, 20, 29),
        0.5,
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        10.0,
    ),
    # The official code subtracts the means in this order from R, G, B, although they are those of B, G, R.
    "vggface": Recipe(
        (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24),
        (1, 6, 11, 18, 25),
        127.5,
        (103.939, 116.779, 123.680),
        (1.0, 1.0, 1.0),
        0.01,
    ),
}


class PerceptualLoss(nn.Module):
    """Weighted L1 distance of five activations of a frozen VGG network whose max pools are average pools.

    Args:
        name: a key of RECIPES.
        path: the network's weights.

    Raises:
        BadInput: the file is missing, unreadable or not such a network.
    """

    def __init__(self, name: str, path: Path) -> None:
        super().__init__()
        self.recipe = RECIPES[name]
        state = _read(Path(path))
        self.convolutions = nn.ModuleList(_convolution(state, i, name, Path(path)) for i in self.recipe.convolutions)
        for a, b in zip(self.convolutions, self.convolutions[1:], strict=False):
            if a.out_channels != b.in_channels:
                raise BadInput(f"{path}: the widths of its layers do not fit together; it is not a {name} network")
        self.register_buffer("mean", torch.tensor(self.recipe.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(self.recipe.std).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, S, S) in [-1, 1], S at least 16 -> the five compared activations."""
        x = (self.recipe.scale * (images + 1) - self.mean) / self.std
        found, previous = [], 0
        for position, convolution in zip(self.recipe.convolutions, self.convolutions, strict=True):
            if position - previous == 3:  # a pool stands between, behind the activation
                x = F.avg_pool2d(x, 2)
            x = F.relu(convolution(x))
            if position + 1 in self.recipe.layers:
                found.append(x)
            previous = position
        return found

    def forward(self, image: Tensor, goal: Tensor) -> Tensor:
        """Two batches (N, 3, S, S) in [-1, 1] -> scalar; the derivative goes to `image` only."""
        with torch.no_grad():
            wanted = self.features(goal)
        pairs = zip(LAYER_WEIGHTS, self.features(image), wanted, strict=True)
        return sum(weight * F.l1_loss(wide(a), wide(b)) for weight, a, b in pairs)


def load_perceptual(paths: dict[str, str | None], device: str) -> dict[str, PerceptualLoss]:
    """The perceptual losses whose files are given, by name."""
    return {name: PerceptualLoss(name, Path(path)).to(device) for name, path in paths.items() if path}


def _read(path: Path) -> dict[str, Tensor]:
    state = read_tensors(path, "a VGG network in torchvision's format (features.N.weight)")
    if not any(re.fullmatch(r"features\.\d+\.weight", key) for key in state):
        raise BadInput(f"{path} has no features.N.weight; give a state dict in torchvision's format")
    return state


def _convolution(state: dict[str, Tensor], position: int, name: str, path: Path) -> nn.Conv2d:
    weight, bias = (state.get(f"features.{position}.{kind}") for kind in ("weight", "bias"))
    if weight is None or bias is None or weight.ndim != 4 or bias.shape != weight.shape[:1]:
        raise BadInput(f"{path}: no convolution at features.{position}; it is not a {name} network")
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=weight.shape[2] // 2)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer
