"""How the synthetic heads become one mesh of FLAME's size: head, neck and shoulders in one sheet, and two ears.

The sheet is a grid: columns are azimuths around the head, rows run from the crown over the face to the neck, where the
head's surface meets the bust's, and on to the shoulders. Rows bend along the inner edges of the lips, so that the mouth
opens between two of them; the cells in between are the inside of the mouth and keep it closed.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import pi

import torch
from torch import Tensor

from mobile_avatar.data.synthetic.features import INNER, layout, lip_curves
from mobile_avatar.data.synthetic.geometry import EAR_SHAPE, HAIRLINE, sample_surface
from mobile_avatar.data.synthetic.raster import grid_triangles
from mobile_avatar.data.synthetic.template import template

STEP = 2  # of the synthetic heads' own grid, which has more vertices than a phone wants
JOIN = 104  # row of that grid that becomes the join of head and neck
KEPT = 0.75  # elevations up to here stay; below them rows are bent to end at the join
UPPER_LIP, LOWER_LIP = 78, 84  # rows that become the edges of the lips
LIP_REACH = (0.30, 0.80)  # elevations between which rows are bent for the mouth
SMALLEST_GAP = 0.045  # of the bent rows, where the lips meet
BUST_ROWS, LOWEST = 12, 4.6  # of the neck and shoulders; y of their end
NECK = (1.0, 0.95, -1.3)  # half axes of the neck's ellipse and its z
FROZEN_ROWS, FROZEN_AZIMUTH = 2, 1.6  # of the neck, under the chin: offsets there would tear the jaw line
HAIR_MARGIN = 0.03  # elevation below the short hairline that hair may still cover
EDGE, SHEET_END, EAR_TOP, EAR_SIDE = 0.985, 0.70, 0.745, 0.30  # of the texture


@dataclass(frozen=True)
class RigLayout:
    """Constants of the mesh: h head vertices, then b of the bust, then the ears, one after the other.

    head_chart (h, 2): azimuth and elevation; fading (h,): 1, going to 0 towards the join
    bust_chart (b, 2): angle around the neck and height at rest
    ear_rows: rows of the ears' own grid that are kept
    faces, uv_faces (t, 3); uv (w, 2) in sampling coordinates
    hair, neck, frozen: vertex numbers
    """

    head_chart: Tensor
    fading: Tensor
    bust_chart: Tensor
    ear_rows: Tensor
    faces: Tensor
    uv_faces: Tensor
    uv: Tensor
    hair: Tensor
    neck: Tensor
    frozen: Tensor


@lru_cache(maxsize=1)
def rig_layout() -> RigLayout:
    """The layout for the neutral synthetic head."""
    page = template()
    a = page.a_axis[:-1:STEP]  # the last column is the first one again
    base = page.b_axis[STEP : JOIN + 1 : STEP]
    join, angle, height = _join(page.surface, a)
    depth = ((base - KEPT) / (base[-1] - KEPT)).clamp(min=0)[:, None]
    b = torch.where(depth > 0, KEPT + depth * (join - KEPT), base[:, None])
    b = b + _lip_bend(a, b, page)
    grid = torch.stack((a.expand_as(b), b), dim=-1).reshape(-1, 2)
    head_chart = torch.cat((grid.new_tensor([[0.0, -pi / 2]]), grid))
    t = torch.arange(1, BUST_ROWS + 1)[:, None] / BUST_ROWS
    bust_y = height + (LOWEST - height) * (0.7 * t + 0.3 * t * t)
    bust_chart = torch.stack((angle.expand_as(bust_y), bust_y), dim=-1).reshape(-1, 2)
    ear_rows = torch.arange(0, EAR_SHAPE[0], STEP)

    columns, rows = len(a), len(base) + BUST_ROWS
    parts = [_sheet(rows, columns)] + [_ear(len(ear_rows), side) for side in (-1, 1)]
    faces, uv_faces, uv = [], [], []
    vertices = places = 0
    for part_faces, part_uv_faces, part_uv in parts:
        faces.append(part_faces + vertices)
        uv_faces.append(part_uv_faces + places)
        uv.append(part_uv)
        vertices, places = vertices + int(part_faces.max()) + 1, places + len(part_uv)

    hair = (head_chart[:, 1] < _hairline(head_chart[:, 0]) + HAIR_MARGIN).nonzero()[:, 0]
    neck = torch.arange(len(head_chart), len(head_chart) + len(bust_chart))
    front = bust_chart[:, 0].abs() < FROZEN_AZIMUTH
    front[FROZEN_ROWS * columns :] = False
    fading = 1 - _smooth(0.98, float(base[-1]), base)[:, None].expand_as(b)
    return RigLayout(
        head_chart=head_chart,
        fading=torch.cat((torch.ones(1), fading.reshape(-1))),
        bust_chart=bust_chart,
        ear_rows=ear_rows,
        faces=torch.cat(faces),
        uv_faces=torch.cat(uv_faces),
        uv=torch.cat(uv),
        hair=hair,
        neck=neck,
        frozen=neck[front],
    )


def _smooth(low: float, high: float, x: Tensor) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _join(surface: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the neutral head enters the neck in each column: elevation, angle around the neck, y; (columns,) each."""
    b = torch.linspace(KEPT, 1.3, 400)
    where = torch.stack(torch.broadcast_tensors(a[:, None], b[None]), dim=-1)
    x, y, z = sample_surface(surface[None], where.reshape(1, -1, 2))[0].view(len(a), len(b), 3).unbind(-1)
    half_x, half_z, middle = NECK
    outside = (x / half_x) ** 2 + ((z - middle) / half_z) ** 2 > 1
    last = outside.to(torch.int64).cumprod(1).sum(1, keepdim=True) - 1
    x, y, z = (v.gather(1, last)[:, 0] for v in (x, y, z))
    return b[last[:, 0]], torch.atan2(x / half_x, (z - middle) / half_z), y


