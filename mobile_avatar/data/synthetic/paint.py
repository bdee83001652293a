"""Albedo and gloss of the layers, painted in their charts. All functions work on lists of k visible points.

`who` arguments carry one row per point (already gathered), colours are linear-light RGB (k, 3). A painter returns
albedo (k, 3), gloss (k,), self-shading (k,) and the number of the part (k,) int64, an index into PARTS.
"""

from functools import lru_cache
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from .features import INNER, brow_curve, eye_frame, layout, lids, lip_curves

PARTS = (
    *("background", "skin", "nose", "brows", "eyes", "lips", "mouth", "ears", "hair", "beard", "neck", "clothes"),
    "glasses",
)
PART = {name: number for number, name in enumerate(PARTS)}
TILE = 128
IRIS_RADIUS = 0.40
UPPER_TEETH, LOWER_TEETH = 0.15, 0.07


@lru_cache(maxsize=8)
def _tile(device: str) -> Tensor:
    """(1, 3, TILE + 1, TILE + 1) wrapping noise: white, smoothed, smoother; each of unit variance."""
    white = torch.randn(1, 1, TILE, TILE, generator=torch.Generator().manual_seed(7))
    levels = [white]
    for radius in (2, 5):
        x = F.avg_pool2d(F.pad(levels[-1], (radius,) * 4, mode="circular"), 2 * radius + 1, stride=1)
        levels.append(x / x.std())
    return F.pad(torch.cat(levels, dim=1), (0, 1, 0, 1), mode="circular").contiguous().to(device)


def noise(x: Tensor, y: Tensor) -> Tensor:
    """(3, k) noise at positions in tiles (period 1)."""
    grid = torch.stack((torch.remainder(x, 1.0), torch.remainder(y, 1.0)), dim=-1) * 2 - 1
    return F.grid_sample(_tile(str(x.device)), grid[None, None], align_corners=True)[0, :, 0]


def linear(colour: Tensor) -> Tensor:
    """Display colour -> linear light."""
    return colour.clamp(0, 1) ** 2.2


def soft(x: Tensor, width: float) -> Tensor:
    """0 below zero, 1 above, a ramp of the given width between."""
    return (x / width + 0.5).clamp(0, 1)


def bump(x: Tensor, y: Tensor, radius: float) -> Tensor:
    """A Gaussian hill."""
    return torch.exp(-(x * x + y * y) / (2 * radius * radius))


def mix(base: Tensor, top: Tensor, amount: Tensor) -> Tensor:
    """base (k, 3) covered by top (k, 3) where amount (k,) is 1."""
    return base + (top - base) * amount[:, None]


def skin(who: SimpleNamespace, x: Tensor, y: Tensor) -> Tensor:
    """Plain skin with mottling, at positions x, y of the noise picture."""
    white, fine, coarse = noise(x * 1.7 + who.offset[:, 0], y * 1.7 + who.offset[:, 1])
    tone = 1 + who.marks[:, 1] * (0.018 * white + 0.022 * fine + 0.03 * coarse)
    return linear(who.skin) * tone[:, None]


Painted = tuple[Tensor, Tensor, Tensor, Tensor]


def _labelled(part: Tensor, name: str, amount: Tensor) -> Tensor:
    return torch.where(amount > 0.5, PART[name], part)


