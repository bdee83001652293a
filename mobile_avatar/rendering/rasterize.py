"""Which face every pixel sees: a hard z-buffer in plain torch, batched, differentiable, for CPU and GPU.

The rules are those of the rasteriser that the official ROME weights were trained with. The picture spans [-1, 1], x to
the right, y down, pixel j has its centre at (2j + 1) / size - 1; the nearest face has the smallest z, and of equal ones
the lowest number wins. A face covers a centre when all three barycentric coordinates are greater than zero, so a centre
exactly on an edge sees neither neighbour. Both sides of a face are drawn. Faces without area and faces with a corner at
or behind z = 0 are not. Barycentric coordinates are those of the picture plane, without perspective.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.rendering.pixel_boxes import EMPTY, keep_nearest, pixel_boxes, proposals, winners

EPSILON = 1e-8
"""Faces whose doubled area or nearest z is not above this are not drawn; added to the doubled area in divisions."""
EDGES = ((1, 2), (2, 0), (0, 1))
"""Corners of the edge across from corner 0, 1, 2."""


@dataclass(frozen=True)
class Fragments:
    """The k pixels of n pictures that see a mesh, in ascending order, and what they see."""

    pixel: Tensor
    """(k,) int64, numbers into n * size * size."""
    face: Tensor
    """(k,) int64, numbers of faces."""
    barycentrics: Tensor
    """(k, 3), weights of the face's corners; differentiable with respect to the vertices."""
    depth: Tensor
    """(k,) z of the surface; differentiable."""
    frames: int
    size: int

    @property
    def frame(self) -> Tensor:
        """(k,) int64: the picture of each pixel."""
        return torch.div(self.pixel, self.size * self.size, rounding_mode="floor")

    def image(self, values: Tensor, empty: float = 0) -> Tensor:
        """Values (k, c) or (k,) of the pixels as (n, c, size, size) or (n, size, size), `empty` elsewhere."""
        flat = values.new_full((self.frames * self.size * self.size, *values.shape[1:]), empty)
        image = flat.index_copy(0, self.pixel, values).view(self.frames, self.size, self.size, *values.shape[1:])
        return image.permute(0, 3, 1, 2) if values.dim() == 2 else image

    def mask(self) -> Tensor:
        """(n, 1, size, size) in the type of the barycentrics, 1 where a face is seen and 0 elsewhere."""
        return self.image(torch.ones_like(self.barycentrics[:, :1]))

    def interpolate(self, values: Tensor, corners: Tensor) -> Tensor:
        """An attribute of the mesh as pictures (n, c, size, size), 0 where no face is seen.

        Args:
            values: (n or 1, r, c) rows to be interpolated: of vertices, or of texture vertices.
            corners: (f, 3) int64, the rows of each face's corners: the faces themselves for values of vertices, another
                table for values that differ between the faces of a vertex, like uv at a seam.
        """
        rows = corners.index_select(0, self.face)
        if len(values) > 1:
            rows = rows + (self.frame * values.shape[1])[:, None]
        table = values.flatten(0, 1)
        at = [table.index_select(0, row) for row in rows.unbind(1)]
        w0, w1, w2 = self.barycentrics.split(1, dim=1)
        return self.image(w0 * at[0] + w1 * at[1] + w2 * at[2])


def rasterize(vertices: Tensor, faces: Tensor, size: int) -> Fragments:
    """What the pixels of n pictures see of a mesh.

    Args:
        vertices: (n, v, 3) float32 or float64: x and y in the picture, z in front of the camera.
        faces: (f, 3) int64, the same for all pictures.
        size: side of the square pictures in pixels.

    Returns:
        Fragments, differentiable with respect to the vertices (not where one face gives way to another).

    Raises:
        BadInput: shapes that are not those of meshes.
    """
    check_mesh(vertices, faces, size)
    with torch.no_grad():
        prepared = Corners(vertices, faces)
        best = torch.full((len(vertices) * size * size,), EMPTY, device=vertices.device)
        for part, place, column, row in proposals(prepared.boxes(size)):
            face = prepared.take(part)
            inside, edges = face.edges(place, column, row, size)
            hit = torch.nonzero(inside > 0)[:, 0]
            owner = place.index_select(0, hit)
            depth = face.depth([edge.index_select(0, hit) for edge in edges], owner)
            frame, number = prepared.split(part.index_select(0, owner))
            pixel = (row * size + column).index_select(0, hit) + frame * (size * size)
            keep_nearest(best, pixel, depth, number)
        pixel, number = winners(best)
    return _fragments(vertices, faces, pixel, number, size)


def _fragments(vertices: Tensor, faces: Tensor, pixel: Tensor, number: Tensor, size: int) -> Fragments:
    """Barycentrics and depth of the faces seen, with gradients, computed exactly as in the test above."""
    n, v, _ = vertices.shape
    frame = torch.div(pixel, size * size, rounding_mode="floor")
    inside = pixel - frame * (size * size)
    centres = pixel_centres(size, vertices)
    row = torch.div(inside, size, rounding_mode="floor")
    px, py = centres.index_select(0, inside - row * size), centres.index_select(0, row)
    corners = (faces.index_select(0, number) + (frame * v)[:, None]).unbind(1)
    x, y, z = zip(*(vertices.reshape(n * v, 3).index_select(0, c).unbind(1) for c in corners), strict=True)
    area = doubled_area(x, y) + EPSILON
    w0, w1, w2 = (((px - x[a]) * (y[b] - y[a]) - (py - y[a]) * (x[b] - x[a])) / area for a, b in EDGES)
    depth = w0 * z[0] + w1 * z[1] + w2 * z[2]
    return Fragments(pixel, number, torch.stack((w0, w1, w2), dim=1), depth, n, size)


