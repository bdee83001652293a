"""Identity embedder: masked source photos and their landmark images -> one embedding per generator block."""

import torch
from torch import Tensor, nn

from mobile_avatar.models.bilayer.blocks import ResidualBlock, conv3
from mobile_avatar.models.bilayer.config import EMBEDDING_SIZE, BilayerConfig, widen
from mobile_avatar.models.bilayer.inference_generator import masked


class IdentityEmbedder(nn.Module):
    """Encoder to 8x8, average over the source frames, then a chain of blocks whose features are the embeddings."""

    def __init__(self, config: BilayerConfig) -> None:
        super().__init__()
        first, top = config.emb_channels, config.emb_max_channels
        self.stem = conv3(6, first)
        downs = (config.image_size // EMBEDDING_SIZE).bit_length() - 1
        widths = [widen(first, i, top) for i in range(downs + 1)]
        self.encoder = nn.ModuleList(ResidualBlock(a, b, "down") for a, b in zip(widths, widths[1:], strict=False))
        widths = [widths[-1], *config.emb_widths]
        last = len(widths) - 2
        # The second half of the last block would feed nothing (the official file carries it as dead weight).
        self.decoder = nn.ModuleList(
            ResidualBlock(a, b, features_only=i == last)
            for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))
        )

    def forward(self, images: Tensor, masks: Tensor, landmark_images: Tensor) -> list[Tensor]:
        """Images (b, n, 3, S, S) in [-1, 1], soft masks (b, n, 1, S, S) in [0, 1], landmark images (b, n, 3, S, S).

        Returns embeddings (b, C_i, 8, 8), deepest first.
        """
        b, n = images.shape[:2]
        people = masked(images, masks)
        x = self.stem(torch.cat([people, landmark_images], dim=2).flatten(0, 1))
        for block in self.encoder:
            x = block(x)
        x = x.unflatten(0, (b, n)).mean(1)
        embeddings = []
        for block in self.decoder:
            features = block.features(x)
            embeddings.append(features)
            if block is not self.decoder[-1]:
                x = block.finish(x, features)
        return embeddings
