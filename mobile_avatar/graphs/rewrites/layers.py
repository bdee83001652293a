"""Layers that runtimes like better: one head, an activation made of a maximum, an affine layer as a convolution."""

import torch
from torch import Tensor, nn

from mobile_avatar.graphs.frame_generator import FrameGenerator
from mobile_avatar.graphs.rewrites.norms import as_depthwise
from mobile_avatar.models.bilayer.folded import ChannelAffine


def one_head(generator: FrameGenerator) -> None:
    """Three heads that read the same map are one convolution with 6 outputs."""
    parts = generator.heads.parts
    conv = nn.Conv2d(parts[0].in_channels, 6, 3, padding=1)
    conv.weight = nn.Parameter(torch.cat([part.weight for part in parts]))
    conv.bias = nn.Parameter(torch.cat([part.bias for part in parts]))
    generator.heads = conv


class MaximumActivation(nn.Module):
    """Leaky ReLU as max(x, slope * x), exact for slopes between 0 and 1: quantisers that lack it know both steps."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, x * self.slope)


def maximum_activation(generator: FrameGenerator) -> None:
    """Every leaky ReLU as a maximum; a generator with ReLUs stays as it is."""
    if isinstance(generator.activation, nn.LeakyReLU):
        generator.activation = MaximumActivation(generator.activation.negative_slope)
        for block in generator.blocks:
            block.activation = generator.activation


def affine_conv(generator: FrameGenerator) -> None:
    """Scale and bias per channel as a depthwise 1x1 convolution: one operator, which takes a ReLU into itself."""
    for block in generator.blocks[1:]:
        block.norm = as_depthwise(block.norm)
    if isinstance(generator.norm, ChannelAffine):
        generator.norm = as_depthwise(generator.norm)
