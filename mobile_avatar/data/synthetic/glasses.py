"""Glasses: two rims, a bridge and two temples, as thin tubes in head space."""

from functools import lru_cache
from math import pi

import torch
from torch import Tensor

from .identity import Identity
from .template import CENTRE

RIM_SHAPE, BAR_SHAPE = (7, 41), (7, 9)  # around the tube, along it
BRIDGE, PLANE = 0.10, 0.60  # half width of the bridge, z of the lenses at the middle


@lru_cache(maxsize=8)
def _tube_axes(device: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cosine and sine around a tube (7, 1), cosine and sine around a lens (1, 41), positions along a bar (1, 9)."""
    around = torch.linspace(0, 2 * pi, RIM_SHAPE[0])[:, None]
    along = torch.linspace(0, 2 * pi, RIM_SHAPE[1])[None]
    tensors = (torch.cos(around), torch.sin(around), torch.cos(along), torch.sin(along))
    return *(t.to(device) for t in tensors), torch.linspace(0, 1, BAR_SHAPE[1])[None].to(device)


def glasses_sheets(identity: Identity) -> dict[str, Tensor]:
    """Rims, bridge and temples in head space, (n, rows, columns, 3) each; people without have them inside the head."""
    ca, sa, cl, sl, t = _tube_axes(str(identity.skin.device))
    present, width, height, square, thick, _ = (v[:, None, None] for v in identity.glasses.unbind(-1))
    scale = 1 + 0.03 * identity.shape[:, :1, None]
    middle = BRIDGE + width

    def power(x: Tensor) -> Tensor:
        return torch.sign(x) * (x.abs() + 1e-6) ** (2 / square)

    def plane(x: Tensor) -> Tensor:
        return PLANE - 0.16 * x * x

    sheets = {}
    for name, sign in (("left", -1), ("right", 1)):
        out_x, out_y = power(cl), power(sl)
        x = sign * (middle + out_x * (width + thick * 0.5 * ca))
        y = out_y * (height + thick * 0.5 * ca) + 0.02
        sheets[f"{name}_rim"] = torch.stack(torch.broadcast_tensors(x, y, plane(x) + thick * 0.5 * sa), dim=-1)
        hinge = middle + width
        x = sign * (hinge + (1.60 - hinge) * (t * 2).clamp(max=1) * 0.9 + thick * 0.4 * ca)
        z = plane(hinge) + (-1.25 - plane(hinge)) * t
        y = -0.16 + 0.10 * (t - 0.8).clamp(min=0) * 5 * 0.4 + thick * 0.6 * sa
        sheets[f"{name}_temple"] = torch.stack(torch.broadcast_tensors(x, y, z), dim=-1)
    x = (2 * t - 1) * (BRIDGE + 0.04)
    y = -0.12 - 0.05 * (1 - (2 * t - 1) ** 2) + thick * 0.45 * sa
    sheets["bridge"] = torch.stack(torch.broadcast_tensors(x + 0 * ca, y, plane(x) + 0.03 + thick * 0.45 * ca), dim=-1)
    centre = identity.skin.new_tensor(CENTRE)
    size = torch.where(present > 0.5, scale, 0.1)[..., None]
    return {name: centre + (points - centre) * size for name, points in sheets.items()}
