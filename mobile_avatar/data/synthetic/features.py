"""Where the features lie in the chart: lip contours, lids, brows; and the 68 keypoints, points of these same curves."""

from functools import lru_cache

import torch
from torch import Tensor

from .template import template

# |m| (distance from the middle / half width of the mouth) of the lip keypoints; the inner contour is narrower by INNER.
LIP_KNOTS = (0.0, 0.25, 0.52, 1.0)
INNER = 0.88
UPPER_LID, LOWER_LID = (
    (-0.3, 0.42),
    (-0.35, 0.4),
)  # positions of the lid keypoints between the corners (-1 inner, 1 outer)


def _polynomial(knots: tuple[float, ...], values: list[float]) -> list[float]:
    """Coefficients, lowest first, of the polynomial through the values at the knots."""
    x = torch.tensor(knots, dtype=torch.float64)
    system = torch.stack([x**k for k in range(len(knots))], dim=1)
    return torch.linalg.solve(system, torch.tensor(values, dtype=torch.float64)).tolist()


def horner(coefficients: list[float], x: Tensor) -> Tensor:
    """The polynomial's value at x (any shape)."""
    result = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = result * x + c
    return result


@lru_cache(maxsize=1)
def layout() -> dict:
    """Constants of the curves.

    mouth: half width in a; lips: cubics in |m| of b, outer upper, inner upper, inner lower, outer lower
    eye: (a, b) of the centre, half width, slope; brow: a of the inner and the outer end
    brow_positions: of the keypoints along the brow, 0 inner .. 1 outer; arch: quartic of b in that position
    """
    key = template().keypoints.double()
    b = key[:, 1].tolist()
    lips = [
        [b[51], b[52], b[53], b[54]],
        [b[62], b[63], 0, b[64]],
        [b[66], b[65], 0, b[64]],
        [b[57], b[56], b[55], b[54]],
    ]
    for row in (lips[1], lips[2]):  # the inner contour has no keypoint there: bend it smoothly to the corner
        row[2] = row[1] + (row[3] - row[1]) * 0.35
    outer, inner = key[45], key[42]
    a0, b0 = ((outer + inner) / 2).tolist()
    half = float(outer[0] - inner[0]) / 2
    ends = float(key[22, 0]), float(key[26, 0])
    positions = ((key[22:27, 0] - ends[0]) / (ends[1] - ends[0])).tolist()
    return {
        "mouth": float(key[54, 0]),
        "lips": [_polynomial(LIP_KNOTS, row) for row in lips],
        "eye": (a0, b0, half, float(outer[1] - inner[1]) / (2 * half)),
        "brow": ends,
        "brow_positions": positions,
        "arch": _polynomial(tuple(positions), b[22:27]),
    }


