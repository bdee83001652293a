"""Rendering: window of each frame, visibility, light, background, camera noise."""

from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from . import paint
from .expression import Frames
from .geometry import BUST_SHAPE, EAR_SHAPE, HAIR_SHAPE, Scene, build_scene, project, texture_home
from .identity import Identity
from .raster import grid_triangles, rasterize
from .template import COLUMNS, ROWS, template

SUPERSAMPLING = 2
PAINTED = (
    "lips",
    "eyes",
    "brows",
    "skin",
    "lip",
    "iris",
    "brow",
    "hair",
    "cloth",
    "trim",
    "style",
    "beard",
    "marks",
    "neck",
)
PAINTED += ("pattern", "offset")
# Grid, painter, and whether the sheet is closed, so that its inner side is never seen.
LAYERS = {
    "head": ((ROWS, COLUMNS), paint.head, True),
    "left_ear": (EAR_SHAPE, paint.ear, True),
    "right_ear": (EAR_SHAPE, paint.ear, True),
    "hair": (HAIR_SHAPE, paint.hair, False),
    "bust": (BUST_SHAPE, paint.bust, True),
}


@dataclass(frozen=True)
class Rendered:
    """images (n, 3, S, S) in [-1, 1]; masks (n, 1, S, S) in [0, 1]; keypoints (n, 136), the picture spans [-1, 1];
    texture_uv (n, 2, S, S): where a pixel's surface lies in the unwrapped texture (`texture_home`), NaN off the person.
    """

    images: Tensor
    masks: Tensor
    keypoints: Tensor
    texture_uv: Tensor


