"""Projectors: identity embeddings -> the predicted layers of a generator."""

import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.adaptive import Predicted, PredictedBlock
from mobile_avatar.models.bilayer.config import BilayerConfig, widen

PIXELS = 32  # an embedding is pooled to 32x32 for a generator of the embedder's own width


class Projector(nn.Module):
    """One chain of three linear layers (nothing between them) per predicted layer.

    Args:
        config: gives the widths of the embeddings.
        blocks: how many blocks the generator has; a shorter one reads the deeper embeddings.
        channels, max_channels: widths of the generator that is served.
        spatial: adaptive SPADE (two 1x1 convolutions per norm) instead of adaptive batch norm (a scale and a bias).
        skips: predict the generator's skips too.
    """

    def __init__(
        self, config: BilayerConfig, blocks: int, channels: int, max_channels: int, spatial: bool, skips: bool = True
    ) -> None:
        super().__init__()
        self.skips = skips
        self.norm_layers = 2 if spatial else 1
        self.pooled: list[int] = []
        self.rows: list[int] = []
        chains = []
        for i, width in enumerate(config.emb_widths[:blocks]):
            hidden = widen(config.emb_channels, config.num_blocks - i, config.emb_max_channels)
            ratio = widen(channels, blocks - i, max_channels) / hidden
            side, rows = int(PIXELS * ratio), widen(channels, blocks - 1 - i, max_channels)
            if side < 1 or width * side * side % rows:
                raise BadInput(
                    f"a generator of {channels}/{max_channels} channels cannot be driven by an embedder of "
                    f"{config.emb_channels}/{config.emb_max_channels}; choose widths whose ratio is a power of two"
                )
            self.pooled.append(side)
            self.rows.append(rows)
            norm_out = rows + 1 if spatial else 2
            skip_in = widen(channels, blocks - i, max_channels)
            norm = [norm_out] * self.norm_layers
            outputs = norm + [skip_in + 1] * skips + norm
            features = width * side * side // rows
            chains.append(nn.ModuleList(_chain(features, hidden, out) for out in outputs))
        self.blocks = nn.ModuleList(chains)

    def forward(self, embeddings: list[Tensor]) -> list[PredictedBlock]:
        """Embeddings (b, C_i, 8, 8), deepest first -> one PredictedBlock per generator block."""
        return [self._block(i, embedding) for i, embedding in enumerate(embeddings[: len(self.blocks)])]

    def _block(self, i: int, embedding: Tensor) -> PredictedBlock:
        b = embedding.shape[0]
        # Pooling 8x8 to a larger side replicates pixels; consecutive channels share a row.
        rows = F.adaptive_avg_pool2d(embedding, self.pooled[i]).reshape(b, self.rows[i], -1)
        outputs = [chain(rows) for chain in self.blocks[i]]
        layers = [Predicted(out[:, :, :-1], out[:, :, -1]) for out in outputs]
        k = self.norm_layers
        return PredictedBlock(tuple(layers[:k]), layers[k] if self.skips else None, tuple(layers[-k:]))


def _chain(features: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs))
