"""Meshes of a person in a frame: head, ears, hair and bust in camera space, and the 68 keypoints on the head's surface.

Everything is element-wise over the frames (no matrix products), so a frame's values do not depend on its batch.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor

from .expression import EXPRESSION_FIELDS, Frames, neutral_frames
from .features import INNER, keypoint_charts, layout, lip_curves
from .glasses import glasses_sheets
from .identity import SHAPE_FIELDS, Identity
from .template import CENTRE, COLUMNS, ROWS, directions, template

HINGE = (0.45, -1.0)  # y, z of the jaw's axis
PIVOT = (0.0, 1.1, -1.25)  # the head turns about this point of the neck
JAW_ANGLE = 0.34
HOME_JAW = 0.5  # how far the mouth is open in the texture that unwraps a person
HAIR_SHAPE, BUST_SHAPE, EAR_SHAPE = (48, 161), (40, 49), (15, 20)  # rows, columns of the meshes
# Where short hair ends, by |azimuth|: forehead, temple, sideburn, over the ear, nape.
HAIRLINE = (
    (0.0, -0.75),
    (0.45, -0.73),
    (0.8, -0.61),
    (1.05, -0.38),
    (1.22, -0.12),
    (1.36, 0.06),
    (1.52, -0.06),
    (1.75, 0.12),
)
HAIRLINE += ((2.1, 0.55), (3.1416, 0.8))


@dataclass(frozen=True)
class Grid:
    """One smooth sheet: points (n, rows, columns, 3) in camera space, chart (n, rows, columns, 2) for painting."""

    points: Tensor
    chart: Tensor


@dataclass(frozen=True)
class Scene:
    """All sheets of a batch by layer name, keypoints (n, 68, 3) in camera space, and the gap between the lips (n,)."""

    layers: dict[str, Grid]
    keypoints: Tensor
    gap: Tensor


@lru_cache(maxsize=8)
def surface_fields(device: str) -> tuple[list, list, Tensor, Tensor, Tensor]:
    """Weights of the shape and expression fields on the grid as (index, weight (rows, columns), displacement), the
    weight of the jaw's rotation, the closing of the lips (unit: head units), and the push-back of the mouth's
    interior."""
    page = template("cpu")
    surface = page.surface
    b, a = torch.meshgrid(page.b_axis, page.a_axis, indexing="ij")
    _, up, low, _ = lip_curves(a, torch.ones(2))
    corner = layout()["mouth"]
    m = a.abs() / corner
    strip = ((b - up) / (low - up).clamp(min=1e-4)).clamp(0, 1)
    edge = 0.5 * m.clamp(max=1) ** 4
    sigma = 0.13 + 0.16 * (m - 1).clamp(min=0)
    fade_up = torch.exp(-(((up - b).clamp(min=0) / sigma) ** 2))
    fade_low = torch.exp(-(((b - low).clamp(min=0) / sigma) ** 2))
    inside = edge + (1 - 2 * edge) * strip
    jaw = torch.where(b < up, edge * fade_up, torch.where(b > low, 1 - (1 - (1 - edge)) * fade_low, inside))
    jaw = jaw * ((torch.cos(a) + 0.35) / 0.5).clamp(0, 1)
    gates = {"all": torch.ones_like(jaw), "upper": 1 - jaw, "lower": jaw}

    # With the jaw at rest the lower lip meets the upper one: lift it by the gap of the template, less and less below
    # it.
    row_up, row_low = _lookup(page, surface, a, up), _lookup(page, surface, a, low)
    gap = row_low - row_up
    below = torch.exp(-(((b - low).clamp(min=0) / 0.16) ** 2))
    amount = torch.where(b < up, torch.zeros_like(b), torch.where(b > low, below, strip)) * (m < INNER + 0.02)
    closing = -gap * amount[..., None]
    back = torch.sin(pi * strip) * (m < INNER) * (1 - (m / INNER) ** 2).clamp(min=0)

    def weights(table: tuple, mirrored: bool) -> list:
        out = []
        for i, (_, centre, radius, move, *gate) in enumerate(table):
            for side in (1, -1) if mirrored and centre[0] else (1,):
                c = torch.tensor(centre) * torch.tensor([side, 1, 1])
                w = torch.exp(-((surface - c) ** 2).sum(-1) / (2 * radius**2)) * gates[gate[0] if gate else "all"]
                out.append((i, w, tuple(v * (side if k == 0 else 1) for k, v in enumerate(move))))
        merged: dict[tuple[int, int], Tensor] = {}
        for i, w, move in out:
            for axis, v in enumerate(move):
                if v:
                    merged[i, axis] = merged.get((i, axis), 0) + w * v
        return [(i, axis, w.contiguous().to(device)) for (i, axis), w in merged.items()]

    tensors = (jaw, closing, back)
    return weights(SHAPE_FIELDS, True), weights(EXPRESSION_FIELDS, False), *(t.contiguous().to(device) for t in tensors)


def _lookup(page, surface: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """surface (rows, columns, 3) at chart positions a, b (any shape), bilinear."""
    column, row = page.grid_position(a, b)
    grid = torch.stack((column * 2 / (COLUMNS - 1) - 1, row * 2 / (ROWS - 1) - 1), dim=-1).reshape(1, -1, 1, 2)
    picked = F.grid_sample(surface.permute(2, 0, 1)[None], grid, align_corners=True)
    return picked[0, :, :, 0].T.reshape(*a.shape, surface.shape[-1])


def sample_surface(surface: Tensor, chart: Tensor) -> Tensor:
    """Points (n, p, 3) of surfaces (n, ROWS, COLUMNS, 3) at chart positions (n, p, 2)."""
    column, row = template(str(surface.device)).grid_position(chart[..., 0], chart[..., 1])
    grid = torch.stack((column * 2 / (COLUMNS - 1) - 1, row * 2 / (ROWS - 1) - 1), dim=-1)[:, :, None]
    return F.grid_sample(surface.permute(0, 3, 1, 2), grid, align_corners=True)[..., 0].transpose(1, 2).contiguous()


def _displace(surface: Tensor, table: list, amplitudes: Tensor) -> Tensor:
    axes = list(surface.unbind(-1))
    for i, axis, weight in table:
        axes[axis] = axes[axis] + amplitudes[:, i, None, None] * weight
    return torch.stack(axes, dim=-1)


def head_surface(identity: Identity, frames: Frames) -> tuple[Tensor, Tensor]:
    """Head in head space: at rest, and with the frame's expression; (n, ROWS, COLUMNS, 3) each."""
    device = identity.skin.device
    shape, expression, jaw, closing, back = surface_fields(str(device))
    n = identity.skin.shape[0]
    rest = template(str(device)).surface.expand(n, ROWS, COLUMNS, 3)
    rest = _displace(rest, shape, identity.shape) + closing
    moved = _displace(rest, expression, frames.amplitudes)
    angle = (frames.jaw * JAW_ANGLE)[:, None, None] * jaw
    x, y, z = moved.unbind(-1)
    sin, cos = torch.sin(angle), torch.cos(angle)
    dy, dz = y - HINGE[0], z - HINGE[1]
    turned_z = HINGE[1] + dz * cos - dy * sin - back * (0.10 + 0.25 * frames.jaw)[:, None, None]
    return rest, torch.stack((x, HINGE[0] + dy * cos + dz * sin, turned_z), dim=-1)