@lru_cache(maxsize=8)
def _topology(device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Triangles (t, 3) of all layers, whether their back is culled (t,), and the layer number of every vertex (v,)."""
    triangles, culled, layer, start = [], [], [], 0
    for number, ((rows, columns), _, closed) in enumerate(LAYERS.values()):
        t = grid_triangles(rows, columns, "cpu")
        triangles.append(t + start)
        culled.append(torch.full((len(t),), closed))
        layer.append(torch.full((rows * columns,), number))
        start += rows * columns
    return torch.cat(triangles).to(device), torch.cat(culled).to(device), torch.cat(layer).to(device)


def _normals(points: Tensor) -> Tensor:
    """Unit normals (n, rows, columns, 3) of sheets, pointing outwards where columns run right and rows run down."""
    p = points.permute(0, 3, 1, 2)
    across = F.pad(p[..., 2:] - p[..., :-2], (1, 1, 0, 0), mode="replicate")
    down = F.pad(p[..., 2:, :] - p[..., :-2, :], (0, 0, 1, 1), mode="replicate")
    (ax, ay, az), (dx, dy, dz) = across.unbind(1), down.unbind(1)
    normal = torch.stack((ay * dz - az * dy, az * dx - ax * dz, ax * dy - ay * dx), dim=-1)
    return _unit(normal.reshape(-1, 3)).view(normal.shape)


def window(keypoints: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Crop of each frame: centre (n, 2) and half side (n,), from projected keypoints (n, 68, 2) and the camera's
    jitter (n, 3).

    The rule of the avatar models: the middle of the keypoints' box moved up by a sixth of its larger side, twice that
    side wide.
    """
    low, high = keypoints.amin(dim=1), keypoints.amax(dim=1)
    size = (high - low).amax(dim=1)
    middle = (low + high) / 2
    half = size * camera[:, 2]
    x = middle[:, 0] + camera[:, 0] * half
    y = middle[:, 1] - size / 6 + camera[:, 1] * half
    return torch.stack((x, y), dim=-1), half


def _light(albedo: Tensor, gloss: Tensor, shade: Tensor, normal: Tensor, light: Tensor) -> Tensor:
    """Colour (k, 3), display values in [0, 1], of lit points."""
    direction, key, ambient, bounce = light.split(3, dim=-1)
    nx, ny, nz = normal.unbind(-1)
    lx, ly, lz = direction.unbind(-1)
    lambert = nx * lx + ny * ly + nz * lz
    wrapped = ((lambert + 0.25) / 1.25).clamp(min=0)
    up = 0.5 - 0.5 * ny
    rim = (1 - nz.clamp(0, 1)) ** 3
    light_in = (
        key * (wrapped * (0.4 + 0.6 * shade))[:, None]
        + ambient * (up * shade)[:, None]
        + bounce * ((1 - up) * shade)[:, None]
    )
    length = torch.sqrt(lx * lx + ly * ly + (lz + 1) ** 2 + 1e-9)
    half = ((nx * lx + ny * ly + nz * (lz + 1)) / length).clamp(0, 1)
    shine = gloss * (0.7 * half**18 + 0.5 * half**60 + 0.15 * rim) * shade
    colour = albedo * light_in + key * shine[:, None]
    colour = colour / (1 + 0.18 * colour)  # soft shoulder: highlights do not clip to flat patches
    return (colour.clamp(min=0) * 1.12).clamp(max=1) ** (1 / 2.2)


def _foreground(
    scene: Scene, identity: Identity, frames: Frames, centre: Tensor, half: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Premultiplied colour (n, 3, size, size), coverage (n, 1, size, size), texture position (n, 2, size, size)."""
    device = centre.device
    n = centre.shape[0]
    name_of = list(LAYERS)
    sheets = [scene.layers[name] for name in name_of]
    points = torch.cat([s.points.reshape(n, -1, 3) for s in sheets], dim=1)
    charts = torch.cat([s.chart.reshape(n, -1, 2) for s in sheets], dim=1)
    normals = torch.cat([_normals(s.points).reshape(n, -1, 3) for s in sheets], dim=1)
    triangles, culled, layer = _topology(str(device))
    hollow = torch.ones(points.shape[:2], device=device)
    hollow[:, : ROWS * COLUMNS] = template(str(device)).occlusion.reshape(-1)
    screen = ((project(points) - centre[:, None]) / half[:, None, None] + 1) * (size / 2)
    pixel, corner, weight = rasterize(screen, points[..., 2], triangles, culled, size)

    home = texture_home(identity)
    homes = torch.cat([home[name].reshape(n, -1, 2) for name in name_of], dim=1)
    table = torch.cat((charts, normals, hollow[..., None], homes), dim=-1).reshape(-1, 8)
    w0, w1, w2 = weight.unbind(-1)
    value = table[corner[:, 0]] * w0[:, None] + table[corner[:, 1]] * w1[:, None] + table[corner[:, 2]] * w2[:, None]
    frame = pixel // (size * size)
    kind = layer[corner[:, 0] - frame * points.shape[1]]
    canvas = torch.zeros(n * size * size, 4, device=device)
    light = identity.light.clone()
    direction = light[:, :3] + frames.light
    light[:, :3] = _unit(direction)
    shared = {key: getattr(identity, key) for key in PAINTED}
    shared |= {"blink": frames.blink, "gaze": frames.gaze, "gap": scene.gap, "light": light}
    for number, name in enumerate(name_of):
        chosen = torch.nonzero(kind == number)[:, 0]
        rows = frame[chosen]
        who = SimpleNamespace(**{key: _rows(x, rows) for key, x in shared.items()})
        v = value[chosen]
        albedo, gloss, shade = LAYERS[name][1](who, v[:, 0], v[:, 1])
        normal = _unit(v[:, 2:5])
        if not LAYERS[name][2]:  # an open sheet: its inner side faces the other way and is darker
            shade = shade * (1 - 0.7 * paint.soft(-normal[:, 2] - 0.1, 0.2))
            normal = torch.cat((normal[:, :2], normal[:, 2:].abs()), dim=-1)
        colour = _light(albedo, gloss, shade * v[:, 5], normal, who.light)
        canvas[pixel[chosen]] = torch.cat((colour, torch.ones_like(colour[:, :1])), dim=-1)
    canvas = canvas.view(n, size, size, 4).permute(0, 3, 1, 2)
    texture_uv = torch.full((n * size * size, 2), torch.nan, device=device)
    texture_uv[pixel] = value[:, 6:8]
    return canvas[:, :3], canvas[:, 3:], texture_uv.view(n, size, size, 2).permute(0, 3, 1, 2)


def _background(identity: Identity, size: int) -> Tensor:
    """(n, 3, size, size) display colours: plain, a gradient, or blurred blobs."""
    device = identity.skin.device
    axis = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    y, x = axis[:, None], axis[None, :]
    row = identity.background[:, :, None, None]
    kind, first, second = row[:, 0], row[:, 1:4], row[:, 4:7]
    slope = (0.5 + 0.35 * (x * (row[:, 7]) + y)).clamp(0, 1)
    blobs = torch.zeros_like(slope)
    for i in range(5):
        cx, cy, r = row[:, 7 + 3 * i], row[:, 8 + 3 * i], row[:, 9 + 3 * i]
        blobs = blobs + torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (r * r)) * (1.0 if i % 2 else -0.8)
    amount = torch.where(
        kind < 0.25, torch.zeros_like(slope), torch.where(kind < 0.55, slope, (slope + 0.6 * blobs).clamp(0, 1))
    )
    return first + (second - first) * amount[:, None]


def _sensor_noise(seed: Tensor, level: Tensor, size: int) -> Tensor:
    """(n, 3, size, size) noise from an integer hash of the pixel's number; the same on every device."""
    index = torch.arange(3 * size * size, device=seed.device, dtype=torch.int64)
    x = (index + seed[:, None] * 2654435761) & 0xFFFFFFFF
    for shift, factor in ((16, 0x45D9F3B), (15, 0x2C1B3C6D), (16, 1)):
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
    pair = ((x & 0xFFFF) + (x >> 16)).float() * (1 / 65536) - 1  # triangular distribution on (-1, 1)
    return pair.view(-1, 3, size, size) * level[:, None, None, None] * 2.4


def _unit(x: Tensor) -> Tensor:
    """(k, 3) -> unit vectors; spelled out, because a reduction may add in an order that depends on k."""
    a, b, c = x.unbind(-1)
    return x / torch.sqrt(a * a + b * b + c * c + 1e-12)[:, None]


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """x[index] without the copy where there is only one row."""
    return x.expand(index.numel(), *x.shape[1:]) if x.shape[0] == 1 else x[index]


@torch.no_grad()
def render_heads(identity: Identity, frames: Frames, size: int) -> Rendered:
    """Render n frames: identity and frames have n rows each, on the same device.

    The values of a frame depend only on its own rows (element-wise arithmetic throughout).
    """
    scene = build_scene(identity, frames)
    flat = project(scene.keypoints)
    centre, half = window(flat, frames.camera)
    keypoints = ((flat - centre[:, None]) / half[:, None, None]).reshape(-1, 136)
    colour, cover, texture_uv = _foreground(scene, identity, frames, centre, half, size * SUPERSAMPLING)
    colour, cover = F.avg_pool2d(colour, SUPERSAMPLING), F.avg_pool2d(cover, SUPERSAMPLING)
    image = colour + _background(identity, size) * (1 - cover)
    image = (image + _sensor_noise(frames.noise, frames.level, size)).clamp(0, 1) * 2 - 1
    # Positions cannot be averaged across an outline: take one sample of each pixel.
    return Rendered(image, cover, keypoints, texture_uv[..., ::SUPERSAMPLING, ::SUPERSAMPLING])