def _lip_bend(a: Tensor, b: Tensor, page) -> Tensor:
    """What to add to the elevations b (rows, columns) so that two rows follow the inner edges of the lips."""
    edge = a.abs().clamp(max=layout()["mouth"] * INNER)
    _, up, low, _ = lip_curves(edge, torch.ones(2))
    middle, half = (up + low) / 2, (low - up).clamp(min=SMALLEST_GAP) / 2
    upper, lower = page.b_axis[UPPER_LIP], page.b_axis[LOWER_LIP]
    bend_up, bend_low = middle - half - upper, middle + half - lower
    first, last = LIP_REACH
    above = bend_up * ((b - first) / (upper - first)).clamp(0, 1)
    below = bend_low * ((last - b) / (last - lower)).clamp(0, 1)
    share = ((b - upper) / (lower - upper)).clamp(0, 1)
    bend = torch.where(b < upper, above, torch.where(b > lower, below, bend_up + (bend_low - bend_up) * share))
    return bend * (1 - _smooth(layout()["mouth"], 2.2 * layout()["mouth"], a.abs()))


def _hairline(a: Tensor) -> Tensor:
    """Elevation at which short hair ends, by azimuth."""
    knots = torch.tensor(HAIRLINE)
    x = a.abs().clamp(max=float(knots[-1, 0]))
    i = (torch.searchsorted(knots[:, 0].contiguous(), x, right=True) - 1).clamp(0, len(knots) - 2)
    share = (x - knots[i, 0]) / (knots[i + 1, 0] - knots[i, 0])
    return knots[i, 1] + (knots[i + 1, 1] - knots[i, 1]) * share


def _outward(triangles: Tensor) -> Tensor:
    """The synthetic grids' triangles turned to be counter-clockwise from outside with y up."""
    return triangles.flip(1)


def _sheet(rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Crown, then rows x columns closed around: faces, uv faces (cut open at the back) and uv, numbered from 0."""
    cut = _outward(grid_triangles(rows, columns + 1, "cpu"))
    row, column = cut // (columns + 1), cut % (columns + 1)
    around = 1 + row * columns + column % columns
    j = torch.arange(columns)
    crown = torch.stack((torch.zeros_like(j), 1 + j, 1 + (j + 1) % columns), dim=1)
    crown_uv = torch.stack((j, columns + j, columns + j + 1), dim=1)
    u, v = torch.linspace(-EDGE, EDGE, columns + 1), torch.linspace(-EDGE, SHEET_END, rows + 1)
    grid = torch.stack(torch.broadcast_tensors(u[None], v[1:, None]), dim=-1).reshape(-1, 2)
    tops = torch.stack(((u[:-1] + u[1:]) / 2, v[:1].expand(columns)), dim=1)
    return torch.cat((crown, around)), torch.cat((crown_uv, cut + columns)), torch.cat((tops, grid))


def _ear(rows: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """One ear, as `_sheet`: rows of circles from its middle outwards; a tiny fan, a line in the texture, closes the
    first."""
    columns = EAR_SHAPE[1] - 1
    cut = _outward(grid_triangles(rows, columns + 1, "cpu"))
    row, column = cut // (columns + 1), cut % (columns + 1)
    around = row * columns + column % columns
    j = torch.arange(1, columns - 1)
    fan = torch.stack((torch.zeros_like(j), j, j + 1), dim=1)
    u = torch.linspace(*sorted((EAR_SIDE * side, EDGE * side)), columns + 1)
    v = torch.linspace(EAR_TOP, EDGE, rows)
    uv = torch.stack(torch.broadcast_tensors(u[None], v[:, None]), dim=-1).reshape(-1, 2)
    return torch.cat((fan, around)), torch.cat((fan, cut)), uv
