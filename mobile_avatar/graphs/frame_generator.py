"""The per-frame network of one person as a graph of replaceable parts.

`plain` gives it the structure of the official code with this person's numbers as constants: norms apart from
convolutions, skips behind the up-sampling, three heads. The rewrites (`graphs/rewrites/`) then replace parts; a layer
keeps its path (`blocks.3.conv2`) whatever it is replaced by.
"""

import torch
from torch import Tensor, nn

from mobile_avatar.models.bilayer.blocks import upsample
from mobile_avatar.models.bilayer.config import BASE_SIZE, SLOPE, BilayerConfig
from mobile_avatar.models.bilayer.folded import ChannelAffine, FoldedBlock, FoldedGenerator
from mobile_avatar.models.bilayer.inference_generator import enlarge
from mobile_avatar.models.bilayer.keypoints_encoding import HarmonicEncoding

PARTS = (2, 3, 1)
"""Channels of warp, low-frequency image and mask among the six of the heads."""


class PlainNorm(nn.Module):
    """Adaptive batch norm in eval mode: statistics, then a scale and a bias (N, C, H, W) -> the same."""

    def __init__(self, scale: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.stats = nn.BatchNorm2d(scale.numel(), eps=0.0, affine=False)
        self.scale = nn.Parameter(scale.detach().reshape(1, -1, 1, 1).clone())
        self.bias = nn.Parameter(bias.detach().reshape(1, -1, 1, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.stats(x) * self.scale + self.bias


class UpsampledConv(nn.Module):
    """Nearest x2, then a convolution."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(upsample(x))


class Base(nn.Module):
    """Last keypoint layer -> the first feature map (1, C, 4, 4), raw for the skip and normed for the first block."""

    def __init__(self, linear: nn.Linear, norm: nn.Module) -> None:
        super().__init__()
        self.linear, self.norm = linear, norm

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.linear(x).view(x.shape[0], -1, BASE_SIZE, BASE_SIZE)
        return raw, self.norm(raw)


class Heads(nn.Module):
    """Warp, low-frequency image and mask: three convolutions (N, C, s, s) -> (N, 6, s, s)."""

    def __init__(self, heads: nn.Conv2d) -> None:
        super().__init__()
        outputs = zip(heads.weight.split(PARTS), heads.bias.split(PARTS), strict=True)
        self.parts = nn.ModuleList(_conv(weight, bias) for weight, bias in outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], 1)


class Tail(nn.Module):
    """What the heads become: delta uv (N, 2, S, S) and lf (N, 3, S, S) in [-1, 1], mask (N, 1, S, S) in [0, 1].

    Args:
        factors: of the three, where the filters of the heads were divided by them (`even_heads`).
    """

    def __init__(self, factors: tuple[float, ...] = (1.0, 1.0, 1.0)) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, heads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = heads[:, 0:2], heads[:, 2:5], heads[:, 5:6]
        uv, lf, mask = (p if factor == 1 else p * factor for p, factor in zip(parts, self.factors, strict=True))
        return torch.tanh(uv), torch.tanh(lf), torch.sigmoid(mask)


class Block(nn.Module):
    """Up-sampling residual block, (N, in, s, s) -> (N, out, 2s, 2s)."""

    def __init__(self, block: FoldedBlock, activation: nn.Module) -> None:
        super().__init__()
        self.norm = None if block.norm is None else PlainNorm(block.norm.scale, block.norm.bias)
        self.activation = activation
        # What folding merged is taken apart again: the norm gets the length of each filter and the bias.
        length = block.conv1.weight.flatten(1).norm(dim=1).clamp_min(1e-12)
        self.conv1 = _conv(block.conv1.weight / length[:, None, None, None], torch.zeros_like(block.conv1.bias))
        self.norm2 = PlainNorm(length, block.conv1.bias)
        self.conv2 = UpsampledConv(_conv(block.conv2.weight, block.conv2.bias))
        self.skip = UpsampledConv(_conv(block.skip.weight, block.skip.bias))

    def forward(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        h = self.norm(x) if normed is None else normed
        h = self.activation(self.norm2(self.conv1(self.activation(h))))
        return self.conv2(h) + self.skip(x)


class FrameGenerator(nn.Module):
    """keypoints (N, 136) -> delta uv, low-frequency image and mask, like FoldedGenerator."""

    def __init__(self, folded: FoldedGenerator) -> None:
        super().__init__()
        self.config: BilayerConfig = folded.config
        self.encoding = HarmonicEncoding(folded.config.num_harmonics)
        self.activation = {"leaky_relu": nn.LeakyReLU(SLOPE), "relu": nn.ReLU()}[folded.config.inf_activation]
        self.mlp = nn.ModuleList(_linear(layer) for layer in folded.mlp)
        self.base = Base(_linear(folded.base), PlainNorm(folded.base_norm.scale, folded.base_norm.bias))
        self.blocks = nn.ModuleList(Block(block, self.activation) for block in folded.blocks)
        self.norm = PlainNorm(folded.norm.scale, folded.norm.bias)
        self.heads = Heads(folded.heads)
        self.tail = Tail()

    def forward(self, keypoints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 136) in [-1, 1] -> delta uv (N, 2, S, S) and lf (N, 3, S, S) in [-1, 1], mask (N, 1, S, S) in [0, 1]."""
        h = self.encoding(keypoints)
        for layer in self.mlp:
            h = self.activation(layer(h))
        raw, normed = self.base(h)
        x = raw
        # Without a slice: torch numbers the modules of one from 0 again, and layers lose their names in exported files.
        for block in self.blocks:
            x, normed = block(x, normed), None
        return self.tail(enlarge(self.heads(self.activation(self.norm(x))), self.config.inf_scale))


@torch.no_grad()
def plain(folded: FoldedGenerator) -> FrameGenerator:
    """The structure of the official code for this person; shares no storage with `folded`."""
    return FrameGenerator(folded).eval().requires_grad_(False)


def as_affine(norm: PlainNorm) -> ChannelAffine:
    """The same norm as one scale and one bias per channel."""
    affine = ChannelAffine(norm.scale.numel())
    affine.scale, affine.bias = nn.Parameter(norm.scale.detach()), nn.Parameter(norm.bias.detach())
    return affine


def _conv(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    out, inner, side, _ = weight.shape
    conv = nn.Conv2d(inner, out, side, padding=side // 2)
    conv.weight, conv.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
    return conv


def _linear(layer: nn.Linear) -> nn.Linear:
    linear = nn.Linear(layer.in_features, layer.out_features)
    linear.load_state_dict(layer.state_dict())
    return linear
