"""Frames of one person, and small random movements of them together with their masks and keypoints."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Largest random movement, in half sides of the crop, as a logarithm and in radians.
SHIFT, SCALE, TURN = 0.03, 0.03, 0.03
REFERENCES = 1000  # frames that others are compared with, to see how rare they are


@dataclass(frozen=True)
class Frames:
    """T frames of one person, on one device; also what a batch of them is."""

    images: Tensor
    """(T, 3, S, S) float32 RGB in [-1, 1], background as filmed."""
    masks: Tensor
    """(T, 1, S, S) float32 in [0, 1], 1 is the person."""
    keypoints: Tensor
    """(T, 136) float32 in [-1, 1] of the crop, iBUG order."""

    @classmethod
    def from_bytes(cls, images: np.ndarray, masks: np.ndarray, keypoints: np.ndarray) -> "Frames":
        """Of uint8 (T, S, S, 3), uint8 (T, S, S) and float32 (T, 136)."""
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
        return cls(pixels, torch.from_numpy(masks)[:, None].float() / 255, torch.from_numpy(keypoints))

    def to(self, device: str) -> "Frames":
        """The same on another device."""
        return Frames(self.images.to(device), self.masks.to(device), self.keypoints.to(device))

    def __len__(self) -> int:
        return len(self.keypoints)

    def __getitem__(self, index: slice | list[int]) -> "Frames":
        return Frames(self.images[index], self.masks[index], self.keypoints[index])


def jitter(frames: Frames, random: np.random.Generator, share: float = 1.0) -> tuple[Frames, Tensor]:
    """Move a random `share` of the frames, each as if its crop had been placed a little differently.

    Returns all frames and (N, 1, S, S), 1 where a pixel comes from inside the old frame, else 0.
    """
    count, size = len(frames), frames.images.shape[-1]
    moved = random.random(count) < share
    turn, scale = moved * random.uniform(-TURN, TURN, count), np.exp(moved * random.uniform(-SCALE, SCALE, count))
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    # A point moves to linear @ point + shift; grid_sample asks for the way back.
    linear = np.stack([cos, -sin, sin, cos], axis=1).reshape(count, 2, 2)
    shift = moved[:, None, None] * random.uniform(-SHIFT, SHIFT, (count, 2, 1))
    back = np.linalg.inv(linear)
    there, here = (
        torch.from_numpy(np.concatenate(parts, axis=2)).to(frames.images)
        for parts in ((linear, shift), (back, -back @ shift))
    )
    grid = F.affine_grid(here, [count, 1, size, size], align_corners=False)
    layers = torch.cat([frames.images, frames.masks], dim=1)
    images, masks = F.grid_sample(layers, grid, padding_mode="border", align_corners=False).split((3, 1), dim=1)
    points = frames.keypoints.view(count, -1, 2) @ there[:, :, :2].transpose(1, 2) + there[:, None, :, 2]
    known = (grid.abs() <= 1).all(dim=-1)[:, None].to(images)
    return Frames(images, masks, points.flatten(1)), known


def rareness(keypoints: Tensor) -> np.ndarray:
    """Probabilities (T,) that draw rare faces, (T, 136), as often as common ones, wherever they are in the crop."""
    points = keypoints.detach().cpu().double().view(len(keypoints), -1, 2)
    points = points - points.mean(dim=1, keepdim=True)
    shapes = (points / points.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-6)).flatten(1)
    distance = torch.cdist(shapes, shapes[:: -(-len(shapes) // REFERENCES)])
    near = (distance <= distance.mean() / 2).sum(dim=1).clamp_min(1).double()
    return (1 / near / (1 / near).sum()).numpy()
