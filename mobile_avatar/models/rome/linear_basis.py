"""The linear basis of hair and shoulders: offsets of all vertices from a few coefficients, once per avatar."""

import torch
from torch import Tensor, nn

from mobile_avatar.models.rome.config import RomeConfig


class LinearBasis(nn.Module):
    """offsets = basis @ coefficients + mean; the released basis is orthonormal."""

    def __init__(self, config: RomeConfig) -> None:
        super().__init__()
        self.register_buffer("basis", torch.zeros(3 * config.n_vertices, config.n_basis))
        self.register_buffer("mean", torch.zeros(config.n_vertices, 3))

    def forward(self, coefficients: Tensor) -> Tensor:
        """(B, n_basis) -> offsets (B, V, 3) in head space, added to the posed mesh as they are."""
        return (coefficients @ self.basis.T).unflatten(1, self.mean.shape) + self.mean

    def coefficients(self, offsets: Tensor) -> Tensor:
        """The coefficients (B, n_basis) nearest to offsets (B, V, 3), for an orthonormal basis."""
        return (offsets - self.mean).flatten(1) @ self.basis
