"""The outline of a mesh as a soft mask, whose gradient pulls vertices: what fits shapes to segmentations.

Every pixel looks at the nearest faces that cover its centre or pass close by; the squared distance from the centre to a
face's outline, negative inside, becomes a probability, and the mask is the probability that any of them covers it.
"""

from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.rendering.pixel_boxes import ordered_bits, proposals
from mobile_avatar.rendering.rasterize import EDGES, Corners, check_mesh, pixel_centres, seen_vertices

BLUR_RADIUS = 1e-4
"""Squared distance, in units of the picture that spans [-1, 1], up to which a face matters outside: 0.01 squared."""
SIGMA = 1e-4
LAYERS = 10
MANY = 4_000_000
"""Faces of pixels that may wait to be sorted, which bounds the memory."""
SEGMENTS = ((1, 2), (0, 2), (0, 1))
"""Corners at the ends of the edge across from corner 0, 1, 2; where the second end is decides about very short ones."""
SHORT = 1e-8
"""An edge whose squared length is not above this counts as a point: its second end."""


@dataclass(frozen=True)
class NearFaces:
    """The nearest faces of the pixels of n pictures, k of them in all: ascending pixels, near to far in each."""

    pixel: Tensor
    """(k,) int64, numbers into n * size * size."""
    layer: Tensor
    """(k,) int64, place in the pixel's order of depth: 0 is the nearest."""
    face: Tensor
    """(k,) int64"""
    distance: Tensor
    """(k,) squared distance to the outline of the face, negative inside; differentiable with respect to x and y."""
    frames: int
    size: int
    layers: int

    def image(self, values: Tensor, empty: float) -> Tensor:
        """Values (k,) as (n, size, size, layers), `empty` where there are fewer faces."""
        flat = values.new_full((self.frames * self.size * self.size * self.layers,), empty)
        flat = flat.index_copy(0, self.pixel * self.layers + self.layer, values)
        return flat.view(self.frames, self.size, self.size, self.layers)

    def alpha(self, sigma: float = SIGMA) -> Tensor:
        """Soft mask (n, size, size) in [0, 1]: 1 - product of (1 - sigmoid(-distance / sigma))."""
        # The product as a sum of logarithms: exact near 0, and its gradient needs no division.
        return -torch.expm1(self.image(F.logsigmoid(self.distance / sigma), 0).sum(dim=-1))

    def visibility(self, faces: Tensor, vertices: int) -> Tensor:
        """(n, v) bool: vertices of the faces that are nearest at some pixel, blur included. faces: (f, 3) int64."""
        front = torch.nonzero(self.layer == 0)[:, 0]
        frame = torch.div(self.pixel.index_select(0, front), self.size * self.size, rounding_mode="floor")
        return seen_vertices(frame, self.face.index_select(0, front), faces, (self.frames, vertices))


def soft_silhouette(vertices: Tensor, faces: Tensor, size: int) -> Tensor:
    """The soft mask (n, size, size) in [0, 1] of a mesh, with the constants of the official training.

    Args and errors as `rasterize`; differentiable with respect to x and y of the vertices.
    """
    return near_faces(vertices, faces, size).alpha()


def near_faces(
    vertices: Tensor, faces: Tensor, size: int, blur_radius: float = BLUR_RADIUS, layers: int = LAYERS
) -> NearFaces:
    """The `layers` nearest faces of every pixel, among those that cover its centre or pass close by.

    Args:
        vertices: (n, v, 3) float32 or float64, as for `rasterize`, whose rules hold.
        faces: (f, 3) int64.
        size: side of the square pictures in pixels.
        blur_radius: squared distance from the centre below which a face matters that does not cover it. Its depth there
            is that of its plane; where that is behind the camera the face does not matter.
        layers: how many faces at most.

    Raises:
        BadInput: shapes that are not those of meshes.
    """
    check_mesh(vertices, faces, size)
    with torch.no_grad():
        prepared = Corners(vertices, faces)
        nearest, waiting = _Nearest.none(vertices.device, layers), []
        for piece in proposals(prepared.boxes(size, sqrt(blur_radius))):
            waiting.append(_candidates(prepared, piece, size, blur_radius))
            if sum(len(pixel) for pixel, *_ in waiting) > MANY:
                nearest, waiting = nearest.with_more(waiting), []
        nearest = nearest.with_more(waiting)
    distance = _distance(vertices, faces, nearest, size)
    return NearFaces(nearest.pixel, nearest.layer(), nearest.face, distance, len(vertices), size, layers)


