"""Small random shifts, turns and scalings of frames together with their masks and keypoints."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from mobile_avatar.training.finetune import Frames

SHIFT, SCALE, TURN = 0.06, 0.06, 0.08


def jitter(frames: "Frames", random: np.random.Generator) -> tuple["Frames", Tensor]:
    """Move every frame as if the crop had been placed a little differently.

    Returns the moved frames and (N, 1, S, S), 1 where a pixel came from inside the frame, else 0.
    """
    count, size = len(frames), frames.images.shape[-1]
    device = frames.images.device
    turn = random.uniform(-TURN, TURN, count)
    scale = np.exp(random.uniform(-SCALE, SCALE, count))
    shift = random.uniform(-SHIFT, SHIFT, (count, 2))
    # new point = linear @ old point + shift; grid_sample wants the way back.
    linear = scale[:, None, None] * np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], -1).reshape(
        -1, 2, 2
    )
    back = np.linalg.inv(linear)
    theta = np.concatenate([back, -back @ shift[:, :, None]], axis=2)
    linear, shift, theta = (torch.tensor(a, dtype=torch.float32, device=device) for a in (linear, shift, theta))
    grid = F.affine_grid(theta, [count, 1, size, size], align_corners=False)
    stack = torch.cat([frames.images, frames.masks], dim=1)
    moved = F.grid_sample(stack, grid, padding_mode="border", align_corners=False)
    points = frames.keypoints.view(count, -1, 2) @ linear.transpose(1, 2) + shift[:, None]
    known = (grid.abs() <= 1).all(dim=-1)[:, None].float()
    return replace(frames, images=moved[:, :3], masks=moved[:, 3:], keypoints=points.flatten(1)), known
