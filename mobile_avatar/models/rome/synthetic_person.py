"""A synthetic person on the default head: the head's coefficients, hair as offsets, and a texture that is painted.

The head's texture is laid out by azimuth and height, which is how the painters of the synthetic people see a surface,
so every texel asks its painter once. Hair is what the head can carry of it: a cap of its thickness up to where the
strands leave the skull. Long hair that hangs down, and glasses, are not part of the mesh.
"""

from dataclasses import dataclass, replace
from math import pi
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.data.synthetic import paint
from mobile_avatar.data.synthetic.expression import neutral_frames
from mobile_avatar.data.synthetic.geometry import (
    EAR_SHAPE,
    HOME_JAW,
    build_scene,
    ear_sheet,
    hair_sheet,
    head_surface,
    sample_surface,
)
from mobile_avatar.data.synthetic.identity import Identity, draw_identities
from mobile_avatar.data.synthetic.render import PAINTED
from mobile_avatar.data.synthetic.template import template
from mobile_avatar.models.rome.synthetic_layout import RigLayout, rig_layout
from mobile_avatar.models.rome.synthetic_rig import AXES, UNIT, synthetic_codes
from mobile_avatar.rendering.rasterize import rasterize

SPREAD = 6  # texels by which the paint reaches beyond its surface, so that filtering finds no empty ones
HAIR_EDGE, BELOW = 0.04, 0.06  # elevations over which hair begins; how far its roots reach below its end
SLIT = 0.006  # of the texture: how far the dark between the lips reaches into the mouth
SOFT_HAIR = 0.10  # elevations over which the cap of hair rises from the skin


@dataclass(frozen=True)
class SyntheticPerson:
    """Whom to draw on the default head: shape (29,), offsets (v, 3) in metres, texture (size, size, 3) uint8 sRGB."""

    shape: Tensor
    offsets: Tensor
    texture: np.ndarray


@torch.no_grad()
def synthetic_person(seed: int, split: int, texture_size: int) -> SyntheticPerson:
    """The person that `draw_identities([seed], split)` gives: 0 are the training people, 1 the test people."""
    identity = draw_identities([seed], split)
    shape = synthetic_codes(identity, neutral_frames(1)).shape[0]
    return SyntheticPerson(shape, hair_offsets(identity), paint_texture(identity, texture_size))


def hair_offsets(identity: Identity) -> Tensor:
    """How far one person's hair lifts the head's vertices (v, 3), metres; zero for the bald and outside the hair."""
    plan = rig_layout()
    offsets = torch.zeros(int(plan.faces.max()) + 1, 3)
    if identity.style[0, 0] < 0.5:
        return offsets
    rest, _ = head_surface(identity, neutral_frames(1))
    points, chart = (values[0].flatten(0, 1) for values in hair_sheet(identity, rest))
    azimuth, elevation = chart[:, 0], _elevation(chart[:, 1])
    lift = points - sample_surface(rest, torch.stack((azimuth, elevation), dim=-1)[None])[0]
    # The last row is tucked under the skin, and what hangs down has left the skull.
    on_skull = elevation < _elevation(_run_at(_hair_end(identity, azimuth))) - 0.5 * BELOW
    spots = torch.stack((azimuth, elevation), dim=-1)[on_skull]
    wanted = plan.head_chart[plan.hair]
    nearest = torch.cdist(wanted, spots).argmin(1)
    rise = ((_hair_end(identity, wanted[:, 0]) - wanted[:, 1]) / SOFT_HAIR).clamp(0, 1)
    offsets[plan.hair] = lift[on_skull][nearest] * rise[:, None] * lift.new_tensor(AXES) * UNIT
    return offsets