@dataclass(frozen=True)
class _Nearest:
    """Faces of pixels, at most `layers` each, by pixel and depth; equal depths in ascending order of faces."""

    pixel: Tensor
    face: Tensor
    edge: Tensor
    """Which of `SEGMENTS` is closest to the centre: 0 to 2, and 3 more where the centre is inside."""
    depth: Tensor
    layers: int

    @classmethod
    def none(cls, device: torch.device, layers: int) -> "_Nearest":
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        return cls(empty, empty, empty, empty, layers)

    def layer(self) -> Tensor:
        """(k,) place of each entry within its pixel."""
        return _places(self.pixel)

    def with_more(self, more: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> "_Nearest":
        """The nearest of these and of further faces, which must come in ascending order of higher numbers."""
        columns = [
            torch.cat(parts) for parts in zip((self.pixel, self.face, self.edge, self.depth), *more, strict=True)
        ]
        key, order = torch.sort(columns[0] << 31 | columns[3], stable=True)
        order = order.index_select(0, torch.nonzero(_places(key >> 31) < self.layers)[:, 0])
        return _Nearest(*(column.index_select(0, order) for column in columns), self.layers)


def _places(ascending: Tensor) -> Tensor:
    """How many equal values stand before each value (k,) of an ascending list."""
    index = torch.arange(len(ascending), device=ascending.device)
    first = torch.ones_like(ascending, dtype=torch.bool)
    first[1:] = ascending[1:] != ascending[:-1]
    return index - torch.cummax(torch.where(first, index, 0), dim=0).values


def _candidates(
    prepared: Corners, piece: tuple[Tensor, Tensor, Tensor, Tensor], size: int, blur_radius: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Those proposals that matter: pixel, face, closest edge and bits of the depth, (k,) int64 each."""
    part, place, column, row = piece
    face = prepared.take(part)
    inside, edges = face.edges(place, column, row, size)
    # A centre outside is at least as far from the face as from the line of an edge that it lies beyond.
    reach = [sqrt(blur_radius) * torch.hypot(face.x[b] - face.x[a], face.y[b] - face.y[a]) + 1e-6 for a, b in EDGES]
    close = [edge + r.index_select(0, place) for edge, r in zip(edges, reach, strict=True)]
    some = torch.nonzero(torch.minimum(torch.minimum(close[0], close[1]), close[2]) > 0)[:, 0]
    place, column, row, inside, *edges = (t.index_select(0, some) for t in (place, column, row, inside, *edges))
    depth = face.depth(edges, place)
    distance, edge = _closest_edge(face, place, column, row, size)
    matters = ((inside > 0) | (distance < blur_radius)) & (depth >= 0)
    kept = torch.nonzero(matters)[:, 0]
    frame, number = prepared.split(part.index_select(0, place.index_select(0, kept)))
    pixel = (row * size + column).index_select(0, kept) + frame * (size * size)
    edge = (edge + 3 * (inside > 0)).index_select(0, kept)
    return pixel, number, edge, ordered_bits(depth.index_select(0, kept))


def _closest_edge(face: Corners, place: Tensor, column: Tensor, row: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Squared distance of centres to the outline (k,), and which of `SEGMENTS` is closest (k,) int64."""
    centres = pixel_centres(size, face.x)
    px, py = centres.index_select(0, column), centres.index_select(0, row)
    from_x, from_y = ([p - t.index_select(0, place) for t in corners] for p, corners in ((px, face.x), (py, face.y)))
    distances = []
    for a, b in SEGMENTS:
        dx, dy = face.x[b] - face.x[a], face.y[b] - face.y[a]
        length = (dx * dx + dy * dy).index_select(0, place)
        dx, dy = dx.index_select(0, place), dy.index_select(0, place)
        along = _along(from_x[a], from_y[a], dx, dy, length)
        distances.append((from_x[a] - along * dx).square_().add_((from_y[a] - along * dy).square_()))
    edge = (distances[1] < distances[0]).long()
    distance = torch.minimum(distances[0], distances[1])
    return torch.minimum(distance, distances[2]), torch.where(distances[2] < distance, 2, edge)


def _along(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor, length: Tensor) -> Tensor:
    """Where the closest point of a segment lies, 0 its first end and 1 its second.

    (x, y) from the first end to the point, (dx, dy) from the first end to the second, `length` squared.
    """
    return torch.where(length > SHORT, ((dx * x + dy * y) / length).clamp(0, 1), 1)


def _distance(vertices: Tensor, faces: Tensor, nearest: _Nearest, size: int) -> Tensor:
    """Signed squared distances with gradients (k,).

    The closest point may be held fixed on its edge: at the minimum, moving it along the edge changes nothing.
    """
    n, v, _ = vertices.shape
    frame = torch.div(nearest.pixel, size * size, rounding_mode="floor")
    inside = nearest.pixel - frame * (size * size)
    centres = pixel_centres(size, vertices)
    row = torch.div(inside, size, rounding_mode="floor")
    px, py = centres.index_select(0, inside - row * size), centres.index_select(0, row)
    segments = torch.tensor(SEGMENTS, device=faces.device)
    table = faces.index_select(1, segments.reshape(-1)).view(-1, 2)  # three edges of each face
    ends = table.index_select(0, nearest.face * 3 + nearest.edge % 3) + (frame * v)[:, None]
    x, y = vertices[..., :2].reshape(n * v, 2).unbind(1)
    (ax, bx), (ay, by) = ([t.index_select(0, end) for end in ends.unbind(1)] for t in (x, y))
    with torch.no_grad():
        dx, dy = bx - ax, by - ay
        along = _along(px - ax, py - ay, dx, dy, dx * dx + dy * dy)
    squared = (px - ax - along * (bx - ax)).square() + (py - ay - along * (by - ay)).square()
    return torch.where(nearest.edge >= 3, -squared, squared)
