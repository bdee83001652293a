"""What changes from frame to frame: expression, gaze, pose, framing; drawn from a seed."""

from dataclasses import dataclass, fields
from math import radians

import torch
from torch import Tensor

from .identity import seeded

# Displacement fields of the expression: name, centre, radius, displacement at amplitude 1, region of the face it may
# move. Left/right are sides of the picture; the fields of the left side are mirror images of those of the right.
EXPRESSION_FIELDS = (
    ("smile_right", (0.58, 1.21, 0.30), 0.30, (0.12, -0.15, -0.10), "all"),
    ("smile_left", (-0.58, 1.21, 0.30), 0.30, (-0.12, -0.15, -0.10), "all"),
    ("cheek_right", (0.85, 0.55, 0.25), 0.28, (0.02, -0.08, 0.06), "all"),
    ("cheek_left", (-0.85, 0.55, 0.25), 0.28, (-0.02, -0.08, 0.06), "all"),
    ("pucker_right", (0.5, 1.25, 0.40), 0.26, (-0.20, 0.0, 0.06), "all"),
    ("pucker_left", (-0.5, 1.25, 0.40), 0.26, (0.20, 0.0, 0.06), "all"),
    ("pucker_lips", (0.0, 1.25, 0.55), 0.28, (0.0, 0.0, 0.17), "all"),
    ("lip_raise", (0.0, 1.09, 0.64), 0.30, (0.0, -0.09, 0.02), "upper"),
    ("lip_lower", (0.0, 1.45, 0.55), 0.26, (0.0, 0.08, 0.0), "lower"),
    ("mouth_shift", (0.0, 1.35, 0.50), 0.45, (0.14, 0.0, 0.0), "all"),
    ("brow_in_right", (0.38, -0.50, 0.42), 0.24, (-0.03, -0.17, 0.0), "all"),
    ("brow_in_left", (-0.38, -0.50, 0.42), 0.24, (0.03, -0.17, 0.0), "all"),
    ("brow_out_right", (1.0, -0.45, 0.22), 0.30, (0.0, -0.15, 0.0), "all"),
    ("brow_out_left", (-1.0, -0.45, 0.22), 0.30, (0.0, -0.15, 0.0), "all"),
    ("puff_right", (0.85, 1.10, 0.15), 0.32, (0.10, 0.0, 0.10), "all"),
    ("puff_left", (-0.85, 1.10, 0.15), 0.32, (-0.10, 0.0, 0.10), "all"),
)
EXPRESSION_INDEX = {name: i for i, (name, *_) in enumerate(EXPRESSION_FIELDS)}


