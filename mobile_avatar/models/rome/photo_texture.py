"""What the photo itself says of the surface, in the neural texture: its own colours, and where there is nobody.

Not in the paper: there every freckle has to pass through the texture encoder's narrow middle, which asks for an encoder
of 125 GMAC. Here the fitted mesh carries the photo's pixels into three channels of the texture. What the photo does not
show takes the colours of what lies around it, which a small encoder corrects. A fourth channel says where the mesh
stands out beyond the person's outline, so that the renderer can cut it off. Costs nothing per frame.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.models.rome.avatar_mesh import AvatarMesh
from mobile_avatar.models.rome.compact_renderer import PERSON, PHOTO_COLOURS
from mobile_avatar.models.rome.feature_image import FRONT
from mobile_avatar.rendering.mesh_normals import vertex_normals
from mobile_avatar.rendering.rasterize import rasterize
from mobile_avatar.rendering.surface_map import SurfaceMap

PER_PIXEL = 2
"""Texels per pixel of the picture along a side: the face is a part of the texture only."""
GRAZING, FRONTAL = 0.1, 0.5
"""Cosine to the viewer from which a colour counts, and from which it counts fully."""
HIDDEN = 0.01
"""Depth behind the nearest surface, in the picture's unit, from which a spot counts as hidden; a pixel's side is added,
by which the depth of one slanted face may differ within a pixel."""
EDGE = 2
"""Pixels inside the person's outline whose colours do not count: they are mixed with the background."""


class PhotoSurface(NamedTuple):
    """What photos of n people say of their surfaces, in textures of T x T texels."""

    colours: Tensor
    """(n, 3, T, T) in [0, 1]; where the photo shows none those of what lies around in the texture."""
    share: Tensor
    """(n, 1, T, T) in [0, 1], how far the colours are the photo's own: 0 where the surface is hidden, turned away, or
    no part of the person."""
    person: Tensor
    """(n, 1, T, T) in [-1, 1]: 1 where the photo shows the person there, -1 where it shows what is behind them, and so
    that the mesh is too large, 0 where it shows neither."""


def texture_side(picture: int) -> int:
    """Texels along a side of the texture that goes with pictures of `picture` pixels."""
    return PER_PIXEL * picture


@torch.no_grad()
def photo_surface(positions: Tensor, faces: Tensor, surface: SurfaceMap, photo: Tensor, matte: Tensor) -> PhotoSurface:
    """Unfold photos of n people into their textures.

    Args:
        positions: (n, v, 3), the meshes as the photos show them: x and y in the picture [-1, 1], y down; z around 0,
            smaller is nearer.
        faces: (f, 3) int64 vertex numbers.
        surface: of the same faces, T texels a side.
        photo: (n, 3, S, S) RGB in [0, 1]. matte: (n, 1, S, S) in [0, 1].
    """
    size = photo.shape[-1]
    spots = surface(positions)
    grid = spots[:, :2].permute(0, 2, 3, 1)
    drawn = rasterize(positions + positions.new_tensor([0, 0, FRONT]), faces, size)
    nearest = drawn.image(drawn.depth, float("inf"))[:, None].clamp(max=2 * FRONT)
    front = F.grid_sample(nearest, grid, mode="nearest", align_corners=False) - FRONT
    facing = -surface(vertex_normals(positions, faces)[..., 2:])
    in_picture = (grid.abs() < 1).all(-1)[:, None]
    seen = (spots[:, 2:] < front + HIDDEN + 2 / size) * (facing > 0) * in_picture * surface.mask()
    inside = -F.max_pool2d(-matte, 2 * EDGE + 1, 1, EDGE)
    share = ((facing - GRAZING) / (FRONTAL - GRAZING)).clamp(0, 1) * seen * _look_up(inside, grid)
    person = (2 * _look_up(matte, grid) - 1) * seen
    colours, share = _beyond_seams(_look_up(photo, grid), share, surface.mask())
    # No hard seams where something stands before something else.
    share = torch.minimum(share, _mean(share))
    person = _mean(person) / _mean(surface.mask()).clamp(min=1e-6)
    return PhotoSurface(share * colours + (1 - share) * filled(share * colours, share), share, person)


def _look_up(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _beyond_seams(colours: Tensor, share: Tensor, covered: Tensor) -> tuple[Tensor, Tensor]:
    """Texels beside the surface's get the mean of their neighbours: bilinear look-ups at seams read them as well."""
    weight, neighbours = _mean(share), _mean(covered)
    near = _mean(colours * share) / weight.clamp(min=1e-6)
    inside = covered > 0
    return torch.where(inside, colours, near), torch.where(inside, share, weight / neighbours.clamp(min=1e-6))


def filled(total: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums (n, c, S, S) and weights (n, 1, S, S) as means; texels without weight take averages of coarser and
    coarser neighbourhoods, down to the mean of all."""
    levels = [(total, weight)]
    while levels[-1][1].shape[-1] > 1:
        levels.append(tuple(F.avg_pool2d(values, 2, ceil_mode=True) for values in levels[-1]))
    known = levels[-1][0] / levels[-1][1].clamp(min=1e-12)
    for sums, weights in reversed(levels[:-1]):
        coarse = F.interpolate(known, sums.shape[-2:], mode="bilinear", align_corners=False)
        sure = (weights / weights.amax((1, 2, 3), keepdim=True).clamp(min=1e-12) * 50).clamp(max=1)
        known = sure * sums / weights.clamp(min=1e-12) + (1 - sure) * coarse
    return known


def _mean(values: Tensor) -> Tensor:
    """Of each texel and its eight neighbours."""
    return F.avg_pool2d(values, 3, 1, 1)


@torch.no_grad()
def avatar_texture(mesh: AvatarMesh, codes: Tensor, texture: Tensor, photo: Tensor, matte: Tensor) -> Tensor:
    """The encoder's texture (1, 8, t, t) of one person with what a photo says of it: (1, 8, T, T).

    Args:
        mesh: of the person.
        codes: (1, e + 9), with which it has the photo's pose.
        photo, matte: (1, 3, S, S) and (1, 1, S, S) in [0, 1], of the size that the avatar will be drawn in.
    """
    corners = mesh.corners.long()
    surface = SurfaceMap(corners, mesh.uv, corners, texture_side(photo.shape[-1]))
    positions, _ = mesh(codes)
    return with_photo(texture, photo_surface(positions, corners, surface, photo, matte))


def with_photo(texture: Tensor, seen: PhotoSurface) -> Tensor:
    """Encoder's textures (n, 8, t, t), enlarged, with what the photos say in their first channels: (n, 8, T, T).

    The encoder's first channels change the colours where the photo does not show them.
    """
    larger = F.interpolate(texture, seen.share.shape[-2:], mode="bilinear", align_corners=False)
    change, rest = larger[:, :PHOTO_COLOURS], larger[:, PERSON + 1 :]
    return torch.cat((seen.colours + (1 - seen.share) * change, seen.person, rest), dim=1)
