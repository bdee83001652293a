"""Texture generator: predicted layers -> the person's high-frequency texture."""

import torch
from torch import Tensor, nn

from mobile_avatar.models.bilayer.adaptive import AdaptiveBatchNorm, AdaptiveDecoder, AdaptiveSpade, PredictedBlock
from mobile_avatar.models.bilayer.blocks import conv3
from mobile_avatar.models.bilayer.config import BASE_SIZE, BilayerConfig, widen


class TextureGenerator(nn.Module):
    """Learned 4x4 constant -> adaptive blocks -> texture. Runs once per person."""

    def __init__(self, config: BilayerConfig) -> None:
        super().__init__()
        widths = [
            widen(config.tex_channels, config.num_blocks - i, config.tex_max_channels)
            for i in range(config.num_blocks + 1)
        ]
        self.base = nn.Parameter(torch.randn(1, widths[0], BASE_SIZE, BASE_SIZE))
        norm = AdaptiveSpade if config.tex_spade else AdaptiveBatchNorm
        self.decoder = AdaptiveDecoder(widths, norm, BASE_SIZE, False, config.adaptive_skips)
        self.head = conv3(widths[-1], 3)

    def forward(self, predicted: list[PredictedBlock]) -> Tensor:
        """Predicted layers of b people -> textures (b, 3, S, S) in [-1, 1]."""
        people = predicted[0].norm2[0].weight.shape[0]
        return torch.tanh(self.head(self.decoder(self.base.expand(people, -1, -1, -1), predicted)))
