"""Norms: into the convolution or linear layer in front of them, or down to one scale and bias."""

import torch
from torch import Tensor, nn

from mobile_avatar.graphs.frame_generator import Base, FrameGenerator, PlainNorm, as_affine
from mobile_avatar.models.bilayer.config import BASE_SIZE


def merge_affine(generator: FrameGenerator) -> None:
    """Statistics and predicted scale of every norm become one scale and one bias per channel.

    A norm in front of an activation can go no further: the raw tensor in front of it is read by the skip as well.
    """
    for block in generator.blocks[1:]:
        block.norm = as_affine(block.norm)
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


class NormedBase(nn.Module):
    """The last keypoint layer with the first norm inside: one linear layer gives the raw and the normed map.

    Its rows lie in NHWC order, which the reshaping behind it undoes: runtimes that compute in NHWC drop both, and
    elsewhere it is a transposition of a few thousand numbers.
    """

    def __init__(self, base: Base) -> None:
        super().__init__()
        linear, norm = base.linear, base.norm
        channels = norm.scale.numel()
        scale, bias = (value.flatten().repeat_interleave(BASE_SIZE**2) for value in (norm.scale, norm.bias))
        weight = torch.cat([linear.weight, linear.weight * scale[:, None]])
        bias = torch.cat([linear.bias, linear.bias * scale + bias])
        order = torch.arange(len(weight)).view(2, channels, BASE_SIZE**2).permute(2, 0, 1).flatten()
        self.channels = channels
        self.linear = nn.Linear(linear.in_features, len(weight))
        self.linear.weight, self.linear.bias = nn.Parameter(weight[order]), nn.Parameter(bias[order])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        both = self.linear(x).view(x.shape[0], BASE_SIZE, BASE_SIZE, 2 * self.channels)
        # Parted before the permutation, so that each half meets its inverse in front of the first convolution.
        return both[..., : self.channels].permute(0, 3, 1, 2), both[..., self.channels :].permute(0, 3, 1, 2)


def fold_first_norm(generator: FrameGenerator) -> None:
    """The first norm goes into the last keypoint layer, beside the raw map that the skip reads."""
    generator.base = NormedBase(generator.base)
