"""Patch discriminator over an image and its landmark image; training only."""

import torch
from torch import Tensor, nn

from mobile_avatar.models.bilayer.blocks import ResidualBlock, activate, batch_norm, conv1, conv3
from mobile_avatar.models.bilayer.config import EMBEDDING_SIZE, BilayerConfig, widen


class Discriminator(nn.Module):
    """Down-sampling residual blocks with batch norm to 8x8 patch scores."""

    def __init__(self, config: BilayerConfig) -> None:
        super().__init__()
        first, top = config.dis_channels, config.dis_max_channels
        downs = (config.image_size // EMBEDDING_SIZE).bit_length() - 1
        self.stem = conv3(6, first)
        widths = [widen(first, min(i, downs), top) for i in range(config.dis_blocks + 1)]
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, "down" if i < downs else "same", normalise=True)
            for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))
        )
        self.norm = batch_norm(widths[-1], affine=True)
        self.score = conv1(widths[-1], 1)

    def forward(self, images: Tensor, landmark_images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, S, S) twice -> patch scores (N, 1, 8, 8) and the features of every block at its input resolution.

        For training, real and fake images go through in one batch, so that its statistics mix them.
        """
        x = self.stem(torch.cat([images, landmark_images], dim=1))
        features = []
        for block in self.blocks:
            features.append(block.features(x))
            x = block.finish(x, features[-1])
        return self.score(activate(self.norm(x))), features