def head(who: SimpleNamespace, a: Tensor, b: Tensor) -> Painted:
    """The head's points at chart positions a, b (k,)."""
    base = skin(who, a * 0.5, b * 0.5)
    side = a.abs()
    blush = bump((side - 0.55) * 1.0, b - 0.16, 0.17) + 1.1 * bump(a, b - 0.17, 0.09) + 0.4 * bump(a, b - 0.95, 0.12)
    base = base * (1 + blush[:, None] * base.new_tensor([0.06, -0.10, -0.10]))
    _, spots, _ = noise(a * 2.6 + who.offset[:, 1], b * 2.6 + who.offset[:, 0])
    freckles = soft(spots - 1.25, 0.5) * who.marks[:, 0] * (bump(a, b - 0.08, 0.42))
    for i in (2, 4, 6):
        radius = 0.018
        freckles = freckles + 0.9 * soft(
            1 - (a - who.marks[:, i]) ** 2 / radius**2 - (b - who.marks[:, i + 1]) ** 2 / radius**2, 1
        )
    base = base * (1 - freckles.clamp(0, 1)[:, None] * base.new_tensor([0.45, 0.6, 0.65]))
    gloss = 0.10 + 0.10 * bump(a, b - 0.13, 0.2) + 0.05 * bump(a, b + 0.5, 0.25)
    shade = torch.ones_like(a)

    part = torch.full_like(a, PART["skin"], dtype=torch.int64)
    along = ((b + 0.10) / 0.40).clamp(0, 1)
    on_nose = (b > -0.10) & (b < 0.31) & (a.abs() < 0.08 + 0.17 * along * along)
    part = torch.where(on_nose, PART["nose"], part)

    base, shade = _nostrils(base, shade, a, b)
    shade = shade * _lines(who, a, b)
    base, beard = _beard(who, base, a, b)
    base, brow = _brows(who, base, a, b)
    part = _labelled(_labelled(part, "beard", beard), "brows", brow)
    base, gloss, shade, part = _mouth(who, base, gloss, shade, part, a, b)
    base, gloss, shade, part = _eyes(who, base, gloss, shade, part, a, b)
    return _behind_glasses(who, base, a, b), gloss, shade, part


def _lines(who, a, b):
    """Shading (k,) of the lines that a face has got: forehead, around the eyes, from nose to mouth."""
    forehead, eyes, mouth, _ = who.age.unbind(-1)
    side = a.abs()
    _, bend, _ = noise(a * 0.35 + who.offset[:, 0], who.offset[:, 1])
    depth = torch.zeros_like(a)
    for level, strength in ((-0.500, 0.7), (-0.555, 1.0), (-0.612, 0.8)):
        line = level + 0.012 * bend - 0.05 * a * a
        depth = depth + strength * torch.exp(-(((b - line) / 0.011) ** 2))
    shade = 1 - 0.22 * forehead * depth * soft(0.62 - side, 0.3)
    x, y = eye_frame(a, b, who.eyes[:, 2])
    angle = torch.atan2(y, (x - 0.9).clamp(min=1e-3))
    reach = soft(x - 1.12, 0.12) * soft(1.75 - x, 0.4) * soft(0.75 - angle.abs(), 0.3)
    shade = shade * (1 - 0.20 * eyes * reach * (0.5 + 0.5 * torch.cos(angle * 15)))
    t = (b - 0.26) / 0.34
    fold = 0.25 + 0.19 * t.clamp(0, 1)
    crease = torch.exp(-(((side - fold) / 0.022) ** 2)) * soft(t + 0.05, 0.2) * soft(1.05 - t, 0.3)
    return shade * (1 - (0.08 + 0.30 * mouth) * crease)


def _behind_glasses(who, base, a, b):
    """What the lenses take away: a slight tint of the skin and eyes behind them."""
    present, width, height, square, _, tint = who.glasses.unbind(-1)
    x, y = (a.abs() * 1.45 - 0.10 - width) / width, (b + 0.15) * 1.45 / height
    inside = soft(1 - x.abs() ** square - y.abs() ** square, 0.2)
    return base * (1 - present * tint * inside)[:, None]


def _nostrils(base, shade, a, b):
    x, y = (a.abs() - 0.098) / 0.042, (b - 0.296) / 0.020
    hole = soft(1 - x * x - (y - 0.3 * x) ** 2, 0.9)
    wing = bump((a.abs() - 0.205) * 1.6, (b - 0.255) * 0.9, 0.035)
    under = bump(a * 0.55, b - 0.335, 0.035)
    return mix(base, base * 0.10, hole), shade * (1 - 0.28 * wing) * (1 - 0.18 * under)


