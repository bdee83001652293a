"""Inference generator: keypoints embedding + predicted layers -> warp field, low-frequency image and mask."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.models.bilayer.adaptive import AdaptiveBatchNorm, AdaptiveDecoder, PredictedBlock
from mobile_avatar.models.bilayer.blocks import ACTIVATIONS, conv3
from mobile_avatar.models.bilayer.config import BASE_SIZE, BilayerConfig, widen


class Layers(NamedTuple):
    """What one frame is made of, before the texture is warped in."""

    delta: Tensor
    """(N, 2, S, S) in [-1, 1]: what is added to the pixel centres to get uv; channel 0 is x."""
    lf: Tensor
    """(N, 3, S, S) in [-1, 1]: low-frequency image."""
    logits: Tensor
    """(N, 1, S, S): mask before the sigmoid."""

    def uv(self) -> Tensor:
        """(N, S, S, 2): where each pixel reads the texture, in grid_sample's convention."""
        return (pixel_grid(self.delta.shape[-1], self.delta.device) + self.delta).permute(0, 2, 3, 1)

    def mask(self) -> Tensor:
        """(N, 1, S, S) in [0, 1]."""
        return torch.sigmoid(self.logits)


class InferenceGenerator(nn.Module):
    """The per-frame network: adaptive batch norm, efficient up-sampling, three heads."""

    def __init__(self, config: BilayerConfig) -> None:
        super().__init__()
        widths = [
            widen(config.inf_channels, config.inf_blocks - i, config.inf_max_channels)
            for i in range(config.inf_blocks + 1)
        ]
        self.scale = config.inf_scale
        self.decoder = AdaptiveDecoder(
            widths, AdaptiveBatchNorm, BASE_SIZE, True, config.adaptive_skips, ACTIVATIONS[config.inf_activation]
        )
        self.uv_head = conv3(widths[-1], 2)
        self.lf_head = conv3(widths[-1], 3)
        self.mask_head = conv3(widths[-1], 1)

    def forward(self, pose: Tensor, predicted: list[PredictedBlock]) -> Layers:
        """Pose embedding (N, C, 4, 4) and predicted layers for N samples, or for one person, -> Layers."""
        x = self.decoder(pose, predicted)
        uv, lf, mask = (enlarge(head(x), self.scale) for head in (self.uv_head, self.lf_head, self.mask_head))
        return Layers(torch.tanh(uv), torch.tanh(lf), mask)


def enlarge(heads: Tensor, scale: int) -> Tensor:
    """The bilinear last step of a decoder that stops early; before the activations, so the mask stays sharp."""
    return heads if scale == 1 else F.interpolate(heads, scale_factor=float(scale), mode="bilinear")


def pixel_grid(size: int, device: torch.device | None = None) -> Tensor:
    """Pixel centres (2j + 1) / S - 1 as (1, 2, S, S), channel 0 is x."""
    line = (2 * torch.arange(size, dtype=torch.float32, device=device) + 1) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y])[None]


def warp(texture: Tensor, uv: Tensor, align_corners: bool) -> Tensor:
    """High-frequency image: bilinear, zeros outside. Texture (N, 3, S, S), uv (N, S, S, 2)."""
    return F.grid_sample(texture, uv, "bilinear", "zeros", align_corners=align_corners)


def masked(image: Tensor, mask: Tensor) -> Tensor:
    """image * mask with the black background (-1) of the training data elsewhere."""
    return image * mask - (1 - mask)
