"""How well the frames' regressor of a linear ROME reads people whom training never saw: a row per code."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mobile_avatar.models.rome.camera import project, turn
from mobile_avatar.models.rome.networks import RomeNetworks, read_frames
from mobile_avatar.models.rome.parametric import ParametricHead
from mobile_avatar.models.rome.regressors import FrameCodes, split_frame_codes
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.training.rome_heads import unseen_clips

FRAMES = 4
"""Of each person, of ordinary pose."""
DEGREES = math.degrees(1)


@dataclass(frozen=True)
class CodeRow:
    """Root mean squares over all frames."""

    code: str
    unit: str
    error: float
    """Of what is read."""
    mean: float
    """Of the mean over these frames: what reading nothing costs."""
    relative: float
    """error / mean."""


@torch.no_grad()
def code_table(networks: RomeNetworks, people: int, frames: int = FRAMES) -> list[CodeRow]:
    """A row per kind of code, and landmarks of the head with its true shape under all codes together.

    Args:
        networks: with a frames' regressor, in eval mode, made for the synthetic head.
        people: the first of the test split.
        frames: of each.
    """
    clips = unseen_clips(networks.config.frame_side, people, frames)
    true = clips.codes()
    found = split_frame_codes(read_frames(networks, clips.images.flatten(0, 1)), networks.config)
    middle = FrameCodes(*(part.mean(0, keepdim=True).expand_as(part) for part in vars(true).values()))
    head, shape = ParametricHead(synthetic_head()), clips.shape.repeat_interleave(frames, 0)

    def landmarks(codes: FrameCodes) -> Tensor:
        posed = head(shape, codes.expression, codes.pose)
        points = turn(head.landmarks(posed.vertices, posed.rotation), posed.rotation, posed.root)
        return project(points, codes.camera)[..., :2] * 50  # the picture is 2 wide

    def measured(codes: FrameCodes) -> dict[tuple[str, str], Tensor]:
        pose = (codes.pose - true.pose) * DEGREES
        scale = true.camera[:, :1]
        return {
            ("pitch", "degrees"): pose[:, 0],
            ("yaw", "degrees"): pose[:, 1],
            ("roll", "degrees"): pose[:, 2],
            ("jaw", "degrees"): pose[:, 3],
            ("expression", "deviations"): codes.expression - true.expression,
            ("scale", "%"): 100 * (codes.camera[:, :1] - scale) / scale,
            ("shift", "% of the picture"): 50 * (codes.camera[:, 1:] - true.camera[:, 1:]) * scale,
            ("landmarks", "% of the picture"): (landmarks(codes) - landmarks(true)).norm(dim=-1),
        }

    rows = []
    for ((code, unit), error), mean in zip(measured(found).items(), measured(middle).values(), strict=True):
        own, other = (float(values.square().mean().sqrt()) for values in (error, mean))
        rows.append(CodeRow(code, unit, own, other, own / other))
    return rows