def _beard(who, base, a, b):
    side = a.abs()
    white, fine, _ = noise(a * 3.1, b * 1.3)
    edge = 0.03 * fine
    jaw = soft(b - (0.86 - 0.62 * (side / 0.95).clamp(0, 1) ** 2) + edge, 0.14) * soft(1.35 - side, 0.1)
    jaw = jaw * soft(b - 0.36 - edge, 0.1)
    goatee = soft(1 - ((a / 0.42) ** 2 + ((b - 0.80) / 0.27) ** 2) + edge, 0.3)
    lip = soft(1 - ((a / 0.42) ** 2 + ((b - 0.435 - 0.25 * side * side) / 0.085) ** 2) + edge, 0.5)
    full, moustache, stubble = who.beard.unbind(-1)
    hair = torch.maximum(torch.maximum(jaw, goatee) * full, lip * torch.maximum(full, moustache))
    shadow = torch.maximum(torch.maximum(jaw, goatee), lip) * stubble * 0.45
    strand = (0.8 + 0.22 * white + 0.1 * fine).clamp(0.3, 1.4)
    amount = torch.maximum(hair * (0.86 + 0.1 * white).clamp(0.5, 1), shadow)
    return mix(base, linear(who.brow) * strand[:, None], amount), hair


def _brows(who, base, a, b):
    thickness, arch, lift = who.brows.unbind(-1)
    t, line = brow_curve(a, arch, lift)
    half = 0.040 * thickness * (1.05 - 0.55 * t.clamp(0, 1))
    white, fine, _ = noise(a * 4.0 + b * 2.0, b * 1.2)
    distance = (b - line - 0.25 * half).abs() / half
    body = soft(1.0 - distance + 0.15 * fine, 0.7) * soft(t + 0.05, 0.16) * soft(0.98 - t, 0.14)
    amount = body * (0.78 + 0.14 * white).clamp(0.4, 1)
    return mix(base, linear(who.brow), amount), body


def _mouth(who, base, gloss, shade, part, a, b):
    near = a.abs() < layout()["mouth"] * 1.25
    m = a.abs() / layout()["mouth"]
    upper, inner_upper, inner_lower, lower = lip_curves(a, who.lips)
    width = 0.014
    lips = soft(b - upper, width) * soft(lower - b, width) * soft(1.0 - m, 0.06) * near
    white, _, _ = noise(a * 5.0, b * 0.7)
    middle = torch.where(b < inner_upper, 0.86, 1.0) * (1 + 0.03 * white)
    base = mix(base, linear(who.lip) * middle[:, None], lips)
    gloss = gloss + lips * 0.22
    strip = ((b - inner_upper) / (inner_lower - inner_upper).clamp(min=1e-4)).clamp(0, 1)
    distance = torch.where(b < inner_upper, inner_upper - b, b - inner_lower).clamp(min=0)
    crease = torch.exp(-((distance / 0.016) ** 2)) * soft(1.06 - m, 0.12)
    shade = shade * (1 - 0.55 * crease)
    shade = shade * (1 - 0.22 * bump(a * 0.35, b - lower - 0.035, 0.035))  # the hollow under the lower lip
    shade = shade * (1 - 0.25 * bump(m - 1.02, (b - inner_upper) * 3, 0.09))  # the corners

    inside = soft(b - inner_upper, 0.008) * soft(inner_lower - b, 0.008) * soft(INNER - m, 0.03)
    from_top, from_below = strip * who.gap, (1 - strip) * who.gap
    arch = 1 - 0.75 * m * m
    edges = 1 - 0.18 * torch.exp(-(((torch.remainder(a * 14 + 0.5, 1.0) - 0.5) / 0.09) ** 2))
    ivory = base.new_tensor([0.80, 0.76, 0.68])
    cavity = base.new_tensor([0.075, 0.02, 0.02]).expand_as(base)
    tongue = soft(strip - 0.58 - 0.35 * m * m, 0.3) * soft(who.gap - 0.16, 0.2)
    cavity = mix(cavity, base.new_tensor([0.42, 0.13, 0.12]).expand_as(base), tongue * 0.85)
    cavity = mix(
        cavity,
        (ivory * 0.62).expand_as(base) * edges[:, None],
        soft(LOWER_TEETH * arch - from_below, 0.03) * soft(0.72 - m, 0.1),
    )
    bright = (0.55 + 0.45 * soft(from_top - 0.03, 0.08)) * edges * (1 - 0.5 * m * m)
    cavity = mix(cavity, ivory * bright[:, None], soft(UPPER_TEETH * arch - from_top, 0.03) * soft(0.80 - m, 0.1))
    cavity = cavity * (who.gap / 0.07).clamp(0.1, 1)[:, None]  # no light falls into a slit
    base = mix(base, cavity, inside)
    part = _labelled(_labelled(part, "lips", lips), "mouth", inside)
    return base, gloss * (1 - 0.7 * inside), shade + (1 - shade) * inside, part


