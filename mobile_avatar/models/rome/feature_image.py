"""What the rendering network gets to see: the reference of the GPU's draw call (`rendering/shaders/mesh.frag`)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.models.rome.camera import DEPTH
from mobile_avatar.rendering.rasterize import Fragments, rasterize

FRONT = 2 * DEPTH
"""Added to z, so that the whole mesh is in front of the camera; `mesh.vert` divides by the same number."""


def feature_image(
    positions: Tensor, normals: Tensor, corners: Tensor, uv: Tensor, texture: Tensor, size: int
) -> Tensor:
    """Draw n frames of one person.

    Args:
        positions, normals: (n, w, 3), as `AvatarMesh` gives them.
        corners: (t, 3) int64, triangles of drawn vertices.
        uv: (w, 2) places in the texture in [-1, 1], x right, y down.
        texture: neural texture (1, 8, H, W); bilinear, zeros outside, texel centres at (2j + 1) / W - 1.
        size: side of the pictures in pixels.

    Returns:
        (n, 12, S, S): texture, interpolated normals and coverage; all 0 where no face is seen.
    """
    seen, places = _seen(positions, corners, uv, size)
    mask = seen.mask()
    drawn = sample_texture(texture.expand(len(positions), -1, -1, -1), places)
    return torch.cat((drawn * mask, seen.interpolate(normals, corners), mask), dim=1)


def texture_places(positions: Tensor, corners: Tensor, uv: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where the pixels of such a picture read the texture, (n, S, S, 2) in [-1, 1], and their coverage (n, 1, S, S)."""
    seen, places = _seen(positions, corners, uv, size)
    return places, seen.mask()


def sample_texture(texture: Tensor, places: Tensor) -> Tensor:
    """Textures (n, c, H, W) at places (n, S, S, 2) -> (n, c, S, S), by the rules of `feature_image`."""
    return F.grid_sample(texture, places, mode="bilinear", padding_mode="zeros", align_corners=False)


def _seen(positions: Tensor, corners: Tensor, uv: Tensor, size: int) -> tuple[Fragments, Tensor]:
    seen = rasterize(positions + positions.new_tensor([0, 0, FRONT]), corners, size)
    return seen, seen.interpolate(uv[None], corners).permute(0, 2, 3, 1)