@dataclass(frozen=True)
class Frames:
    """Parameters of n frames; the first dimension of every tensor is n.

    jaw: (n,) opening 0..1
    amplitudes: (n, len(EXPRESSION_FIELDS))
    blink: (n, 2) eye at the left, at the right of the picture; 0 open .. 1 closed
    gaze: (n, 2) right, down, in [-1, 1]
    pose: (n, 3) radians: yaw (positive: nose to the right of the picture), pitch (down), roll (clockwise)
    camera: (n, 3) shift x, y as a fraction of the crop's half side, relative scale
    light: (n, 3) small change of the light's direction
    body: (n, 2) turn and shift of the shoulders; noise: (n,) int64 seed of the sensor noise, level: (n,) its strength
    """

    jaw: Tensor
    amplitudes: Tensor
    blink: Tensor
    gaze: Tensor
    pose: Tensor
    camera: Tensor
    light: Tensor
    body: Tensor
    noise: Tensor
    level: Tensor

    def take(self, index: Tensor) -> "Frames":
        """The frames at `index`."""
        return Frames(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: str | torch.device) -> "Frames":
        """The same frames on another device."""
        return Frames(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def neutral_frames(n: int) -> Frames:
    """n frontal frames without expression, jitter or noise (CPU)."""
    z = torch.zeros
    camera = torch.tensor([[0.0, 0.0, 1.0]]).repeat(n, 1)
    noise = torch.zeros(n, dtype=torch.int64)
    return Frames(z(n), z(n, len(EXPRESSION_FIELDS)), z(n, 2), z(n, 2), z(n, 3), camera, z(n, 3), z(n, 2), noise, z(n))


def _frame(generator: torch.Generator) -> dict[str, Tensor]:
    u = torch.rand(32, generator=generator).tolist()
    g = torch.randn(16, generator=generator).tolist()
    amplitude = dict.fromkeys(EXPRESSION_INDEX, 0.0)

    def pair(name: str, value: float, skew: float) -> None:
        amplitude[name + "_left"] += value * (1 + skew)
        amplitude[name + "_right"] += value * (1 - skew)

    jaw = max(0.0, u[0] * 1.6 - 0.7) ** 1.3 if u[1] < 0.7 else 0.0
    smile = u[2] * 1.15 - 0.2 if u[3] < 0.6 else 0.0
    pair("smile", smile, 0.25 * g[0])
    pair("cheek", max(0.0, smile), 0.1 * g[0])
    if u[4] < 0.22:
        pair("pucker", u[5], 0.1 * g[1])
        amplitude["pucker_lips"] = u[5]
    if u[6] < 0.12:
        pair("puff", u[7], 0.4 * g[2])
    amplitude["lip_raise"] = max(0.0, u[8] * 2.2 - 1.4)
    amplitude["lip_lower"] = max(0.0, u[9] * 2.2 - 1.4)
    amplitude["mouth_shift"] = 0.35 * g[3] if u[10] < 0.4 else 0.0
    brow = 0.45 * g[4]
    pair("brow_in", brow + 0.35 * g[5], 0.15 * g[6])
    pair("brow_out", brow, 0.3 * g[7])
    lid = 0.12 * abs(g[8]) + 0.1 * max(0.0, smile) - (0.1 * max(0.0, brow))
    blink = [lid, lid]
    if u[11] < 0.18:  # a blink on its way, or a wink
        blink = [max(lid, u[12] * 1.3)] * 2
        if u[13] < 0.25:
            blink[int(u[14] * 2)] = lid
    yaw = max(-45.0, min(45.0, 17.0 * g[9]))
    pitch = max(-20.0, min(20.0, 8.0 * g[10]))
    roll = max(-20.0, min(20.0, 7.0 * g[11]))
    return {
        "jaw": torch.tensor(min(1.0, jaw)),
        "amplitudes": torch.tensor(list(amplitude.values())),
        "blink": torch.tensor(blink).clamp(-0.1, 1.0),
        "gaze": torch.tensor([u[15] * 2 - 1, u[16] * 2 - 1]) * u[17],
        "pose": torch.tensor([radians(yaw), radians(pitch), radians(roll)]),
        "camera": torch.tensor([(u[18] * 2 - 1) * 0.03, (u[19] * 2 - 1) * 0.03, 1 + (u[20] * 2 - 1) * 0.06]),
        "light": torch.tensor([g[12], g[13], g[14]]) * 0.05,
        "body": torch.tensor([0.3 * radians(yaw) + 0.08 * g[15], (u[21] * 2 - 1) * 0.15]),
        "noise": torch.tensor(int(u[22] * 2**30)),
        "level": torch.tensor(0.003 + 0.009 * u[23]),
    }


def draw_frames(identity_seed: int, frames: int, frame_seed: int, split: int) -> Frames:
    """`frames` random frames of one person (CPU); frame i does not depend on how many are drawn."""
    rows = [_frame(seeded(202, split, identity_seed, frame_seed, i)) for i in range(frames)]
    return Frames(**{name: torch.stack([r[name] for r in rows]) for name in rows[0]})


def join_frames(parts: list[Frames]) -> Frames:
    """Concatenation of several people's frames."""
    return Frames(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Frames)})
