"""The photo's own colours in the neural texture, where the photo shows the surface.

Not in the paper: there every freckle has to pass through the texture encoder's narrow middle, which asks for an encoder
of 125 GMAC. Here the fitted mesh carries the photo's pixels into three channels of the texture, and a small encoder
fills in the rest: what the photo does not show, and what the other channels say of the surface. Costs nothing per
frame.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.models.rome.avatar_mesh import AvatarMesh
from mobile_avatar.models.rome.compact_renderer import PHOTO_COLOURS
from mobile_avatar.models.rome.feature_image import FRONT
from mobile_avatar.rendering.mesh_normals import vertex_normals
from mobile_avatar.rendering.rasterize import rasterize
from mobile_avatar.rendering.surface_map import SurfaceMap

PER_PIXEL = 2
"""Texels per pixel of the picture along a side: the face is a part of the texture only."""
GRAZING, FRONTAL = 0.1, 0.5
"""Cosine to the viewer from which a spot counts, and from which it counts fully."""
HIDDEN = 0.01
"""Depth behind the nearest surface, in the picture's unit, from which a spot counts as hidden; a pixel's side is added,
by which the depth of one slanted face may differ within a pixel."""
EDGE = 2
"""Pixels inside the person's outline that do not count: they are mixed with the background."""


def texture_side(picture: int) -> int:
    """Texels along a side of the texture that goes with pictures of `picture` pixels."""
    return PER_PIXEL * picture


@torch.no_grad()
def photo_colours(
    positions: Tensor, faces: Tensor, surface: SurfaceMap, photo: Tensor, matte: Tensor
) -> tuple[Tensor, Tensor]:
    """Unfold photos of n people into their textures of T x T texels.

    Args:
        positions: (n, v, 3), the meshes as the photos show them: x and y in the picture [-1, 1], y down; z around 0,
            smaller is nearer.
        faces: (f, 3) int64 vertex numbers.
        surface: of the same faces, T texels a side.
        photo: (n, 3, S, S) RGB in [0, 1]. matte: (n, 1, S, S) in [0, 1].

    Returns:
        colours (n, 3, T, T) in [0, 1], and how far they are to be trusted (n, 1, T, T) in [0, 1]: 0 where the surface
        is hidden, turned away, or no part of the person in the photo.
    """
    size = photo.shape[-1]
    spots = surface(positions)
    grid = spots[:, :2].permute(0, 2, 3, 1)
    drawn = rasterize(positions + positions.new_tensor([0, 0, FRONT]), faces, size)
    nearest = drawn.image(drawn.depth, float("inf"))[:, None].clamp(max=2 * FRONT)
    front = F.grid_sample(nearest, grid, mode="nearest", align_corners=False) - FRONT
    facing = -surface(vertex_normals(positions, faces)[..., 2:])
    seen = (spots[:, 2:] < front + HIDDEN + 2 / size) * surface.mask()
    share = ((facing - GRAZING) / (FRONTAL - GRAZING)).clamp(0, 1) * seen
    inside = -F.max_pool2d(-matte, 2 * EDGE + 1, 1, EDGE)
    share = share * F.grid_sample(inside, grid, align_corners=False)
    colours = F.grid_sample(photo, grid, padding_mode="border", align_corners=False)
    colours, share = _beyond_seams(colours, share, surface.mask())
    # No hard seams where something stands before something else.
    return colours, torch.minimum(share, _mean(share))


def _beyond_seams(colours: Tensor, share: Tensor, covered: Tensor) -> tuple[Tensor, Tensor]:
    """Texels beside the surface's get the mean of their neighbours: bilinear look-ups at seams read them as well."""
    weight, neighbours = _mean(share), _mean(covered)
    near = _mean(colours * share) / weight.clamp(min=1e-6)
    inside = covered > 0
    return torch.where(inside, colours, near), torch.where(inside, share, weight / neighbours.clamp(min=1e-6))


def _mean(values: Tensor) -> Tensor:
    """Of each texel and its eight neighbours."""
    return F.avg_pool2d(values, 3, 1, 1)


@torch.no_grad()
def avatar_texture(mesh: AvatarMesh, codes: Tensor, texture: Tensor, photo: Tensor, matte: Tensor) -> Tensor:
    """The encoder's texture (1, 8, t, t) of one person with the colours of a photo: (1, 8, T, T).

    Args:
        mesh: of the person.
        codes: (1, e + 9), with which it has the photo's pose.
        photo, matte: (1, 3, S, S) and (1, 1, S, S) in [0, 1], of the size that the avatar will be drawn in.
    """
    corners = mesh.corners.long()
    surface = SurfaceMap(corners, mesh.uv, corners, texture_side(photo.shape[-1]))
    positions, _ = mesh(codes)
    return with_photo(texture, *photo_colours(positions, corners, surface, photo, matte))


def with_photo(texture: Tensor, colours: Tensor, share: Tensor) -> Tensor:
    """Encoder's textures (n, 8, t, t), enlarged, with the photos' colours in their first channels: (n, 8, T, T).

    Args:
        colours, share: see `photo_colours`.
    """
    larger = F.interpolate(texture, share.shape[-2:], mode="bilinear", align_corners=False)
    own, rest = larger[:, :PHOTO_COLOURS], larger[:, PHOTO_COLOURS:]
    return torch.cat((own + share * (colours - own), rest), dim=1)