def rotate(points: Tensor, pose: Tensor) -> Tensor:
    """Head space -> camera space: points (n, ..., 3) turned by pose (n, 3) = yaw, pitch, roll about PIVOT."""
    shape = (-1,) + (1,) * (points.dim() - 2)
    (sy, cy), (sp, cp), (sr, cr) = ((torch.sin(v).view(shape), torch.cos(v).view(shape)) for v in pose.unbind(-1))
    x, y, z = (p - c for p, c in zip(points.unbind(-1), PIVOT, strict=True))
    y, z = y * cp + z * sp, z * cp - y * sp
    x, z = x * cy + z * sy, z * cy - x * sy
    x, y = x * cr - y * sr, y * cr + x * sr
    return torch.stack((x + PIVOT[0], y + PIVOT[1], z + PIVOT[2]), dim=-1)


def project(points: Tensor, lens: Tensor) -> Tensor:
    """Camera space (n, k, 3) -> picture plane (n, k, 2), head units; lens (n, 1) is the distance of the camera."""
    distance = lens[:, :, None]
    return points[..., :2] * (distance / (distance - points[..., 2:]))


def _smoothstep(low: float, high: float, x: Tensor) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _wave(x: Tensor, phase: Tensor) -> Tensor:
    """A smooth irregular wave of x in about [-1, 1]."""
    return (
        0.5 * torch.sin(x + 6.28 * phase)
        + 0.3 * torch.sin(2.3 * x + 17.0 * phase)
        + 0.2 * torch.sin(5.1 * x + 31.0 * phase)
    )


