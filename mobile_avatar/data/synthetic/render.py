"""Rendering: window of each frame, visibility, light, and the exact truth that comes with a picture."""

from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from . import paint
from .background import background
from .camera import develop
from .expression import Frames
from .geometry import BUST_SHAPE, EAR_SHAPE, HAIR_SHAPE, build_scene, project, texture_home
from .glasses import BAR_SHAPE, RIM_SHAPE
from .identity import Identity
from .light import shade_points, unit
from .raster import grid_triangles, rasterize
from .template import COLUMNS, ROWS, template

SUPERSAMPLING = 2
# What of an identity the painters read.
PAINTED = (
    *("lips", "eyes", "brows", "skin", "lip", "iris", "brow", "hair", "cloth", "trim", "frame", "style", "beard"),
    *("marks", "age", "glasses", "neck", "pattern", "offset", "sky"),
)
# Grid, painter, and whether the sheet is closed, so that its inner side is never seen.
LAYERS = {
    "head": ((ROWS, COLUMNS), paint.head, True),
    "left_ear": (EAR_SHAPE, paint.ear, True),
    "right_ear": (EAR_SHAPE, paint.ear, True),
    "hair": (HAIR_SHAPE, paint.hair, False),
    "bust": (BUST_SHAPE, paint.bust, True),
    "left_rim": (RIM_SHAPE, paint.glasses, False),
    "right_rim": (RIM_SHAPE, paint.glasses, False),
    "left_temple": (BAR_SHAPE, paint.glasses, False),
    "right_temple": (BAR_SHAPE, paint.glasses, False),
    "bridge": (BAR_SHAPE, paint.glasses, False),
}


@dataclass(frozen=True)
class Rendered:
    """Pictures and their exact truth, n frames of S x S pixels.

    images (n, 3, S, S) in [-1, 1]; masks (n, 1, S, S) in [0, 1]; keypoints (n, 136), the picture spans [-1, 1];
    texture_uv (n, 2, S, S): where a pixel's surface lies in the unwrapped texture (`texture_home`), NaN off the person;
    parts (n, S, S) uint8, an index into PARTS, 0 is background; normals (n, 3, S, S), unit, x right, y down, z to the
    viewer, 0 off the person; depth (n, 1, S, S) in head units (half the distance of the outer eye corners), larger is
    nearer, NaN off the person. Where something must not be averaged, the pixel's first sample counts.
    """

    images: Tensor
    masks: Tensor
    keypoints: Tensor
    texture_uv: Tensor
    parts: Tensor
    normals: Tensor
    depth: Tensor


@lru_cache(maxsize=8)
def topology(device: str) -> tuple[Tensor, Tensor, Tensor]:
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
    return unit(normal.reshape(-1, 3)).view(normal.shape)


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


@dataclass(frozen=True)
class Mesh:
    """All sheets of n frames as one triangle mesh; v vertices, t triangles, the same for everybody.

    vertices (n, v, 3) in camera space, head units, x right, y down, z to the viewer; positions (n, v, 2) in the
    picture, which spans [-1, 1]; texture_uv (n, v, 2) in the unwrapped texture; triangles (t, 3) int64; layers (v,)
    int64, an index into the names of LAYERS. Hair and glasses that somebody does not wear lie inside the head.
    """

    vertices: Tensor
    positions: Tensor
    texture_uv: Tensor
    triangles: Tensor
    layers: Tensor


def head_mesh(identity: Identity, frames: Frames) -> Mesh:
    """The mesh of n frames: identity and frames have n rows each. Differentiable in shape, expression and pose."""
    return _Stage(identity, frames).mesh(identity)


class _Stage:
    """A scene with its window: what the mesh and the picture of a frame have in common."""

    def __init__(self, identity: Identity, frames: Frames) -> None:
        self.scene = build_scene(identity, frames)
        flat = project(self.scene.keypoints, identity.lens)
        self.centre, self.half = window(flat, frames.camera)
        self.keypoints = self.to_picture(flat)

    def to_picture(self, flat: Tensor) -> Tensor:
        """Picture plane (n, k, 2) -> [-1, 1] of the window."""
        return (flat - self.centre[:, None]) / self.half[:, None, None]

    def joined(self, values: dict[str, Tensor]) -> Tensor:
        """Values (n, rows, columns, c) by layer as (n, v, c)."""
        return torch.cat([values[name].flatten(1, 2) for name in LAYERS], dim=1)

    def mesh(self, identity: Identity) -> Mesh:
        points = self.joined({name: grid.points for name, grid in self.scene.layers.items()})
        triangles, _, layer = topology(str(points.device))
        homes = self.joined(texture_home(identity))
        return Mesh(points, self.to_picture(project(points, identity.lens)), homes, triangles, layer)


@dataclass(frozen=True)
class _Samples:
    """What the samples of n pictures see; k of them see the person."""

    pixel: Tensor
    """(k,) flat numbers into n * size * size."""
    colour: Tensor
    """(k, 3) display values in [0, 1]."""
    texture_uv: Tensor
    """(k, 2)"""
    part: Tensor
    """(k,) uint8"""
    normal: Tensor
    """(k, 3)"""
    depth: Tensor
    """(k, 1)"""


