"""The inference generator of one person: every adaptive parameter is a constant, so only plain layers remain."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.models.bilayer.adaptive import Activation
from mobile_avatar.models.bilayer.blocks import ACTIVATIONS
from mobile_avatar.models.bilayer.config import BASE_SIZE, BilayerConfig, widen
from mobile_avatar.models.bilayer.inference_generator import enlarge
from mobile_avatar.models.bilayer.keypoints_encoding import HarmonicEncoding


class ChannelAffine(nn.Module):
    """y = x * scale + bias per channel: what is left of an adaptive batch norm that no convolution can absorb."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.bias


class FoldedBlock(nn.Module):
    """Residual up-sampling block: norm2 is folded into `conv1`; the 1x1 skip runs before its nearest up-sampling.

    Both are exact: a 1x1 convolution commutes with nearest up-sampling and costs a quarter before it.
    """

    def __init__(self, in_channels: int, out_channels: int, first: bool, activation: Activation) -> None:
        super().__init__()
        self.activate = activation
        # The first block's skip reads the raw 4x4 input, so its norm stays apart (FoldedGenerator.base_norm).
        self.norm = None if first else ChannelAffine(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        h = self.norm(x) if normed is None else normed
        h = self.activate(self.conv1(self.activate(h)))
        h = self.conv2(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return h + F.interpolate(self.skip(x), scale_factor=2.0, mode="nearest")


class FoldedGenerator(nn.Module):
    """keypoints (1, 136) -> delta uv, low-frequency image and mask of one person (section 9 of the official layout).

    Equals the unfolded keypoints embedder + inference generator of that person to float rounding.
    """

    def __init__(self, config: BilayerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoding = HarmonicEncoding(config.num_harmonics)
        self.activate = ACTIVATIONS[config.inf_activation]
        top = config.inf_max_channels
        widths = [self.encoding.out_features] + [config.pose_channels] * (config.pose_blocks - 1)
        self.mlp = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.base = nn.Linear(widths[-1], top * BASE_SIZE**2)
        self.base_norm = ChannelAffine(widen(config.inf_channels, config.inf_blocks, config.inf_max_channels))
        blocks, channels = [], widen(config.inf_channels, config.inf_blocks, top)
        for i in range(config.inf_blocks):
            out = widen(config.inf_channels, config.inf_blocks - 1 - i, top)
            blocks.append(FoldedBlock(channels, out, i == 0, self.activate))
            channels = out
        self.blocks = nn.ModuleList(blocks)
        self.norm = ChannelAffine(channels)
        self.heads = nn.Conv2d(channels, 6, 3, padding=1)

    def forward(self, keypoints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 136) in [-1, 1] -> delta uv (N, 2, S, S) and lf (N, 3, S, S) in [-1, 1], mask (N, 1, S, S) in [0, 1]."""
        h = self.encoding(keypoints)
        for layer in self.mlp:
            h = self.activate(layer(h))
        x = self.base(h).view(-1, self.config.inf_max_channels, BASE_SIZE, BASE_SIZE)
        normed = self.base_norm(x)
        # Without a slice: torch numbers the modules of one from 0 again, and layers lose their names in exported files.
        for block in self.blocks:
            x, normed = block(x, normed), None
        heads = enlarge(self.heads(self.activate(self.norm(x))), self.config.inf_scale)
        return torch.tanh(heads[:, 0:2]), torch.tanh(heads[:, 2:5]), torch.sigmoid(heads[:, 5:6])