@lru_cache(maxsize=8)
def _hair_axes(device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Strand azimuths (columns,), the short hairline at them (columns,), and positions along a strand (rows,)."""
    rows, columns = HAIR_SHAPE
    u = torch.linspace(-1, 1, columns, dtype=torch.float64)
    a = pi * (0.7 * u + 0.3 * u**3)
    knots = torch.tensor(HAIRLINE, dtype=torch.float64)
    x = a.abs().clamp(max=float(knots[-1, 0]))
    i = (torch.searchsorted(knots[:, 0].contiguous(), x, right=True) - 1).clamp(0, len(knots) - 2)
    t = (x - knots[i, 0]) / (knots[i + 1, 0] - knots[i, 0])
    line = knots[i, 1] + (knots[i + 1, 1] - knots[i, 1]) * t
    s = torch.linspace(0, 1, rows, dtype=torch.float64)
    return a.float().to(device), line.float().to(device), s.float().to(device)


def hair_sheet(identity: Identity, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Hair in head space over the head at rest: (n, rows, columns, 3), and (azimuth, position along the strand)."""
    a, line, s = _hair_axes(str(rest.device))
    rows, columns = HAIR_SHAPE
    n = rest.shape[0]
    style = identity.style[:, :, None, None]
    thick, fringe, length, wave = style[:, 1], style[:, 2], style[:, 3], style[:, 4]
    parting, bare = style[:, 5], style[:, 7]
    top, side, curls = style[:, 8], style[:, 9], style[:, 10]
    phase = identity.offset[:, :1, None]
    front = _smoothstep(1.15, 0.75, a.abs())
    end = line + front * (
        fringe * 0.26 + 0.12 * parting * torch.sin(2.5 * a) - bare * 0.45 * _smoothstep(0.1, 0.8, a.abs()) - bare * 0.25
    )
    end = end + 0.025 * _wave(a * 9, phase) * (0.4 + wave + front * fringe.clamp(min=0) * 2)
    end = end + 0.03 * _wave(a * 47, phase * 1.7) * _wave(a * 23, phase)  # uneven strand ends
    fall = length * _smoothstep(1.2, 1.32, a.abs()) * (1 + 0.06 * _wave(a * 6, phase))
    end = torch.where(fall > 0, torch.minimum(end + fall, torch.full_like(end, 0.12)), end)
    arc = (end + pi / 2) * 2.0
    total = arc + fall
    run = s[:, None] * total
    b = -pi / 2 + 0.02 + run.clamp(max=arc) / 2.0
    drop = (run - arc).clamp(min=0)
    azimuth = a.expand(n, rows, columns)
    b = b.expand(n, rows, columns)
    chart = torch.stack((azimuth, b), dim=-1)
    skin = sample_surface(rest, chart.reshape(n, -1, 2)).view(n, rows, columns, 3)
    out = directions(azimuth, b)
    # Voluminous hair keeps its thickness almost to its end, plain hair thins out.
    taper = 0.35 - 0.2 * side.clamp(max=0.5)
    volume = top * _smoothstep(-0.55, -1.15, b) + side * _smoothstep(0.55, 1.15, a.abs()) * _smoothstep(-1.3, -0.6, b)
    rest_of_strand = 1 - s[:, None] * (fall <= 0)
    full = (rest_of_strand / taper).clamp(0, 1)
    thinnest = 0.08 + 0.22 * _smoothstep(0.0, 0.4, fringe) + 0.15 * _smoothstep(0.7, 1.2, a.abs())
    lift = (thick + volume) * (thinnest + (1 - thinnest) * full * (2 - full))
    curl = _wave(azimuth * 14 + 2 * run, phase) * _wave(run * 7 + azimuth * 3, phase)
    lumps = _wave(azimuth * 21, phase * 2.3) * _wave(run * 13 + azimuth * 5, phase * 1.3)
    lift = lift * (
        1 + (0.12 + 0.5 * wave) * curl + 0.7 * curls * lumps + 0.35 * parting * torch.sin(azimuth) * (1 - s[:, None])
    )
    lift = lift + 0.05 * _smoothstep(0.5, 0.0, (azimuth - 0.5 * parting).abs()) * front * fringe.clamp(min=0)
    tuck = _smoothstep(0.965, 1.0, s[:, None].expand(n, rows, columns))
    lift = torch.where(s[:, None] > 0.965, lift * (1 - tuck) - 0.12 * tuck, lift)
    points = skin + out * lift[..., None]
    taper = 1 - 0.10 * _smoothstep(0.0, 2.0, drop) + 0.05 * wave * torch.sin(drop * 5 + 20 * phase)
    x = points[..., 0] * taper
    z = CENTRE[2] + (points[..., 2] - CENTRE[2]) * taper - 0.10 * drop
    points = torch.stack((x, points[..., 1] + drop, z), dim=-1)
    return points, torch.stack((azimuth, run.expand(n, rows, columns)), dim=-1)


@lru_cache(maxsize=8)
def _bust_axes(device: str) -> tuple[Tensor, Tensor]:
    rows, columns = BUST_SHAPE
    angle, t = torch.linspace(-pi, pi, columns), torch.linspace(0, 1, rows)
    return angle.to(device), t.to(device)


def bust_sheet(identity: Identity, frames: Frames) -> tuple[Tensor, Tensor]:
    """Neck and shoulders in camera space (n, rows, columns, 3), and the painting chart (angle, height at rest)."""
    angle, t = _bust_axes(str(identity.skin.device))
    n = identity.skin.shape[0]
    width, drop = identity.neck[:, 0, None, None], identity.neck[:, 1, None, None]
    y0 = 1.2 + 4.3 * t[:, None]  # at rest
    shoulder = 2.75 + 0.18 * drop
    flare = _smoothstep(-0.25, 1.6, y0 - shoulder)
    radius_x = 1.0 + 0.08 * width + 2.9 * flare
    radius_z = 0.95 + 0.06 * width + 0.75 * flare
    x = torch.sin(angle) * radius_x
    z = torch.cos(angle) * radius_z - 1.3 + 0.15 * flare
    # The trapezius: at the sides the surface leaves the neck earlier than in front.
    y = y0 + (-0.22 * flare * (1 - flare) * 4) * torch.sin(angle).abs()
    points = torch.stack(torch.broadcast_tensors(x, y.expand_as(x), z), dim=-1).contiguous()
    turned = rotate(points, frames.pose)
    still = rotate(points, torch.stack((frames.body[:, 0], *(torch.zeros_like(frames.body[:, 0]),) * 2), dim=-1))
    still = torch.stack((still[..., 0] + frames.body[:, 1, None, None], still[..., 1], still[..., 2]), dim=-1)
    follow = _smoothstep(3.0, 1.6, y0)[..., None]
    chart = torch.stack((angle.expand(n, *BUST_SHAPE), y0.expand(n, *BUST_SHAPE)), dim=-1)
    return still + (turned - still) * follow, chart


@lru_cache(maxsize=8)
def _ear_axes(device: str) -> tuple[Tensor, Tensor]:
    rows, columns = EAR_SHAPE
    u, v = torch.linspace(0.02, 1, rows), torch.linspace(0, 2 * pi, columns)
    return u.to(device), v.to(device)


def ear_sheet(identity: Identity, rest: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """One ear in head space (n, rows, columns, 3); chart: polar position in the ear (x towards the face, y down)."""
    u, v = _ear_axes(str(rest.device))
    n = rest.shape[0]
    root = sample_surface(rest, rest.new_tensor([[side * 1.56, 0.06]]).expand(n, 1, 2))[:, :, None]
    size = 1 + 0.06 * identity.shape[:, :1, None]
    r = torch.sin(u[:, None] * pi / 2)
    along, down = r * torch.cos(v), r * torch.sin(v)
    bulge = torch.sqrt((1 - r * r).clamp(min=0))
    narrow = 1 - 0.28 * down.clamp(min=0)
    hidden = 0.25 * (identity.style[:, 0] * identity.style[:, 3] > 0)[:, None, None]  # under long hair
    bowl = torch.exp(-((along - 0.15) ** 2 + (down - 0.05) ** 2) / 0.14)
    x = side * (0.13 * bulge + 0.11 * (1 - along) - 0.13 * bowl - 0.05 - hidden)
    z = (along * 0.27 * narrow - 0.10 * down - 0.10) * size
    points = root + torch.stack(torch.broadcast_tensors(x.expand_as(z), (down * 0.43) * size, z), dim=-1)
    chart = torch.stack((along, down), dim=-1).expand(n, *EAR_SHAPE, 2)
    # Seen from outside, the polar angle of the left ear runs the other way round: keep the normals outward.
    return (points, chart) if side > 0 else (points.flip(2), chart.flip(2))


def build_scene(identity: Identity, frames: Frames) -> Scene:
    """All meshes and keypoints of n frames (identity and frames have the same first dimension n)."""
    page = template(str(identity.skin.device))
    rest, moved = head_surface(identity, frames)
    n = rest.shape[0]
    key_chart = keypoint_charts(identity.lips, identity.eyes, identity.brows, frames.blink)
    head = rotate(moved, frames.pose)
    b, a = torch.meshgrid(page.b_axis, page.a_axis, indexing="ij")
    layers = {"head": Grid(head, torch.stack((a, b), dim=-1).expand(n, ROWS, COLUMNS, 2))}
    for name, side in (("left_ear", -1), ("right_ear", 1)):
        points, chart = ear_sheet(identity, rest, side)
        layers[name] = Grid(rotate(points, frames.pose), chart)
    points, chart = hair_sheet(identity, rest)
    # Nobody is drawn without hair by leaving the sheet out (shapes stay fixed): it is moved inside the head instead.
    centre = points.new_tensor(CENTRE)
    points = centre + (points - centre) * torch.where(identity.style[:, 0] > 0.5, 1.0, 0.5)[:, None, None, None]
    layers["hair"] = Grid(rotate(points, frames.pose), chart)
    for name, points in glasses_sheets(identity).items():
        layers[name] = Grid(rotate(points, frames.pose), points[..., :2])
    layers["bust"] = Grid(*bust_sheet(identity, frames))
    keypoints = sample_surface(head, key_chart)
    lips = sample_surface(moved, key_chart[:, [62, 66]])
    _, dy, dz = (lips[:, 1] - lips[:, 0]).unbind(-1)
    return Scene(layers, keypoints, torch.sqrt(dy * dy + dz * dz + 1e-12))


def texture_home(identity: Identity) -> dict[str, Tensor]:
    """Where every vertex of a person lies in a texture that unwraps them, (n, rows, columns, 2) in [-1, 1] by layer.

    The head with its hair and ears is unrolled around its vertical axis, mouth half open so that its inside has room
    of its own; neck and shoulders are seen from the front in a band below. It depends on the person's shape alone, so
    one texel is one spot of skin, hair or cloth in every frame.
    """
    n = identity.skin.shape[0]
    frames = neutral_frames(n).to(identity.skin.device)
    scene = build_scene(identity, replace(frames, jaw=torch.full_like(frames.jaw, HOME_JAW)))
    homes = {}
    for name, grid in scene.layers.items():
        x, y, z = grid.points.unbind(-1)
        if name == "bust":
            homes[name] = torch.stack((x / 3.9, 0.72 + 0.26 * (y - 1.8) / 1.5), dim=-1)
        else:
            turn = torch.atan2(x, z - CENTRE[2]) / pi
            across = turn * (1.5 - 0.5 * turn.abs())  # the front gets more room than the back
            homes[name] = torch.stack((across, (y - 0.1) / 3.6 - 0.1), dim=-1)
    return homes