def lip_curves(a: Tensor, thickness: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """b of outer upper, inner upper, inner lower, outer lower contour at azimuth a (...).

    thickness (..., 2) broadcastable: factors of the upper and the lower lip's height; 1 is average.
    """
    page = layout()
    m = (a.abs() / page["mouth"]).clamp(max=1.0)
    inner_m = (m / INNER).clamp(max=1.0)
    outer_upper, inner_upper, inner_lower, outer_lower = (
        horner(c, x) for c, x in zip(page["lips"], (m, inner_m, inner_m, m), strict=True)
    )
    inner_lower = torch.maximum(inner_lower, inner_upper)
    upper = inner_upper + (outer_upper - inner_upper) * _taper(thickness[..., 0], m)
    lower = inner_lower + (outer_lower - inner_lower) * _taper(thickness[..., 1], m)
    return upper, inner_upper, inner_lower, lower


def _taper(factor: Tensor, m: Tensor) -> Tensor:
    return 1 + (factor - 1) * (1 - m * m)  # the corners stay where they are


def eye_frame(a: Tensor, b: Tensor, tilt: Tensor) -> tuple[Tensor, Tensor]:
    """Chart -> coordinates of the nearer eye: x from -1 (inner corner) to 1 (outer), y down in the same unit."""
    a0, b0, half, slope = layout()["eye"]
    x = (a.abs() - a0) / half
    return x, (b - b0) / half - (slope + tilt) * x


def lids(x: Tensor, upper: Tensor, lower: Tensor, blink: Tensor) -> tuple[Tensor, Tensor]:
    """y of the upper and lower lid's edge at x; blink 0 open .. 1 closed (negative: wide open)."""
    arc = (1 - x * x).clamp(min=0.0)
    low = lower * arc * (1 - 0.25 * blink.clamp(min=0))
    high = -upper * arc * (1 - 0.12 * x)
    return high + (low - high) * blink, low


def brow_curve(a: Tensor, arch: Tensor, lift: Tensor) -> tuple[Tensor, Tensor]:
    """Position along the brow (0 inner end .. 1 outer end) and b of the brow's line at azimuth a."""
    page = layout()
    start, end = page["brow"]
    t = (a.abs() - start) / (end - start)
    inside = t.clamp(0, 1)
    return t, horner(page["arch"], inside) - arch * 4 * inside * (1 - inside) - lift


def keypoint_charts(lips: Tensor, eyes: Tensor, brows: Tensor, blink: Tensor) -> Tensor:
    """(n, 68, 2) chart positions of the keypoints.

    lips (n, 2) thickness factors; eyes (n, 3) upper, lower opening and tilt; brows (n, 3) thickness, arch, lift;
    blink (n, 2): the eye at the left of the picture (the subject's right), then the other.
    """
    n, device = lips.shape[0], lips.device
    page = layout()
    chart = template(str(device)).keypoints.expand(n, 68, 2).clone()
    mouth = page["mouth"]
    ring = [-1.0, -LIP_KNOTS[2], -LIP_KNOTS[1], 0.0, LIP_KNOTS[1], LIP_KNOTS[2], 1.0]
    a = torch.tensor([m * mouth for m in ring], device=device).expand(n, 7)
    ai = torch.tensor([m * mouth * INNER for m in (-1.0, -LIP_KNOTS[1], 0.0, LIP_KNOTS[1], 1.0)], device=device).expand(
        n, 5
    )
    outer_upper, _, _, outer_lower = lip_curves(a, lips[:, None])
    _, inner_upper, inner_lower, _ = lip_curves(ai, lips[:, None])
    chart[:, 48:55] = torch.stack((a, outer_upper), dim=-1)
    chart[:, 55:60] = torch.stack((a, outer_lower), dim=-1)[:, 1:6].flip(1)
    chart[:, 60:65] = torch.stack((ai, inner_upper), dim=-1)
    chart[:, 65:68] = torch.stack((ai, inner_lower), dim=-1)[:, 1:4].flip(1)

    a0, b0, half, slope = page["eye"]
    x = torch.tensor([1.0, UPPER_LID[1], UPPER_LID[0], -1.0, LOWER_LID[0], LOWER_LID[1]], device=device).expand(n, 6)
    for side, order, first in ((-1.0, [0, 1, 2, 3, 4, 5], 36), (1.0, [3, 2, 1, 0, 5, 4], 42)):
        opening = blink[:, 0 if side < 0 else 1, None]
        high, low = lids(x, eyes[:, 0, None], eyes[:, 1, None], opening)
        y = torch.where(torch.arange(6, device=device) < 3, high, low)
        points = torch.stack((side * (a0 + half * x), b0 + half * (y + (slope + eyes[:, 2, None]) * x)), dim=-1)
        chart[:, first : first + 6] = points[:, order]

    start, end = page["brow"]
    along = torch.tensor([start + t * (end - start) for t in page["brow_positions"]], device=device).expand(n, 5)
    _, b = brow_curve(along, brows[:, 1, None], brows[:, 2, None])
    chart[:, 22:27] = torch.stack((along, b), dim=-1)
    chart[:, 17:22] = torch.stack((-along, b), dim=-1).flip(1)
    return chart
