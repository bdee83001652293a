"""What the photo itself says of the surface, in the neural texture: its own colours, and where there is nobody.

Not in the paper: there every freckle has to pass through the texture encoder's narrow middle, which asks for an encoder
of 125 GMAC. Here the fitted mesh carries the photo's pixels into three channels of the texture. What the photo does not
show takes the colours of what is nearest to it on the head, which a small encoder corrects. A fourth channel says where
the mesh stands out beyond the person's outline, so that the renderer can cut it off. Costs nothing per frame.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
NEAR = 0.02
"""Of a head's size: what is nearer than this counts alike where colours are guessed; further away the weight falls with
the fourth power."""
EDGE = 2
"""Pixels inside the person's outline whose colours do not count: they are mixed with the background."""


class PhotoSurface(NamedTuple):
    """What photos of n people say of their surfaces, in textures of T x T texels."""

    colours: Tensor
    """(n, 3, T, T) in [0, 1]; where the photo shows none those of what is nearest on the head."""
    share: Tensor
    """(n, 1, T, T) in [0, 1], how far the colours are the photo's own: 0 where the surface is hidden, turned away, or
    no part of the person."""
    person: Tensor
    """(n, 1, T, T) in [-1, 1]: 1 where the photo shows the person there, -1 where it shows what is behind them, and so
    that the mesh is too large, 0 where it shows neither."""


class PhotoUnfolding(nn.Module):
    """Unfolds photos of people into their textures.

    Args:
        rest: (v, 3) vertices of a head at rest: what is near on it counts as alike.
        faces, uv, uv_faces: see `SurfaceMap`.
        picture: side of the photos in pixels.
    """

    def __init__(self, rest: Tensor, faces: Tensor, uv: Tensor, uv_faces: Tensor, picture: int) -> None:
        super().__init__()
        self.surface = SurfaceMap(faces, uv, uv_faces, PER_PIXEL * picture)
        size = (rest.amax(0) - rest.amin(0)).amax()
        near = (torch.cdist(rest, rest) / size).square() + NEAR**2
        # Follow from the head model, so they are not stored with weights.
        self.register_buffer("near", near**-2, persistent=False)
        self.register_buffer("faces", faces, persistent=False)

    @torch.no_grad()
    def forward(self, positions: Tensor, photo: Tensor, matte: Tensor) -> PhotoSurface:
        """What photos of n people say of their surfaces.

        Args:
            positions: (n, v, 3), the meshes as the photos show them: x and y in the picture [-1, 1], y down; z around
                0, smaller is nearer.
            photo: (n, 3, S, S) RGB in [0, 1]. matte: (n, 1, S, S) in [0, 1].
        """
        facing = -vertex_normals(positions, self.faces)[..., 2:]
        look = self._reader(positions, photo, matte)
        # What the photo does not show is guessed vertex by vertex.
        colours, share, _ = (part[..., 0] for part in look(positions.mT[..., None], facing.mT[..., None]))
        guess = (self.near @ (share * colours).mT) / (self.near @ share.mT).clamp(min=1e-12)
        covered = self.surface.mask()
        colours, share, person = (part * covered for part in look(self.surface(positions), self.surface(facing)))
        # Texels beside the surface get the mean of their neighbours: bilinear look-ups at seams read them as well.
        beside = _mean(covered).clamp(min=1e-6)
        colours, share, guess = (
            torch.where(covered > 0, part, _mean(part) / beside)
            for part in (share * colours, share, self.surface(guess))
        )
        colours = colours / share.clamp(min=1e-6)
        # No hard seams where something stands before something else.
        share = torch.minimum(share, _mean(share))
        return PhotoSurface(share * colours + (1 - share) * guess, share, _mean(person) / beside)

    def _reader(self, positions: Tensor, photo: Tensor, matte: Tensor) -> Callable[[Tensor, Tensor], tuple]:
        """What the photos say of spots (n, 3, h, w) in the picture that face the viewer by a cosine (n, 1, h, w).

        Colours (n, 3, h, w), how far to believe them, and person (n, 1, h, w), see `PhotoSurface`.
        """
        size = photo.shape[-1]
        drawn = rasterize(positions + positions.new_tensor([0, 0, FRONT]), self.faces, size)
        nearest = drawn.image(drawn.depth, float("inf"))[:, None].clamp(max=2 * FRONT)
        pictures = torch.cat((photo, matte, -F.max_pool2d(-matte, 2 * EDGE + 1, 1, EDGE)), dim=1)

        def read(spots: Tensor, facing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            grid = spots[:, :2].permute(0, 2, 3, 1)
            front = F.grid_sample(nearest, grid, mode="nearest", align_corners=False) - FRONT
            shown = (grid.abs() < 1).all(-1)[:, None] * (spots[:, 2:] < front + HIDDEN + 2 / size) * (facing > 0)
            found = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
            colours, person, inside = found.split([3, 1, 1], dim=1)
            share = ((facing - GRAZING) / (FRONTAL - GRAZING)).clamp(0, 1) * shown * inside
            return colours, share, (2 * person - 1) * shown

        return read


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
    unfolding = PhotoUnfolding(mesh.neutral, corners, mesh.uv, corners, photo.shape[-1])
    positions, _ = mesh(codes)
    return with_photo(texture, unfolding(positions, photo, matte))


def with_photo(texture: Tensor, seen: PhotoSurface) -> Tensor:
    """Encoder's textures (n, 8, t, t), enlarged, with what the photos say in their first channels: (n, 8, T, T).

    The encoder's first channels change the colours where the photo does not show them.
    """
    larger = F.interpolate(texture, seen.share.shape[-2:], mode="bilinear", align_corners=False)
    change, rest = larger[:, :PHOTO_COLOURS], larger[:, PERSON + 1 :]
    return torch.cat((seen.colours + (1 - seen.share) * change, seen.person, rest), dim=1)
