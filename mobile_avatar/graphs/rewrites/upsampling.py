"""Nearest x2 up-sampling together with the convolution that it feeds."""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.graphs.frame_generator import FrameGenerator, UpsampledConv
from mobile_avatar.models.bilayer.blocks import upsample


class SkipThenUpsample(nn.Module):
    """A 1x1 convolution, then nearest x2: they commute, and here the convolution costs a quarter."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return upsample(self.conv(x))


def skip_first(generator: FrameGenerator) -> None:
    """Skips run before their up-sampling."""
    for block in generator.blocks:
        block.skip = SkipThenUpsample(block.skip.conv)


def transposed(layer: UpsampledConv) -> nn.ConvTranspose2d:
    """Nearest x2 + 3x3 convolution (padding 1) as a stride-2 transposed convolution 4x4 (padding 1).

    An output pixel of the pair reads only 2 x 2 different inputs, so 4 of 9 products are saved. Per axis, with the
    3-tap kernel k, the 4-tap kernel is (k2, k1 + k2, k0 + k1, k0).
    """
    kernel = layer.conv.weight.double()
    for axis in (2, 3):
        first, middle, last = kernel.unbind(axis)
        kernel = torch.stack([last, middle + last, first + middle, first], axis)
    conv = nn.ConvTranspose2d(layer.conv.in_channels, layer.conv.out_channels, 4, 2, 1)
    conv.weight = nn.Parameter(kernel.to(layer.conv.weight.dtype).transpose(0, 1).contiguous())
    conv.bias = nn.Parameter(layer.conv.bias.detach().clone())
    return conv


class PhaseConv(nn.Module):
    """The same saving without a transposed convolution: a 2x2 convolution with one filter set per output phase.

    Computed on the padded map, phase (a, b) starts one row (column) later where a (b) is 1. With the phases in reverse
    order, depth to space moves all of them to their place but for one pixel all around, which is cut off.
    """

    def __init__(self, layer: UpsampledConv, channels_last: bool = False) -> None:
        super().__init__()
        kernel, phases = layer.conv.weight.double(), []
        for phase in product((1, 0), (1, 0)):
            kernels = kernel
            for axis, odd in zip((2, 3), phase, strict=True):
                first, middle, last = kernels.unbind(axis)
                kernels = torch.stack([first + middle, last] if odd else [first, middle + last], axis)
            phases.append(kernels)
        self.outputs, self.channels_last = layer.conv.out_channels, channels_last
        self.conv = nn.Conv2d(layer.conv.in_channels, 4 * self.outputs, 2, padding=1)
        # Pixel shuffle reads channel-major phases, depth to space in NHWC phase-major ones.
        weight = torch.stack(phases, 0 if channels_last else 1).flatten(0, 1)
        bias = layer.conv.bias.detach()
        self.conv.weight = nn.Parameter(weight.to(bias.dtype))
        self.conv.bias = nn.Parameter(bias.repeat(4) if channels_last else bias.repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        phases = self.conv(x)
        if not self.channels_last:
            return F.pixel_shuffle(phases, 2)[:, :, 1:-1, 1:-1]
        side, n = phases.shape[-1], self.outputs
        parts = phases.permute(0, 2, 3, 1).reshape(side, side, 2, 2, n).permute(0, 2, 1, 3, 4)
        return parts.reshape(1, 2 * side, 2 * side, n)[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def as_transposed(generator: FrameGenerator) -> None:
    """Up-sampling + second convolution of every block as a transposed convolution."""
    for block in generator.blocks:
        block.conv2 = transposed(block.conv2)


def as_phases(generator: FrameGenerator) -> None:
    """Up-sampling + second convolution of every block as phase convolutions + depth to space."""
    for block in generator.blocks:
        block.conv2 = PhaseConv(block.conv2)


def as_phases_nhwc(generator: FrameGenerator) -> None:
    """As `as_phases`, interleaved in the order in which NHWC runtimes keep a map."""
    for block in generator.blocks:
        block.conv2 = PhaseConv(block.conv2, channels_last=True)