def _eyes(who, base, gloss, shade, part, a, b):
    upper, lower, tilt = who.eyes.unbind(-1)
    x, y = eye_frame(a, b, tilt)
    right = a > 0
    blink = torch.where(right, who.blink[:, 1], who.blink[:, 0])
    high, low = lids(x, upper, lower, blink)
    arc = (1 - x * x).clamp(min=0)
    inside = soft(y - high, 0.06) * soft(low - y, 0.06) * (x.abs() < 1) * soft(low - high - 0.02, 0.06)

    sign = torch.where(right, 1.0, -1.0)
    ix, iy = x - 0.06 - who.gaze[:, 0] * sign * 0.32, y + 0.12 - who.gaze[:, 1] * 0.16
    r = torch.sqrt(ix * ix * 0.92 + iy * iy + 1e-9) / IRIS_RADIUS
    white = base.new_tensor([0.80, 0.77, 0.75]) * (1 - 0.22 * x.abs()[:, None] ** 2)
    corner = soft(-x - 0.80, 0.2)[:, None]
    white = white + (base.new_tensor([0.55, 0.22, 0.20]) - white) * corner
    fibres = 1 + 0.25 * torch.sin(torch.atan2(iy, ix) * 17 + 5 * r)
    iris = linear(who.iris) * (fibres * (1.25 - 0.55 * soft(r - 0.85, 0.3)))[:, None]
    ball = mix(white, iris, soft(1 - r, 0.14))
    ball = mix(ball, ball.new_tensor([0.008, 0.007, 0.007]).expand_as(ball), soft(0.42 - r, 0.12))
    ball = ball * (1 - 0.5 * torch.exp(-(((y - high) / 0.16) ** 2)))[:, None]  # shadow of the upper lid
    glint = bump(ix - 0.13 * torch.sign(who.light[:, 0]) * sign, iy + 0.14, 0.055)
    ball = ball + 0.75 * glint[:, None]

    # Lids: the fold above, the lashes along the edge, a soft bag below; the socket is darker towards the nose.
    reach = soft(1.12 - x.abs(), 0.16)
    fold_at = -(upper + 0.20) * arc.sqrt() * (1 - 0.12 * x) * (1 - 0.12 * blink)
    fold = torch.exp(-(((y - fold_at) / 0.07) ** 2)) * reach * arc
    shade = shade * (1 - 0.38 * fold)
    shade = shade * (1 - (0.10 + 0.35 * who.age[:, 3]) * bump(x * 0.6, y - low - 0.22, 0.12) * reach)
    shade = shade * (1 - 0.25 * bump((x + 1.35) * 0.9, y + 0.2, 0.28))
    lash = torch.exp(-(((y - high + 0.02) / 0.065) ** 2)) * soft(1.03 - x.abs(), 0.08) * (0.55 + 0.35 * x.clamp(-1, 1))
    lash = lash + 0.30 * torch.exp(-(((y - low) / 0.05) ** 2)) * soft(1.0 - x.abs(), 0.1)
    base = mix(base, linear(who.brow) * 0.25, (lash.clamp(0, 1) * (1 - 0.5 * inside)) * 0.9)
    base = mix(base, ball, inside)
    return base, gloss * (1 - 0.6 * inside), shade + (1 - shade) * inside * 0.8, _labelled(part, "eyes", inside)


def _whole(name: str, x: Tensor) -> Tensor:
    return torch.full_like(x, PART[name], dtype=torch.int64)


def ear(who: SimpleNamespace, x: Tensor, y: Tensor) -> Painted:
    """An ear at its polar position."""
    base = skin(who, x * 0.3, y * 0.3) * x.new_tensor([1.02, 0.90, 0.88])
    bowl = bump(x - 0.15, y - 0.05, 0.33)
    rim = torch.exp(-(((torch.sqrt(x * x + y * y + 1e-9) - 0.68) / 0.10) ** 2))
    return base, torch.full_like(x, 0.08), (1 - 0.5 * bowl) * (1 - 0.25 * rim), _whole("ears", x)


