"""Norms: into the convolution or linear layer in front of them, or down to one scale and bias."""

import torch
from torch import Tensor, nn

from mobile_avatar.graphs.frame_generator import Base, FrameGenerator, PlainNorm, as_affine
from mobile_avatar.models.bilayer.config import BASE_SIZE
from mobile_avatar.models.bilayer.folded import ChannelAffine


def merge_affine(generator: FrameGenerator) -> None:
    """Statistics and predicted scale of every norm become one scale and one bias per channel.

    A norm in front of an activation can go no further: the raw tensor in front of it is read by the skip as well.
    """
    for block in generator.blocks[1:]:
        block.norm = as_affine(block.norm)
    generator.base.norm = as_affine(generator.base.norm)
    if isinstance(generator.norm, PlainNorm):
        generator.norm = as_affine(generator.norm)


def fold_norm2(generator: FrameGenerator) -> None:
    """The second norm of every block goes into the convolution in front of it, its only reader."""
    for block in generator.blocks:
        scale, bias = block.norm2.scale.flatten().double(), block.norm2.bias.flatten().double()
        block.conv1.weight.copy_(block.conv1.weight.double() * scale[:, None, None, None])
        block.conv1.bias.copy_(block.conv1.bias.double() * scale + bias)
        block.norm2 = nn.Identity()


def fold_last_norm(generator: FrameGenerator) -> None:
    """The norm in front of the heads goes into the last block's convolution and skip: nothing else reads their sum."""
    scale, bias = generator.norm.scale.flatten().double(), generator.norm.bias.flatten().double()
    last = generator.blocks[-1]
    for conv, shift in ((last.conv2.conv, bias), (last.skip.conv, 0.0)):
        conv.weight.copy_(conv.weight.double() * scale[:, None, None, None])
        conv.bias.copy_(conv.bias.double() * scale + shift)
    generator.norm = nn.Identity()


def as_depthwise(norm: PlainNorm | ChannelAffine) -> nn.Conv2d:
    """The scale and bias of a norm as a depthwise 1x1 convolution."""
    channels = norm.scale.numel()
    conv = nn.Conv2d(channels, channels, 1, groups=channels)
    conv.weight = nn.Parameter(norm.scale.detach().reshape(channels, 1, 1, 1))
    conv.bias = nn.Parameter(norm.bias.detach().flatten())
    return conv


class ChannelsLastBase(nn.Module):
    """The last keypoint layer with its rows in NHWC order.

    Runtimes that compute in NHWC drop the reordering behind it together with its inverse in front of the first
    convolution.
    """

    def __init__(self, base: Base) -> None:
        super().__init__()
        self.linear = _reordered(base.linear.weight, base.linear.bias, parts=1)
        # A convolution, because converters start to lay out maps in NHWC at the first of them.
        self.norm = as_depthwise(base.norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.linear(x).view(x.shape[0], BASE_SIZE, BASE_SIZE, -1).permute(0, 3, 1, 2)
        return raw, self.norm(raw)


class NormedBase(nn.Module):
    """The last keypoint layer with the first norm inside: one linear layer gives the raw and the normed map.

    Its rows lie in NHWC order as above. It trades two operators on a 4x4 map for twice the weights.
    """

    def __init__(self, base: Base) -> None:
        super().__init__()
        linear, norm = base.linear, base.norm
        self.channels = norm.scale.numel()
        scale, bias = (value.flatten().repeat_interleave(BASE_SIZE**2) for value in (norm.scale, norm.bias))
        weight = torch.cat([linear.weight, linear.weight * scale[:, None]])
        self.linear = _reordered(weight, torch.cat([linear.bias, linear.bias * scale + bias]), parts=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        both = self.linear(x).view(x.shape[0], BASE_SIZE, BASE_SIZE, 2 * self.channels)
        # Parted before the permutation, so that each half meets its inverse in front of the first convolution.
        return both[..., : self.channels].permute(0, 3, 1, 2), both[..., self.channels :].permute(0, 3, 1, 2)


def _reordered(weight: Tensor, bias: Tensor, parts: int) -> nn.Linear:
    """A linear layer whose rows, `parts` maps in (C, 4, 4), come in (4, 4, part, C)."""
    order = torch.arange(len(weight)).view(parts, -1, BASE_SIZE**2).permute(2, 0, 1).flatten()
    linear = nn.Linear(weight.shape[1], len(weight))
    linear.weight, linear.bias = nn.Parameter(weight[order]), nn.Parameter(bias[order])
    return linear


def base_in_nhwc(generator: FrameGenerator) -> None:
    """The last keypoint layer gives its map in the order of NHWC runtimes."""
    generator.base = ChannelsLastBase(generator.base)


def fold_first_norm(generator: FrameGenerator) -> None:
    """The first norm goes into the last keypoint layer, beside the raw map that the skip reads."""
    generator.base = NormedBase(generator.base)