def paint_texture(identity: Identity, size: int) -> np.ndarray:
    """One person's colours without light, (size, size, 3) uint8 sRGB, laid out by the default head's uv.

    The inside of the mouth is painted as it looks half open, because that is when it is seen.
    """
    plan = rig_layout()
    flat = torch.cat((plan.uv, torch.ones_like(plan.uv[:, :1])), dim=1)[None]
    seen = rasterize(flat, plan.uv_faces, size)
    corners, kind = _charts(identity, plan)
    spot = (corners[seen.face] * seen.barycentrics[..., None]).sum(1)
    who = _painters_view(identity)
    colours, parts = torch.zeros(len(spot), 3), torch.zeros(len(spot), 1)
    for number, painter in enumerate((_head, paint.bust, paint.ear)):
        texels = (kind[seen.face] == number).nonzero()[:, 0]
        rows = SimpleNamespace(**{name: x.expand(len(texels), -1) for name, x in who.items()})
        rows.gap = rows.gap[:, 0]
        first, second, hollow = spot[texels].unbind(1)
        albedo, _, shade, part = painter(rows, first, second)
        colours[texels] = albedo * (shade * hollow)[:, None]
        parts[texels, 0] = part.float()
    image = seen.image(colours)
    image = _spread(image * _slit(seen.image(parts) == paint.PART["mouth"]), seen.mask())
    display = image.clamp(0, 1) ** (1 / 2.2)
    return (display[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def _painters_view(identity: Identity) -> dict[str, Tensor]:
    """What the painters read, (1, c) each: eyes open and straight, mouth half open."""
    frames = neutral_frames(1)
    gap = build_scene(identity, replace(frames, jaw=torch.full((1,), HOME_JAW))).gap
    who = {name: getattr(identity, name) for name in PAINTED}
    who |= {"blink": frames.blink, "gaze": frames.gaze, "light": identity.light, "gap": gap[:, None]}
    end = torch.from_numpy(np.stack(_hair_line(identity)))
    return who | {"hair_line": end.reshape(1, -1).float()}


def _head(who: SimpleNamespace, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The head's painter with the hair that grows on it."""
    azimuth = torch.remainder(a + pi, 2 * pi) - pi
    skin, gloss, shade, part = paint.head(who, azimuth, b)
    line = who.hair_line[0].view(2, -1).numpy()
    end = torch.from_numpy(np.interp(azimuth.numpy(), *line)).float()
    amount = paint.soft(end - b, HAIR_EDGE) * (who.style[:, 0] > 0.5)
    hair, _, dark, _ = paint.hair(who, azimuth, _run_at(b))
    return paint.mix(skin * shade[:, None], hair * dark[:, None], amount), gloss, torch.ones_like(shade), part


def _elevation(run: Tensor) -> Tensor:
    """Elevation of a spot of hair by the length along its strand."""
    return -pi / 2 + 0.02 + run / 2


def _run_at(elevation: Tensor) -> Tensor:
    """The inverse of `_elevation`."""
    return ((elevation + pi / 2 - 0.02) * 2).clamp(min=0)


def _hair_line(identity: Identity) -> tuple[np.ndarray, np.ndarray]:
    """Azimuths (columns,), ascending, and the elevation at which the hair leaves the skin there."""
    rest, _ = head_surface(identity, neutral_frames(1))
    chart = hair_sheet(identity, rest)[1][0]
    return chart[-1, :, 0].numpy(), _elevation(chart[-1, :, 1]).clamp(max=BELOW + 0.12).numpy()


def _hair_end(identity: Identity, azimuth: Tensor) -> Tensor:
    """Elevation of the hair line at azimuths (k,)."""
    return torch.from_numpy(np.interp(azimuth.numpy(), *_hair_line(identity))).float()


def _charts(identity: Identity, plan: RigLayout) -> tuple[Tensor, Tensor]:
    """Where the painters see each triangle's corners and how much light reaches them, (t, 3, 3), and which painter it
    is, (t,): head, bust or ear."""
    h, b = len(plan.head_chart), len(plan.bust_chart)
    rest, _ = head_surface(identity, neutral_frames(1))
    ears = [ear_sheet(identity, rest, side)[1][0, plan.ear_rows, : EAR_SHAPE[1] - 1].flatten(0, 1) for side in (-1, 1)]
    chart = torch.cat((plan.head_chart, plan.bust_chart, *ears))
    hollow = torch.ones(len(chart))
    hollow[:h] = sample_surface(template().occlusion[None, :, :, None], plan.head_chart[None])[0, :, 0]
    corners = chart[plan.faces]
    kind = (plan.faces >= h).any(1).long() + (plan.faces >= h + b).any(1)
    # Where head and bust meet, the head's last row continues the bust's columns upwards.
    columns = int((plan.faces == 0).sum())  # the crown has a triangle in each
    first, second = plan.bust_chart[:columns], plan.bust_chart[columns : 2 * columns]
    joined = (kind == 1)[:, None] & (plan.faces < h)
    column = (plan.faces - (h - columns)).clamp(0, columns - 1)
    corners = torch.where(joined[..., None], (2 * first - second)[column], corners)
    # Across the back azimuths go on instead of jumping; the crown has that of its neighbours.
    angle = corners[..., 0]
    wide = (kind < 2)[:, None] & (angle.amax(1, keepdim=True) - angle.amin(1, keepdim=True) > pi)
    angle = torch.where(wide & (angle < 0), angle + 2 * pi, angle)
    crown = plan.faces == 0
    others = (angle * ~crown).sum(1, keepdim=True) / 2
    return torch.stack((torch.where(crown, others, angle), corners[..., 1], hollow[plan.faces]), dim=-1), kind


def _slit(mouth: Tensor) -> Tensor:
    """Darkness (1, 1, S, S) along the edges of the mouth's inside (1, 1, S, S): closed lips show no teeth."""
    reach = 2 * round(mouth.shape[-1] * SLIT) + 1
    depth = F.avg_pool2d(mouth.float(), reach, stride=1, padding=reach // 2)
    return torch.where(mouth, (2 * depth - 1).clamp(0.05, 1), 1.0)


def _spread(image: Tensor, mask: Tensor) -> Tensor:
    """Empty texels near painted ones take their mean colour, ring by ring; the rest the mean of all."""
    for _ in range(SPREAD):
        near = F.avg_pool2d(mask, 3, stride=1, padding=1)
        mean = F.avg_pool2d(image * mask, 3, stride=1, padding=1) / near.clamp(min=1e-6)
        image, mask = torch.where(mask > 0, image, mean), (near > 0).to(mask)
    average = (image * mask).sum((2, 3), keepdim=True) / mask.sum()
    return torch.where(mask > 0, image, average)