def hair(who: SimpleNamespace, azimuth: Tensor, run: Tensor) -> Painted:
    """Hair at a strand's azimuth and the length along it."""
    curls = who.style[:, 10]
    wavy = azimuth + 0.05 * (who.style[:, 4] + curls) * torch.sin(run * 6) + 0.03 * curls * torch.sin(run * 31)
    white, fine, _ = noise(wavy * 1.1 + who.offset[:, 0], run * 0.06 + who.offset[:, 1])
    strand, band, coarse = noise(wavy * 0.33 + who.offset[:, 1], run * 0.03)
    thin, _, _ = noise(wavy * 2.9 + who.offset[:, 1], run * 0.05 + who.offset[:, 0])
    lump, knot, _ = noise(azimuth * 0.9 + who.offset[:, 0], run * 0.8)
    streak = 1 + who.style[:, 6] * (0.16 * white + 0.16 * fine + 0.14 * band + 0.12 * thin)
    shade = (0.72 + 0.28 * soft(run - 0.35, 0.7)) * (1 + 0.06 * coarse)
    shade = shade * (1 - curls * (0.18 - 0.16 * knot - 0.10 * lump)).clamp(0.35, 1.25)
    # The inner edge of hanging hair faces the viewer squarely: keep it dark and dull, as the gap between strands is.
    inner = soft(1.36 - azimuth.abs(), 0.08) * soft(run - 2.6, 0.5)
    shade = shade * (1 - 0.55 * inner)
    gloss = (0.12 + 0.08 * white + 0.05 * fine + 0.05 * strand).clamp(min=0.01) * (1 - 0.85 * inner) * (1 - 0.6 * curls)
    return linear(who.hair) * streak.clamp(0.35, 1.8)[:, None], gloss, shade, _whole("hair", azimuth)


def bust(who: SimpleNamespace, angle: Tensor, height: Tensor) -> Painted:
    """Neck and clothes at an angle about the neck and a height at rest."""
    base = skin(who, angle * 0.4, height * 0.3)
    collar = who.neck[:, 2]
    front = torch.cos(angle).clamp(min=0)
    line = 2.62 - 0.25 * collar.clamp(max=0) + 0.55 * collar.clamp(min=0) * front**6 + 0.10 * front
    cloth = soft(height - line, 0.03)
    _, fine, coarse = noise(angle * 0.9, height * 0.5)
    weave = torch.sin(angle * who.pattern[:, 0] * 1.3) * torch.sin(height * who.pattern[:, 1] * 2.2 + 0.8)
    amount = soft(weave - 0.1, 0.15) * who.pattern[:, 2]
    # An open jacket shows a shirt between its lapels.
    jacket = who.pattern[:, 3]
    gap = jacket * (1.0 - (height - 2.4) / 2.2) - angle.abs()
    shirt = soft(gap, 0.02) * (jacket > 0)
    lapel = torch.exp(-((gap / 0.03) ** 2)) * (jacket > 0)
    amount = torch.where(jacket > 0, shirt, amount)
    fabric = mix(linear(who.cloth), linear(who.trim), amount.clamp(0, 1)) * (1 + 0.05 * fine + 0.07 * coarse)[:, None]
    hem = torch.exp(-(((height - line - 0.05) / 0.035) ** 2))
    shadow = 1 - 0.55 * soft(2.25 - height, 0.9)  # under the chin
    shade = torch.where(cloth > 0.5, (1 - 0.3 * hem) * (1 - 0.45 * lapel), shadow)
    return mix(base, fabric, cloth), 0.06 * (1 - cloth), shade, _labelled(_whole("neck", angle), "clothes", cloth)


def glasses(who: SimpleNamespace, x: Tensor, y: Tensor) -> Painted:
    """The frame of the glasses."""
    return linear(who.frame), torch.full_like(x, 0.5), torch.ones_like(x), _whole("glasses", x)
