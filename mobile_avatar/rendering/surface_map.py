"""Values of vertices as a picture in texture space: which face a texel belongs to never changes, so it is a table."""

import torch
from torch import Tensor, nn

from mobile_avatar.rendering.rasterize import rasterize


class SurfaceMap(nn.Module):
    """Unfolds a mesh into its texture: three look-ups and a weighted sum per texel, of fixed shape.

    Args:
        faces: (f, 3) int64 vertex numbers.
        uv: (w, 2) texture vertices in [-1, 1], x right, y down.
        uv_faces: (f, 3) int64, the same faces as numbers of texture vertices.
        size: side of the maps in texels.
    """

    def __init__(self, faces: Tensor, uv: Tensor, uv_faces: Tensor, size: int) -> None:
        super().__init__()
        flat = torch.cat((uv, torch.ones_like(uv[:, :1])), dim=1)[None]
        seen = rasterize(flat.detach(), uv_faces, size)
        corners = torch.zeros(size * size, 3, dtype=torch.int64, device=uv.device)
        weights = torch.zeros(size * size, 3, dtype=uv.dtype, device=uv.device)
        corners[seen.pixel] = faces.index_select(0, seen.face)
        weights[seen.pixel] = seen.barycentrics
        self.size = size
        # Follow from the head model, so they are not stored with the weights.
        self.register_buffer("corners", corners, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Values of vertices (n, v, c) -> maps (n, c, size, size), 0 where the texture has no face."""
        parts = [values.index_select(1, self.corners[:, i]) * self.weights[:, i, None] for i in range(3)]
        return (parts[0] + parts[1] + parts[2]).mT.unflatten(2, (self.size, self.size))

    def mask(self) -> Tensor:
        """(1, 1, size, size), 1 where the texture has a face and 0 elsewhere."""
        return (self.weights.sum(dim=1) > 0).to(self.weights.dtype).view(1, 1, self.size, self.size)
