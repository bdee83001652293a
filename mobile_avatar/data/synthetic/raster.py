"""The rasteriser of the synthetic heads: tolerant at the edges of triangles, so that sheets are tight.

The nearest proposal wins; ties go to the lower triangle number, so the result does not depend on any order of
execution. Boxes and depth test are those of `mobile_avatar.rendering.rasterize`; the rules are others: there a pixel
centre on an edge belongs to nobody, both sides of a face are drawn, and depth is compared to its last bit.
"""

from functools import lru_cache

import torch
from torch import Tensor

from mobile_avatar.rendering.pixel_boxes import EMPTY, keep_nearest, pixel_boxes, proposals, winners

TOLERANCE = 1e-5
"""Barycentric weights may be so much below zero: rounding leaves no gap between neighbours."""
FARTHEST, STEPS = 64, 65536
"""Depths are compared in whole steps, so many to a unit, counted from here towards the viewer."""


@lru_cache(maxsize=32)
def grid_triangles(rows: int, columns: int, device: str) -> Tensor:
    """(t, 3) vertex numbers of the two triangles of every cell of a rows x columns grid."""
    index = torch.arange(rows * columns).view(rows, columns)
    p, q, r, s = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return torch.stack((torch.stack((p, q, r), -1), torch.stack((q, s, r), -1)), dim=2).reshape(-1, 3).to(device)


def _edge(ax: Tensor, ay: Tensor, bx: Tensor, by: Tensor, px: Tensor, py: Tensor) -> Tensor:
    return (bx - ax) * (py - ay) - (by - ay) * (px - ax)


def rasterize(
    points: Tensor, depth: Tensor, triangles: Tensor, culled: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Visible surface points.

    points: (n, v, 2) in pixels (pixel centres at +0.5); depth: (n, v), larger is nearer; triangles: (t, 3);
    culled: (t,) bool, triangles that are drawn only when their corners run clockwise on the screen (y down).
    Returns pixel (k,) flat indices into n * size * size, ascending; triangle corner numbers (k, 3) into n * v;
    barycentric weights (k, 3).
    """
    n, v, _ = points.shape
    x, y, z = points[..., 0].reshape(-1), points[..., 1].reshape(-1), depth.reshape(-1)
    count = triangles.shape[0]
    offset = torch.arange(n, device=points.device)[:, None, None] * v
    corners = (triangles + offset).view(-1, 3)
    tri = _Triangles(x, y, z, corners, culled.repeat(n), size)
    best = torch.full((n * size * size,), EMPTY, device=points.device)
    for part, place, column, row in proposals(tri.boxes):
        hit, near = tri.cover(part, place, column, row)
        number = part.index_select(0, place.index_select(0, hit))
        frame = torch.div(number, count, rounding_mode="floor")
        pixel = (row * size + column).index_select(0, hit) + frame * (size * size)
        keep_nearest(best, pixel, ((FARTHEST - near.clamp(-60, 60)) * STEPS).floor_(), number - frame * count)
    pixel, number = winners(best)
    frame = torch.div(pixel, size * size, rounding_mode="floor")
    corner = corners.index_select(0, number + frame * count)
    inside = pixel - frame * (size * size)
    row = torch.div(inside, size, rounding_mode="floor")
    px, py = (inside - row * size).float() + 0.5, row.float() + 0.5
    (x0, x1, x2), (y0, y1, y2) = ([t.index_select(0, c) for c in corner.unbind(1)] for t in (x, y))
    w0, w1, w2 = _edge(x1, y1, x2, y2, px, py), _edge(x2, y2, x0, y0, px, py), _edge(x0, y0, x1, y1, px, py)
    total = w0 + w1 + w2
    return pixel, corner, torch.stack((w0 / total, w1 / total, w2 / total), dim=-1)


class _Triangles:
    """Triangles ready for the depth test: pixel boxes, and barycentric weights as linear functions inside them."""

    def __init__(self, x: Tensor, y: Tensor, z: Tensor, corners: Tensor, culled: Tensor, size: int) -> None:
        c = corners.t().reshape(-1)
        xs, ys, self.depth = (t.index_select(0, c).view(3, -1) for t in (x, y, z))
        (x0, x1, x2), (y0, y1, y2) = xs, ys
        area = _edge(x0, y0, x1, y1, x2, y2)
        left, top, wide, high = pixel_boxes(xs, ys, size)
        # Thin slivers cover no pixel centre that a neighbour would not cover as well.
        drawn = (area > 1e-6) | ((area < -1e-6) & ~culled)
        self.boxes = left, top, torch.where(drawn, wide, 0), torch.where(drawn, high, 0)
        px, py = left + 0.5, top + 0.5
        self.first = (_edge(x1, y1, x2, y2, px, py) / area, (y1 - y2) / area, (x2 - x1) / area)
        self.second = (_edge(x2, y2, x0, y0, px, py) / area, (y2 - y0) / area, (x0 - x2) / area)

    def cover(self, part: Tensor, place: Tensor, column: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the proposed pixels are covered, (k,) numbers into them, and the depth there (k,)."""

        def at(values: Tensor) -> Tensor:
            return values.index_select(0, part).index_select(0, place)

        sx, sy = (column - at(self.boxes[0])).float(), (row - at(self.boxes[1])).float()
        w0, w1 = (at(base) + (at(dx) * sx + at(dy) * sy) for base, dx, dy in (self.first, self.second))
        w2 = 1 - w0 - w1
        hit = torch.nonzero(torch.minimum(torch.minimum(w0, w1), w2) >= -TOLERANCE)[:, 0]
        z0, z1, z2 = self.depth.index_select(1, part.index_select(0, place.index_select(0, hit)))
        return hit, z2 + w0.index_select(0, hit) * (z0 - z2) + w1.index_select(0, hit) * (z1 - z2)
