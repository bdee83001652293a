"""The neutral template head: a star-shaped surface over a chart of directions, and where the features lie in the chart.

Head space: x to the right of the picture, y down, z towards the viewer; the unit is half the distance between the
outer eye corners, the origin lies between the eyes. The chart of a point is (a, b) of its direction from `CENTRE`: a
is the azimuth (0 = forward, positive = right), b the elevation (positive = down). All features are placed and painted
in the chart, so a keypoint is simply the surface at its chart position, whatever the shape, expression or pose.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import pi

import torch
from torch import Tensor

CENTRE = (0.0, 0.25, -1.2)
COLUMNS, ROWS = 145, 113
# The jaw keypoints lie a little above the jaw's outline, as the landmark model reports them (fitted on renderings).
JAW_LIFT = 0.055

# Hand-placed points of the right half (x >= 0) of an average head with slightly parted lips; proportions follow what
# the MediaPipe landmark model reports on a public-domain portrait.
MIDLINE = (
    *((-1.02, 0.30), (-0.74, 0.40), (-0.46, 0.46), (-0.29, 0.455), (-0.136, 0.47), (0.011, 0.585), (0.146, 0.71)),
    *((0.27, 0.85), (0.40, 0.985), (0.579, 1.06), (0.72, 1.03), (0.80, 0.90), (0.86, 0.72), (0.97, 0.66)),
    *((1.09, 0.665), (1.195, 0.57), (1.41, 0.54), (1.58, 0.585), (1.71, 0.48), (1.84, 0.48), (2.0, 0.48), (2.13, 0.42)),
    *((2.24, 0.28), (2.25, -0.1), (2.1, -0.6)),
    *((-1.6, -0.1), (-1.95, -0.7), (-2.1, -1.3), (-1.9, -2.2), (-1.2, -2.9), (-0.3, -3.15), (0.6, -2.9), (1.3, -2.4)),
)
JAW = (
    *((1.46, -0.035, -0.836), (1.465, 0.57, -1.1), (1.45, 0.85, -1.09), (1.29, 1.42, -0.875), (1.13, 1.64, -0.64)),
    *((0.98, 1.80, -0.4), (0.64, 2.05, -0.04), (0.29, 2.2, 0.22)),
)
BROW = ((1.31, -0.36, -0.29), (1.11, -0.45, 0.12), (0.915, -0.5, 0.26), (0.645, -0.51, 0.385), (0.33, -0.48, 0.45))
NOSTRILS = ((0.32, 0.778, 0.61), (0.187, 0.862, 0.655))
EYE = (
    *((1.0, 0.0, 0.0), (0.865, -0.117, 0.13), (0.625, -0.134, 0.165)),
    *((0.385, 0.028, 0.12), (0.57, 0.045, 0.165), (0.8, 0.05, 0.13)),
)
LIPS = (
    *((0.17, 1.07, 0.645), (0.34, 1.10, 0.56), (0.58, 1.21, 0.30), (0.33, 1.49, 0.47), (0.18, 1.555, 0.56)),
    *((0.14, 1.19, 0.55), (0.51, 1.215, 0.33), (0.14, 1.40, 0.52)),
)
OTHER = (
    *((0.72, -0.03, 0.215), (0.72, 0.25, 0.17), (0.72, -0.26, 0.20), (0.2, 0.0, 0.42), (0.22, 0.25, 0.60)),
    *((0.2, 0.62, 0.95), (0.30, 0.45, 0.62), (0.44, 0.66, 0.62), (0.41, 0.80, 0.50)),
    *((1.09, 0.585, 0.12), (0.9, 0.75, 0.24), (0.69, 0.6, 0.36), (0.77, 0.44, 0.28), (0.97, 0.34, 0.13)),
    *((1.32, 0.4, -0.35), (1.27, 0.95, -0.4), (1.0, 1.2, 0.02), (0.75, 1.0, 0.29), (0.75, 1.6, 0.15), (0.4, 1.9, 0.35)),
    *((0.47, -1.0, 0.265), (0.81, -0.93, 0.13), (1.125, -0.78, -0.09), (1.31, -0.565, -0.34), (1.42, -0.31, -0.58)),
    *((0.4, -0.74, 0.37), (0.8, -0.7, 0.24), (1.5, 0.28, -1.03), (1.6, -0.4, -1.7), (1.45, -1.1, -1.4)),
    *((1.0, -1.65, -1.3), (0.9, -1.5, -0.4), (1.2, -0.3, -2.55), (1.1, 0.6, -2.4), (0.9, 1.3, -1.9)),
    *((1.1, 1.5, -1.3), (0.7, 2.0, -0.7)),
)


def chart_of(points: Tensor) -> Tensor:
    """(..., 3) points in head space -> (..., 2) chart coordinates (a, b) in radians."""
    d = points - points.new_tensor(CENTRE)
    return torch.stack((torch.atan2(d[..., 0], d[..., 2]), torch.atan2(d[..., 1], d[..., :3:2].norm(dim=-1))), dim=-1)


def directions(a: Tensor, b: Tensor) -> Tensor:
    """Unit vectors (..., 3) of the chart positions a, b (...)."""
    return torch.stack((torch.sin(a) * torch.cos(b), torch.sin(b), torch.cos(a) * torch.cos(b)), dim=-1)


def _axes() -> tuple[Tensor, Tensor]:
    """Chart positions of the grid's columns and rows, denser where the face is (float64)."""
    u = torch.linspace(-1, 1, COLUMNS, dtype=torch.float64)
    v = torch.linspace(-1, 1, ROWS, dtype=torch.float64)
    middle = 0.2
    f = 0.45 * v + 0.55 * v**3
    return pi * (0.38 * u + 0.62 * u**3), middle + torch.where(v < 0, pi / 2 + middle, pi / 2 - middle) * f