def _foreground(stage: _Stage, identity: Identity, frames: Frames, size: int) -> _Samples:
    mesh = stage.mesh(identity)
    device = mesh.vertices.device
    sheets = stage.scene.layers
    charts = stage.joined({name: grid.chart for name, grid in sheets.items()})
    normals = stage.joined({name: _normals(grid.points) for name, grid in sheets.items()})
    triangles, culled, layer = topology(str(device))
    hollow = torch.ones(mesh.vertices.shape[:2], device=device)
    hollow[:, : ROWS * COLUMNS] = template(str(device)).occlusion.reshape(-1)
    depth = mesh.vertices[..., 2:]
    with torch.no_grad():  # which triangle is seen; what it shows is differentiable
        screen = (mesh.positions + 1) * (size / 2)
        pixel, corner, weight = rasterize(screen, depth[..., 0], triangles, culled, size)

    table = torch.cat((charts, normals, hollow[..., None], mesh.texture_uv, depth), dim=-1).reshape(-1, 9)
    w0, w1, w2 = weight.unbind(-1)
    value = table[corner[:, 0]] * w0[:, None] + table[corner[:, 1]] * w1[:, None] + table[corner[:, 2]] * w2[:, None]
    frame = pixel // (size * size)
    kind = layer[corner[:, 0] - frame * depth.shape[1]]
    light = torch.cat((unit(identity.light[:, :3] + frames.light), identity.light[:, 3:]), dim=-1)
    shared = {key: getattr(identity, key) for key in PAINTED}
    shared |= {"blink": frames.blink, "gaze": frames.gaze, "gap": stage.scene.gap, "light": light}
    order, colours, parts, facing = [], [], [], []
    for number, (_, painter, closed) in enumerate(LAYERS.values()):
        chosen = torch.nonzero(kind == number)[:, 0]
        rows = frame[chosen]
        who = SimpleNamespace(**{key: _rows(x, rows) for key, x in shared.items()})
        v = value[chosen]
        albedo, gloss, shade, part = painter(who, v[:, 0], v[:, 1])
        normal = unit(v[:, 2:5])
        if not closed:  # an open sheet: its inner side faces the other way and is darker
            shade = shade * (1 - 0.7 * paint.soft(-normal[:, 2] - 0.1, 0.2))
            normal = torch.cat((normal[:, :2], normal[:, 2:].abs()), dim=-1)
        colours.append(shade_points(albedo, gloss, shade * v[:, 5], normal, who.light, who.sky))
        order.append(chosen)
        parts.append(part)
        facing.append(normal)
    back = torch.argsort(torch.cat(order))
    return _Samples(
        pixel,
        torch.cat(colours)[back],
        value[:, 6:8],
        torch.cat(parts)[back].to(torch.uint8),
        torch.cat(facing)[back],
        value[:, 8:],
    )


def _canvas(samples: _Samples, values: Tensor, empty: float, n: int, size: int) -> Tensor:
    """Values (k, c) of the samples as pictures (n, c, size, size), `empty` elsewhere."""
    flat = torch.full((n * size * size, values.shape[-1]), empty, dtype=values.dtype, device=values.device)
    return flat.index_put((samples.pixel,), values).view(n, size, size, -1).permute(0, 3, 1, 2)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """x[index] without the copy where there is only one row."""
    return x.expand(index.numel(), *x.shape[1:]) if x.shape[0] == 1 else x[index]


def render_heads(identity: Identity, frames: Frames, size: int) -> Rendered:
    """Render n frames: identity and frames have n rows each, on the same device.

    The values of a frame depend only on its own rows (element-wise arithmetic throughout). Colours are differentiable
    with respect to everything but which triangle a pixel sees, keypoints with respect to shape, expression and pose.
    """
    stage = _Stage(identity, frames)
    n, fine = stage.half.shape[0], size * SUPERSAMPLING
    samples = _foreground(stage, identity, frames, fine)
    opaque = torch.cat((samples.colour, torch.ones_like(samples.colour[:, :1])), dim=-1)
    colour, cover = F.avg_pool2d(_canvas(samples, opaque, 0.0, n, fine), SUPERSAMPLING).split((3, 1), dim=1)
    image = colour + background(identity, size) * (1 - cover)
    image = develop(image, identity.grade, frames.noise, frames.level) * 2 - 1
    first = (..., slice(None, None, SUPERSAMPLING), slice(None, None, SUPERSAMPLING))
    return Rendered(
        image,
        cover,
        stage.keypoints.reshape(-1, 136),
        _canvas(samples, samples.texture_uv, torch.nan, n, fine)[first],
        _canvas(samples, samples.part[:, None], 0, n, fine)[first][:, 0],
        _canvas(samples, samples.normal, 0.0, n, fine)[first],
        _canvas(samples, samples.depth, torch.nan, n, fine)[first],
    )
