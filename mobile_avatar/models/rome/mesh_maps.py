"""From the mesh to pictures: what the rendering network and the geometry network get to see of it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.models.rome.encoding import OCTAVES, harmonic_encoding
from mobile_avatar.rendering.mesh_normals import vertex_normals
from mobile_avatar.rendering.rasterize import Fragments, rasterize

POSITION_SCALE = 5.0  # of positions in head space before they are encoded: head models count in metres


@dataclass(frozen=True)
class MeshMaps:
    """A mesh seen by the camera, n pictures of S x S pixels; all maps are 0 where no face is seen."""

    uv: Tensor
    """(n, 2, S, S): where the surface lies in the texture, (x, y) in [-1, 1]."""
    normals: Tensor
    """(n, 3, S, S): normals in head space, that is before the head's rotation; interpolated, not unit again."""
    mask: Tensor
    """(n, 1, S, S): 1 where a face is seen."""
    fragments: Fragments
    """For maps of anything else: `fragments.interpolate`."""


def mesh_maps(projected: Tensor, vertices: Tensor, faces: Tensor, uv: Tensor, uv_faces: Tensor, size: int) -> MeshMaps:
    """Draw a mesh.

    Args:
        projected: (n, v, 3) float32, x and y in the picture [-1, 1], y down; z above 0, smaller is nearer: what
            `camera.project` gives with `camera.DEPTH` added.
        vertices: (n, v, 3), the same mesh in head space.
        faces: (f, 3) int64 vertex numbers.
        uv: (w, 2) texture vertices in [-1, 1].
        uv_faces: (f, 3) int64 numbers of texture vertices. Interpolating per corner keeps seams sharp.
        size: side of the pictures in pixels.

    Raises:
        BadInput: shapes that are not those of meshes.
    """
    seen = rasterize(projected, faces, size)
    normals = seen.interpolate(vertex_normals(vertices, faces), faces)
    return MeshMaps(seen.interpolate(uv[None], uv_faces), normals, seen.mask(), seen)


def image_features(texture: Tensor, uv: Tensor, normals: Tensor, mask: Tensor, octaves: int = OCTAVES) -> Tensor:
    """Input of the rendering network.

    Args:
        texture: neural texture (n, 8, H, W).
        uv, normals, mask: as in `MeshMaps`.
        octaves: of the encoding.

    Returns:
        (n, 8 + 39, S, S): the texture as the camera sees it, 0 off the mesh; then the encoded normals, which are not
        masked again, so that the cosines of the background are 1.
    """
    rendered = F.grid_sample(
        texture, uv.permute(0, 2, 3, 1), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return torch.cat((rendered * mask, harmonic_encoding(normals, octaves, dim=1)), dim=1)


def geometry_features(texture: Tensor, positions: Tensor, octaves: int = OCTAVES) -> Tensor:
    """Input of the geometry network.

    Args:
        texture: neural texture (n, 8, S, S).
        positions: (n, 3, S, S), vertices in head space unfolded by a `SurfaceMap`.
        octaves: of the encoding.

    Returns:
        (n, 8 + 39, S, S)
    """
    return torch.cat((texture, harmonic_encoding(positions * POSITION_SCALE, octaves, dim=1)), dim=1)