@dataclass(frozen=True)
class Template:
    """Constants of the head model.

    a_axis, b_axis: (COLUMNS,), (ROWS,) chart positions of the grid
    surface: (ROWS, COLUMNS, 3) the head with slightly parted lips
    occlusion: (ROWS, COLUMNS) darkening of hollows, about 0.6..1.05
    keypoints: (68, 2) chart positions (a, b) of the keypoints
    """

    a_axis: Tensor
    b_axis: Tensor
    surface: Tensor
    occlusion: Tensor
    keypoints: Tensor

    def grid_position(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Chart positions (...) -> fractional (column, row) of the grid (...)."""
        return _fraction(self.a_axis, a), _fraction(self.b_axis, b)


def _fraction(axis: Tensor, value: Tensor) -> Tensor:
    value = value.clamp(float(axis[0]), float(axis[-1])).contiguous()
    left = (torch.searchsorted(axis, value, right=True) - 1).clamp(0, axis.numel() - 2)
    return left + (value - axis[left]) / (axis[left + 1] - axis[left])


def _mirror(points: list[tuple[float, float, float]]) -> Tensor:
    right = torch.tensor(points, dtype=torch.float64)
    return torch.cat((right, right * right.new_tensor([-1, 1, 1])))


def _radius(points: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Distance of the surface from the centre at chart positions: a relaxed multiquadric through the points."""
    centred = points - points.new_tensor(CENTRE)
    distance = centred.norm(dim=-1)
    d = centred / distance[:, None]
    n = len(points)

    def kernel(x: Tensor) -> Tensor:
        return torch.sqrt(torch.cdist(x, d) ** 2 + 0.09**2)

    system = torch.zeros(n + 1, n + 1, dtype=torch.float64)
    system[:n, :n] = kernel(d) - 2e-3 * torch.eye(n, dtype=torch.float64)
    system[:n, n] = system[n, :n] = 1
    weights = torch.linalg.solve(system, torch.cat((distance, distance.new_zeros(1))))
    where = directions(a, b).reshape(-1, 3)
    return (kernel(where) @ weights[:n] + weights[n]).reshape(a.shape)


def _keypoints() -> Tensor:
    """The 68 template points in iBUG order; the subject's right side is the left of the picture (x < 0)."""

    def left(points):
        return [(-x, y, z) for x, y, z in points]

    mid = {y: (0.0, y, z) for y, z in MIDLINE}
    o1, o2, corner, o3, o4, i1, inner, i2 = LIPS
    upper, lower = (o2, o1), (o3, o4)
    points = [*left(JAW), mid[2.24], *reversed(JAW), *left(BROW), *reversed(BROW)]
    points += [mid[-0.136], mid[0.146], mid[0.40], mid[0.579]]
    points += [*left(NOSTRILS), mid[0.86], *reversed(NOSTRILS)]
    e = EYE
    points += [*left(e), e[3], e[2], e[1], e[0], e[5], e[4]]
    points += [*left([corner, *upper]), mid[1.09], *reversed(upper), corner, *lower, mid[1.58], *left(reversed(lower))]
    points += [*left([inner, i1]), mid[1.195], i1, inner, i2, mid[1.41], *left([i2])]
    return torch.tensor(points, dtype=torch.float64)


def _blur(x: Tensor, times: int) -> Tensor:
    kernel = x.new_tensor([0.25, 0.5, 0.25])
    for _ in range(times):
        x = torch.cat((x[:1], x, x[-1:]))
        x = kernel[0] * x[:-2] + kernel[1] * x[1:-1] + kernel[2] * x[2:]
        x = torch.cat((x[:, :1], x, x[:, -1:]), dim=1)
        x = kernel[0] * x[:, :-2] + kernel[1] * x[:, 1:-1] + kernel[2] * x[:, 2:]
    return x


@lru_cache(maxsize=8)
def template(device: str = "cpu") -> Template:
    """The template head on a device (computed once, in float64 on the CPU, then float32)."""
    with torch.no_grad():
        points = _mirror([*((0.0, y, z) for y, z in MIDLINE), *JAW, *BROW, *NOSTRILS, *EYE, *LIPS, *OTHER])
        points = points[(points[:, 0] != 0) | (torch.arange(len(points)) < len(points) // 2)]  # the midline once
        a_axis, b_axis = _axes()
        b, a = torch.meshgrid(b_axis, a_axis, indexing="ij")
        radius = _radius(points, a, b)
        surface = directions(a, b) * radius[..., None] + torch.tensor(CENTRE, dtype=torch.float64)
        hollow = _blur(radius, 14) - radius
        occlusion = (1 - 3.0 * hollow).clamp(0.6, 1.05)
        key = chart_of(_keypoints())
        key[:17, 1] -= JAW_LIFT * (1 + 0.5 * (key[:17, 0] / key[16, 0]) ** 2)
        cast = {"a_axis": a_axis, "b_axis": b_axis, "surface": surface, "occlusion": occlusion}
        cast["keypoints"] = key
        return Template(**{k: v.float().contiguous().to(device) for k, v in cast.items()})
