"""Texture encoder: aligned photo and matte -> neural texture, once per avatar."""

import torch
from torch import Tensor, nn

from mobile_avatar.models.rome.blocks import StandardisedConv, norm
from mobile_avatar.models.rome.config import LEVELS, RomeConfig

EXPANSION = 4  # blocks carry four times as many channels as they compute with


class Bottleneck(nn.Module):
    """Pre-activation bottleneck; its outer convolutions (last one and skip) are plain, the inner ones standardised.

    Args:
        inputs, inner, outputs: channels before the expansion; the block maps 4 * inputs to 4 * outputs.
        groups: of the norms.
    """

    def __init__(self, inputs: int, inner: int, outputs: int, groups: int) -> None:
        super().__init__()
        wide, out = EXPANSION * inputs, EXPANSION * outputs
        layers: list[nn.Module] = []
        for channels, kernel in ((wide, 1), (inner, 3), (inner, 3)):
            layers += [norm(channels, groups), nn.ReLU(), StandardisedConv(channels, inner, kernel)]
        self.main = nn.Sequential(*layers, norm(inner, groups), nn.ReLU(), nn.Conv2d(inner, out, 1, bias=False))
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(wide, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + self.skip(x)


class TextureEncoder(nn.Module):
    """Encoder and decoder without skips between them; layers are numbered as in the official files."""

    def __init__(self, config: RomeConfig) -> None:
        super().__init__()
        first, groups = config.tex_channels, config.norm_groups
        widths = [min(first * 2**level, config.tex_max_channels) for level in range(LEVELS)]
        layers: list[nn.Module] = [nn.Conv2d(4, EXPANSION * first, 7, padding=3, bias=False)]
        before = first
        for level, width in enumerate(widths):
            layers += [nn.MaxPool2d(2)] if level else []
            layers += [Bottleneck(before, width, width, groups), Bottleneck(width, width, width, groups)]
            before = width
        for level, width in reversed(list(enumerate(widths))):
            after = widths[max(level - 1, 0)]
            layers += [Bottleneck(width, width, width, groups), Bottleneck(width, width, after, groups)]
            layers += [nn.Upsample(scale_factor=2, mode="nearest")] if level else []
        layers += [norm(EXPANSION * first, groups), nn.ReLU(), nn.Conv2d(EXPANSION * first, config.tex_outputs, 1)]
        self.net = nn.Sequential(*layers)

    def forward(self, photo: Tensor, matte: Tensor) -> Tensor:
        """Aligned RGB (B, 3, S, S), not multiplied by the matte, and matte (B, 1, S, S), both in [0, 1].

        Returns the neural texture (B, 8, S, S), unbounded. Sides are multiples of 8.
        """
        return self.net(torch.cat([photo, matte], dim=1))
