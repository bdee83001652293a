"""A small exact rasteriser in plain torch: triangles of a few pixels each, depth test by an integer minimum.

Every triangle proposes the pixel centres of its bounding box; triangles are handled in groups of equal box size. The
nearest proposal wins; ties go to the lower triangle number, so the result does not depend on any order of execution.
"""

from functools import lru_cache

import torch
from torch import Tensor

BOXES = (1, 2, 3, 4, 6, 9, 14, 22, 40, 80, 160, 2048)
EMPTY = 2**62
CANDIDATES = 4_000_000  # pixels offered at a time: bounds the memory


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
    barycentric
    weights (k, 3).
    """
    n, v, _ = points.shape
    x, y, z = points[..., 0].reshape(-1), points[..., 1].reshape(-1), depth.reshape(-1)
    count = triangles.shape[0]
    offset = torch.arange(n, device=points.device)[:, None, None] * v
    corners = (triangles + offset).view(-1, 3)
    c0, c1, c2 = (c.contiguous() for c in corners.unbind(1))
    area = _edge(x[c0], y[c0], x[c1], y[c1], x[c2], y[c2])
    # Thin slivers cover no pixel centre that a neighbour would not cover as well.
    drawn = torch.nonzero((area > 1e-6) | ((area < -1e-6) & ~culled.repeat(n)))[:, 0]
    tri = _Triangles(x, y, z, (c0[drawn], c1[drawn], c2[drawn]), drawn, size)
    best = torch.full((n * size * size,), EMPTY, dtype=torch.int64, device=points.device)
    previous = 0
    for side in BOXES:
        chosen = torch.nonzero((tri.box > previous) & (tri.box <= side))[:, 0]
        previous = side
        for part in chosen.split(max(1, CANDIDATES // (side * side))):
            if part.numel():
                _propose(best, tri, part, side, size, count)
    pixel = torch.nonzero(best < EMPTY)[:, 0]
    frame = torch.div(pixel, size * size, rounding_mode="floor")
    corner = corners[(best[pixel] & 0xFFFFFFFF) + frame * count]
    inside = pixel - frame * (size * size)
    row = torch.div(inside, size, rounding_mode="floor")
    px, py = (inside - row * size).float() + 0.5, row.float() + 0.5
    x0, x1, x2 = (x[c] for c in corner.unbind(1))
    y0, y1, y2 = (y[c] for c in corner.unbind(1))
    w0, w1, w2 = _edge(x1, y1, x2, y2, px, py), _edge(x2, y2, x0, y0, px, py), _edge(x0, y0, x1, y1, px, py)
    total = w0 + w1 + w2
    return pixel, corner, torch.stack((w0 / total, w1 / total, w2 / total), dim=-1)


class _Triangles:
    """Triangles ready for the depth test: pixel boxes, and barycentric weights as linear functions inside them."""

    def __init__(self, x: Tensor, y: Tensor, z: Tensor, corners: tuple, number: Tensor, size: int) -> None:
        (x0, x1, x2), (y0, y1, y2) = ([t[c] for c in corners] for t in (x, y))
        self.number = number
        self.left = torch.ceil(torch.minimum(torch.minimum(x0, x1), x2) - 0.5).clamp(min=0)
        self.top = torch.ceil(torch.minimum(torch.minimum(y0, y1), y2) - 0.5).clamp(min=0)
        right = torch.floor(torch.maximum(torch.maximum(x0, x1), x2) - 0.5).clamp(max=size - 1)
        bottom = torch.floor(torch.maximum(torch.maximum(y0, y1), y2) - 0.5).clamp(max=size - 1)
        wide, high = right - self.left + 1, bottom - self.top + 1
        self.box = torch.where((wide > 0) & (high > 0), torch.maximum(wide, high), 0)
        area = _edge(x0, y0, x1, y1, x2, y2)
        px, py = self.left + 0.5, self.top + 0.5
        self.first = (_edge(x1, y1, x2, y2, px, py) / area, (y1 - y2) / area, (x2 - x1) / area)
        self.second = (_edge(x2, y2, x0, y0, px, py) / area, (y2 - y0) / area, (x0 - x2) / area)
        self.depth = [z[c] for c in corners]


def _propose(best: Tensor, tri: _Triangles, part: Tensor, side: int, size: int, count: int) -> None:
    """Offer the pixels of the boxes (at most side x side) of the triangles `part` to the depth test."""
    steps = torch.arange(side * side, device=best.device)
    down = torch.div(steps, side, rounding_mode="floor")
    sx, sy = (steps - down * side).float(), down.float()
    w0, w1 = (
        base[part, None] + (dx[part, None] * sx + dy[part, None] * sy) for base, dx, dy in (tri.first, tri.second)
    )
    w2 = 1 - w0 - w1
    row, step = torch.nonzero(torch.minimum(torch.minimum(w0, w1), w2) >= -1e-5, as_tuple=True)
    owner = part[row]
    px, py = tri.left[owner] + sx[step], tri.top[owner] + sy[step]
    flat = row * (side * side) + step
    w0, w1 = w0.view(-1)[flat], w1.view(-1)[flat]
    z0, z1, z2 = (z[owner] for z in tri.depth)
    near = z2 + w0 * (z0 - z2) + w1 * (z1 - z2)
    frame = torch.div(tri.number[owner], count, rounding_mode="floor")
    key = ((64 - near.clamp(-60, 60)) * 65536).to(torch.int64) << 32 | (tri.number[owner] - frame * count)
    key = torch.where((px < size) & (py < size), key, EMPTY)  # boxes are cut at the picture's edge
    where = frame * (size * size) + (py.clamp(max=size - 1) * size + px.clamp(max=size - 1)).to(torch.int64)
    best.scatter_reduce_(0, where, key, "amin")
