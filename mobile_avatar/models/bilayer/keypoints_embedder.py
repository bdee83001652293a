"""Keypoints embedder: 68 points -> the 4x4 input of the inference generator."""

from torch import Tensor, nn

from mobile_avatar.models.bilayer.blocks import ACTIVATIONS
from mobile_avatar.models.bilayer.config import BASE_SIZE, BilayerConfig
from mobile_avatar.models.bilayer.keypoints_encoding import HarmonicEncoding


class KeypointsEmbedder(nn.Module):
    """Linear layers with activations between them, optionally behind a harmonic encoding."""

    def __init__(self, config: BilayerConfig) -> None:
        super().__init__()
        self.encoding = HarmonicEncoding(config.num_harmonics)
        self.activate = ACTIVATIONS[config.inf_activation]
        self.shape = (config.inf_max_channels, BASE_SIZE, BASE_SIZE)
        widths = [self.encoding.out_features] + [config.pose_channels] * (config.pose_blocks - 1)
        widths.append(config.inf_max_channels * BASE_SIZE**2)
        self.mlp = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))

    def forward(self, keypoints: Tensor) -> Tensor:
        """(N, 136) in [-1, 1] -> (N, inf_max_channels, 4, 4)."""
        x = self.mlp[0](self.encoding(keypoints))
        for layer in self.mlp[1:]:
            x = layer(self.activate(x))
        return x.view(-1, *self.shape)
