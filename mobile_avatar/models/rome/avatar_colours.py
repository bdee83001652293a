"""The colours of a ROME avatar as a picture: what its renderings show, laid out in its texture.

A ROME avatar has no colours, only a neural texture that its renderer turns into pictures. So it is rendered from
several sides, and every texel takes what the views show of its spot, those most that face it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.models.rome.avatar import CODES, RomeAvatar
from mobile_avatar.models.rome.feature_image import FRONT
from mobile_avatar.rendering.rasterize import rasterize
from mobile_avatar.rendering.surface_map import SurfaceMap

YAWS = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Radians; the face is seen by most of them, so the back of the head stays a guess."""
SHARPNESS = 4  # power of the cosine to the viewer
HIDDEN = 0.02  # depth behind the nearest surface, in the picture's unit, from which a spot counts as hidden


@torch.no_grad()
def avatar_colours(avatar: RomeAvatar, size: int) -> np.ndarray:
    """(size, size, 3) uint8: display values with the light of the photo in them.

    Spots that no view shows take the colour of what lies around them in the texture.
    """
    mesh = avatar.mesh
    corners = mesh.corners.long()
    surface = SurfaceMap(corners, mesh.uv, corners, size)
    total, weight = torch.zeros(1, 3, size, size), torch.zeros(1, 1, size, size)
    for yaw in YAWS:
        codes = avatar.source_codes[None].clone()
        codes[:, :-3] = 0
        codes[:, -CODES + 1] = yaw
        frame = avatar.render(codes)
        colour, mask = frame.rgba.split((3, 1), dim=1)
        spots = surface(frame.positions)
        grid = spots[:, :2].permute(0, 2, 3, 1)
        seen = rasterize(frame.positions + frame.positions.new_tensor([0, 0, FRONT]), corners, avatar.size)
        nearest = seen.image(seen.depth, float("inf"))[:, None]
        front = F.grid_sample(nearest.clamp(max=2 * FRONT), grid, mode="nearest", align_corners=False) - FRONT
        # Normals are those of the head at rest: turn them as the head is turned.
        across, _, towards = surface(frame.normals).split(1, dim=1)
        facing = (towards * np.cos(yaw) - across * np.sin(yaw)).clamp(min=0) ** SHARPNESS
        share = facing * (spots[:, 2:] < front + HIDDEN) * surface.mask()
        share = share * F.grid_sample(mask, grid, align_corners=False)
        total += share * F.grid_sample(colour, grid, padding_mode="border", align_corners=False)
        weight += share
    return _bytes(_filled(total, weight))


def _filled(total: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums (1, 3, S, S) and weights (1, 1, S, S) as means; texels without weight from coarser and coarser
    averages, down to the mean of all."""
    levels = [(total, weight)]
    while levels[-1][1].shape[-1] > 1:
        levels.append(tuple(F.avg_pool2d(values, 2, ceil_mode=True) for values in levels[-1]))
    filled = levels[-1][0] / levels[-1][1].clamp(min=1e-12)
    for sums, weights in reversed(levels[:-1]):
        coarse = F.interpolate(filled, sums.shape[-2:], mode="bilinear", align_corners=False)
        known = (weights / weights.amax().clamp(min=1e-12) * 50).clamp(max=1)
        filled = known * sums / weights.clamp(min=1e-12) + (1 - known) * coarse
    return filled


def _bytes(image: Tensor) -> np.ndarray:
    return (image[0].permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
