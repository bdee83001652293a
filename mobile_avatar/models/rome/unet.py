"""The U-Net of ROME, used twice: over the mesh (geometry) and over the image (rendering, 99.6 % of a frame's work)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.models.rome.blocks import StandardisedConv, norm
from mobile_avatar.models.rome.config import LEVELS, RomeConfig


class ConvBlock(nn.Module):
    """Two standardised 3x3 convolutions, each with group norm and ReLU behind it."""

    def __init__(self, inputs: int, inner: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            StandardisedConv(inputs, inner, 3), norm(inner, groups), nn.ReLU(),
            StandardisedConv(inner, outputs, 3), norm(outputs, groups), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class UNet(nn.Module):
    """Four levels, max pool on the way down, nearest up-sampling in front of [up-sampled, skip] on the way up.

    Args:
        inputs, outputs: channels.
        channels: at full resolution, doubled per level up to `max_channels`.
        groups: of the norms.
    """

    def __init__(self, inputs: int, outputs: int, channels: int, max_channels: int, groups: int) -> None:
        super().__init__()
        inner = [min(channels * 2**level, max_channels) for level in range(LEVELS)]
        outer = [min(channels * 2 ** (level + 1), max_channels) for level in range(LEVELS)]
        # Each level is a list of its own in the official files.
        self.encoder = nn.ModuleList(
            nn.Sequential(ConvBlock(before, a, b, groups))
            for before, a, b in zip([inputs, *outer], inner, outer, strict=False)
        )
        self.decoder = nn.ModuleList()
        below = outer[-1]
        for level in reversed(range(LEVELS - 1)):
            self.decoder.append(nn.Sequential(ConvBlock(below + outer[level], outer[level], inner[level], groups)))
            below = inner[level]
        self.to_outputs = nn.Conv2d(below, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W), no activation at the end; H and W are multiples of 8."""
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for block, skip in zip(self.decoder, reversed(skips[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        return self.to_outputs(x)


def geometry_unet(config: RomeConfig) -> UNet:
    """Neural texture (8) and encoded position map (39) -> latent geometry map (32), over the texture square."""
    widths = config.geom_channels, config.geom_max_channels
    return UNet(config.map_channels, config.geom_outputs, *widths, config.norm_groups)


def rendering_unet(config: RomeConfig) -> UNet:
    """Rendered texture times coverage (8) and encoded normal map (39) -> logits of RGB (0 to 2) and of the mask (3)."""
    return UNet(config.map_channels, 4, config.img_channels, config.img_max_channels, config.norm_groups)