def seen_vertices(frame: Tensor, face: Tensor, faces: Tensor, shape: tuple[int, int]) -> Tensor:
    """Which vertices belong to a face that is seen.

    Args:
        frame, face: (k,) int64, picture and number of the faces seen; repetitions do no harm.
        faces: (f, 3) int64.
        shape: number of pictures n and of vertices v.

    Returns:
        (n, v) bool.
    """
    seen = torch.zeros(shape, dtype=torch.bool, device=face.device)
    seen[frame[:, None], faces.index_select(0, face)] = True
    return seen


def pixel_centres(size: int, like: Tensor) -> Tensor:
    """(size,) positions of the pixels' centres in [-1, 1]."""
    return (2 * torch.arange(size, device=like.device, dtype=like.dtype) + 1) / size - 1


def doubled_area(x: tuple[Tensor, ...] | Tensor, y: tuple[Tensor, ...] | Tensor) -> Tensor:
    """Twice the signed area of triangles, in the order of operations that decides which faces are too thin."""
    return (x[2] - x[0]) * (y[1] - y[0]) - (y[2] - y[0]) * (x[1] - x[0])


def check_mesh(vertices: Tensor, faces: Tensor, size: int) -> None:
    """BadInput unless vertices are (n, v, 3) float32 or float64, faces (f, 3) int64 and there is a picture."""
    if vertices.dim() != 3 or vertices.shape[2] != 3 or vertices.dtype not in (torch.float32, torch.float64):
        raise BadInput(
            f"vertices to be drawn must be float32 or float64 (frames, vertices, 3), "
            f"not {str(vertices.dtype).removeprefix('torch.')} {tuple(vertices.shape)}"
        )
    if faces.dim() != 2 or faces.shape[1] != 3 or faces.dtype != torch.int64:
        raise BadInput(f"faces must be int64 (faces, 3), not {faces.dtype} {tuple(faces.shape)}")
    if size < 1:
        raise BadInput(f"a picture of {size} pixels cannot be drawn; choose a size of at least 1")


class Corners:
    """Corners of faces, (3, m) for each coordinate: the drawable faces of n meshes one after another, or some of them.

    The edge functions change sign with the winding of the face; here they are multiplied by the sign of its area, which
    changes no digit and makes them positive inside.
    """

    def __init__(self, vertices: Tensor, faces: Tensor) -> None:
        self.per_frame = len(faces)
        corners = vertices.detach().index_select(1, faces.reshape(-1)).view(-1, 3, 3)
        self.x, self.y, self.z = corners.permute(2, 1, 0).contiguous().unbind(0)
        self.area = doubled_area(self.x, self.y)

    def boxes(self, size: int, reach: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pixel boxes of all faces, empty for those that must not be drawn; `reach` in units of the picture."""
        half = size / 2
        # A thousandth of a pixel more, so that rounding never loses a centre.
        left, top, wide, high = pixel_boxes((self.x + 1) * half, (self.y + 1) * half, size, reach * half + 1e-3)
        # Comparisons with what is not a number are false: such faces are not drawn, nor are those that reach infinity.
        drawn = (self.area.abs() > EPSILON) & (self.area.abs() < torch.inf)
        drawn &= (self.z.amin(dim=0) >= EPSILON) & (self.z.amax(dim=0) < torch.inf)
        return left, top, torch.where(drawn, wide, 0), torch.where(drawn, high, 0)

    def take(self, part: Tensor) -> "Corners":
        """The faces `part` (b,)."""
        some = object.__new__(Corners)
        some.per_frame = self.per_frame
        some.x, some.y, some.z = (t.index_select(1, part) for t in (self.x, self.y, self.z))
        some.area = self.area.index_select(0, part)
        return some

    def split(self, face: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers into all meshes (k,) as frame and number of the face within its mesh."""
        frame = torch.div(face, self.per_frame, rounding_mode="floor")
        return frame, face - frame * self.per_frame

    def edges(self, place: Tensor, column: Tensor, row: Tensor, size: int) -> tuple[Tensor, list[Tensor]]:
        """Edge functions of pixel centres: their smallest (k,), above 0 inside the face, and all three of them."""
        centres = pixel_centres(size, self.x)
        px, py = centres.index_select(0, column), centres.index_select(0, row)
        sign = (self.area + EPSILON).sign()
        x, y = self.x, self.y
        edges = [
            (px - x[a].index_select(0, place)) * ((y[b] - y[a]) * sign).index_select(0, place)
            - (py - y[a].index_select(0, place)) * ((x[b] - x[a]) * sign).index_select(0, place)
            for a, b in EDGES
        ]
        return torch.minimum(torch.minimum(edges[0], edges[1]), edges[2]), edges

    def depth(self, edges: list[Tensor], owner: Tensor) -> Tensor:
        """z (k,) where the edge functions have the given values."""
        area = (self.area + EPSILON).abs().index_select(0, owner)
        z0, z1, z2 = (z.index_select(0, owner) for z in self.z)
        return edges[0] / area * z0 + edges[1] / area * z1 + edges[2] / area * z2
