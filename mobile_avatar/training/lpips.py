"""LPIPS (Zhang et al., CVPR 2018), version 0.1 with VGG16, from weights that the user brings."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.inference_generator import masked
from mobile_avatar.training.foreign_weights import read_tensors
from mobile_avatar.training.metrics import Driven

# Convolutions of torchvision's VGG16 by stage; after each stage its features are compared, then halved by max-pooling.
STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
# Mean and deviation of ImageNet, for pictures in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
SMALLEST_SIDE = 16
VGG, LIN = (
    "torchvision's VGG16 state dict (vgg16-397923af.pth)",
    "the VGG weights of LPIPS v0.1 (lpips/weights/v0.1/vgg.pth)",
)


class Lpips:
    """The distance of two pictures in VGG16's features: 0 for equal ones."""

    def __init__(self, vgg: Path, lin: Path, device: str = "cpu") -> None:
        """Load the weights.

        Args:
            vgg: torchvision's VGG16 state dict (`features.0.weight`, ...; vgg16-397923af.pth).
            lin: LPIPS v0.1's weights of the features (`lin0.model.1.weight`, ...; vgg.pth of the lpips package).

        Raises:
            BadInput: a file is missing, unreadable, or lacks a tensor of the right shape. Nothing is unpickled.
        """
        features, weights = read_tensors(vgg, VGG), read_tensors(lin, LIN)
        self._stages, width = [], 3
        for stage in STAGES:
            layers = []
            for number in stage:
                kernel = _take(features, f"features.{number}.weight", (None, width, 3, 3), vgg, VGG)
                width = len(kernel)
                bias = _take(features, f"features.{number}.bias", (width,), vgg, VGG)
                layers.append((kernel.to(device), bias.to(device)))
            key = f"lin{len(self._stages)}.model.1.weight"
            factor = _take(weights, key, (1, width, 1, 1), lin, LIN)
            self._stages.append((layers, factor.to(device)))
        self._shift, self._scale = (torch.tensor(row, device=device).view(1, 3, 1, 1) for row in (SHIFT, SCALE))

    @torch.no_grad()
    def __call__(self, driven: Driven) -> dict[str, Tensor]:
        """`lpips` (N,) of whole frames, both on the black background."""
        goals = masked(driven.goals, driven.goal_masks)
        return {"lpips": self.distance(driven.images.clamp(-1, 1), goals)}

    def distance(self, images: Tensor, goals: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [-1, 1], sides at least 16 -> (N,)."""
        if min(images.shape[-2:]) < SMALLEST_SIDE:
            raise BadInput(f"LPIPS halves pictures four times and needs {SMALLEST_SIDE} pixels a side at least")
        both = (torch.cat([images, goals]) - self._shift) / self._scale
        total = torch.zeros(len(images), device=images.device)
        for number, (layers, factor) in enumerate(self._stages):
            both = F.max_pool2d(both, 2) if number else both
            for kernel, bias in layers:
                both = F.relu(F.conv2d(both, kernel, bias, padding=1))
            unit = both / (both.square().sum(1, keepdim=True).sqrt() + 1e-10)
            first, second = unit.chunk(2)
            total = total + F.conv2d((first - second).square(), factor).mean((1, 2, 3))
        return total


def _take(state: dict[str, Tensor], key: str, shape: tuple[int | None, ...], path: Path, expected: str) -> Tensor:
    if key not in state:
        raise BadInput(f"{path}: tensor {key} is missing; pass {expected}")
    found = tuple(state[key].shape)
    if len(found) != len(shape) or any(want not in (None, have) for want, have in zip(shape, found, strict=True)):
        wanted = " x ".join("any" if side is None else str(side) for side in shape)
        raise BadInput(f"{path}: tensor {key} has the shape {found}, not {wanted}; pass {expected}")
    return state[key]
