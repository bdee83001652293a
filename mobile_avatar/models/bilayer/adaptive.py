"""Layers whose parameters are predicted from the identity embedding, one set per person.

Every adaptive layer takes its parameters as an argument: nothing per-person is ever stored in a module.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.models.bilayer.blocks import activate, batch_norm, conv1, conv3, upsample

Activation = Callable[[Tensor], Tensor]


class Predicted(NamedTuple):
    """One predicted layer: weight (N, out, in) and bias (N, out)."""

    weight: Tensor
    bias: Tensor

    def repeat(self, frames: int) -> "Predicted":
        """The same parameters for each of `frames` frames of a person, frame index fastest."""
        if frames == 1:
            return self
        return Predicted(self.weight.repeat_interleave(frames, 0), self.bias.repeat_interleave(frames, 0))


def adaptive_conv(x: Tensor, layer: Predicted) -> Tensor:
    """Per-sample 1x1 convolution of x (N or 1, C, H, W)."""
    n = layer.weight.shape[0]
    flat = x.flatten(2).expand(n, -1, -1)
    return torch.baddbmm(layer.bias[:, :, None], layer.weight, flat).unflatten(2, x.shape[2:])


class AdaptiveBatchNorm(nn.Module):
    """y = BN(x) * (weight + 1) + bias with a predicted weight and bias per channel (inference generator)."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.stats = batch_norm(channels, affine=False)

    def forward(self, x: Tensor, layers: tuple[Predicted]) -> Tensor:
        weight, bias = layers[0].weight[:, :, 0, None, None], layers[0].bias[:, :, None, None]
        return self.stats(x) * (weight + 1) + bias


class AdaptiveSpade(nn.Module):
    """Adaptive SPADE: y = BN(x) * (1 + conv_gamma(P)) + conv_beta(P).

    P is a learned map shared by all people, the two 1x1 convolutions are predicted (texture generator).
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.stats = batch_norm(channels, affine=False)
        bound = 1 / math.sqrt(channels * size * size)
        self.pixel_features = nn.Parameter(torch.empty(1, channels, size, size).uniform_(-bound, bound))

    def forward(self, x: Tensor, layers: tuple[Predicted, Predicted]) -> Tensor:
        gamma, beta = (adaptive_conv(self.pixel_features, layer) for layer in layers)
        return self.stats(x) * (gamma + 1) + beta


class AdaptiveBlock(nn.Module):
    """Up-sampling residual block with adaptive norms and a predicted 1x1 skip.

    Args:
        norm: AdaptiveBatchNorm or AdaptiveSpade.
        size: side of the input.
        first: the first norm is a plain affine batch norm (first block of a generator).
        efficient: up-sample before the second convolution instead of before the first.
        adaptive_skip: predict the skip; otherwise it is a learned convolution that all people share.
        activation: behind both norms.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: type[nn.Module],
        size: int,
        first: bool,
        efficient: bool,
        adaptive_skip: bool = True,
        activation: Activation = activate,
    ) -> None:
        super().__init__()
        self.first, self.efficient, self.activate = first, efficient, activation
        self.norm1 = batch_norm(in_channels, affine=True) if first else norm(in_channels, size)
        self.conv1 = conv3(in_channels, out_channels)
        self.norm2 = norm(out_channels, size if efficient else 2 * size)
        self.conv2 = conv3(out_channels, out_channels)
        self.shared_skip = None if adaptive_skip else conv1(in_channels, out_channels)

    def forward(self, x: Tensor, norm1: tuple | None, norm2: tuple, skip: Predicted | None) -> Tensor:
        """x (N, in, s, s) -> (N, out, 2s, 2s); the predicted layers are per sample or for a single person."""
        h = self.activate(self.norm1(x) if self.first else self.norm1(x, norm1))
        h = self.conv1(h if self.efficient else upsample(h))
        h = self.activate(self.norm2(h, norm2))
        h = self.conv2(upsample(h) if self.efficient else h)
        # The skip reads the raw input; before the up-sampling it gives the same numbers at a quarter of the work.
        return h + upsample(self.skip(x, skip) if self.shared_skip is None else self.shared_skip(x))

    @staticmethod
    def skip(x: Tensor, layer: Predicted) -> Tensor:
        if layer.weight.shape[0] == 1:
            return F.conv2d(x, layer.weight[0][:, :, None, None], layer.bias[0])
        return adaptive_conv(x, layer)


class PredictedBlock(NamedTuple):
    """All predicted layers that belong to projector block i."""

    norm2: tuple[Predicted, ...]
    """Second norm of generator block i."""
    skip: Predicted | None
    """Skip of generator block i; None where it is not predicted."""
    next_norm: tuple[Predicted, ...]
    """First norm of generator block i + 1, or the norm in front of the heads."""

    def repeat(self, frames: int) -> "PredictedBlock":
        return PredictedBlock(
            tuple(layer.repeat(frames) for layer in self.norm2),
            self.skip and self.skip.repeat(frames),
            tuple(layer.repeat(frames) for layer in self.next_norm),
        )


class AdaptiveDecoder(nn.Module):
    """Chain of adaptive blocks from 4x4 to full size, closed by an adaptive norm and an activation."""

    def __init__(
        self,
        widths: list[int],
        norm: type[nn.Module],
        base: int,
        efficient: bool,
        adaptive_skips: bool = True,
        activation: Activation = activate,
    ) -> None:
        super().__init__()
        self.activate = activation
        self.blocks = nn.ModuleList(
            AdaptiveBlock(a, b, norm, base * 2**i, i == 0, efficient, adaptive_skips, activation)
            for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))
        )
        self.norm = norm(widths[-1], base * 2 ** len(self.blocks))

    def forward(self, x: Tensor, predicted: list[PredictedBlock]) -> Tensor:
        norm1 = None
        for block, layers in zip(self.blocks, predicted, strict=True):
            x = block(x, norm1, layers.norm2, layers.skip)
            norm1 = layers.next_norm
        return self.activate(self.norm(x, norm1))
