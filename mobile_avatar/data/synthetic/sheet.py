"""A page of synthetic people: pictures, and everything that is known exactly about them."""

import colorsys
from pathlib import Path

import numpy as np
import torch

from ...images import to_uint8
from ...keypoints.landmark_image import draw_landmarks
from ...rendering.contact_sheet import contact_sheet
from .heads import HeadBatch
from .paint import PARTS

PICTURES = 4  # frames of each person beside the truths of the first
NEAR, FAR = 1.5, -3.5  # of the depth's grey levels, head units


def write_truth_sheet(path: Path, batch: HeadBatch) -> None:
    """Write a PNG with a row per person: a few frames, then the truths of the first frame."""
    cells = []
    for i in range(len(batch.images)):
        pictures = batch.images[i, :PICTURES]
        cells += [(f"person {i + 1}, frame {f + 1}", to_uint8(picture)) for f, picture in enumerate(pictures)]
        cells += [
            ("68 keypoints", to_uint8(draw_landmarks(batch.keypoints[i, 0].cpu().numpy(), pictures.shape[-1]))),
            ("soft mask", to_uint8((batch.masks[i, 0] * 2 - 1).expand(3, -1, -1))),
            ("parts", _palette()[batch.parts[i, 0].cpu().numpy()]),
            ("normals", to_uint8(batch.normals[i, 0])),
            ("depth", to_uint8(_grey(batch.depth[i, 0]))),
            ("place in the texture", to_uint8(_place(batch.texture_uv[i, 0]))),
        ]
    contact_sheet(cells, len(cells) // len(batch.images), path)


def _palette() -> np.ndarray:
    """(len(PARTS), 3) uint8: black, then evenly spaced hues."""
    hues = [colorsys.hsv_to_rgb(0.618 * k % 1, 0.75, 0.95) for k in range(len(PARTS) - 1)]
    return (np.array([(0.0, 0.0, 0.0), *hues]) * 255).astype(np.uint8)


def _grey(depth: torch.Tensor) -> torch.Tensor:
    return ((depth.nan_to_num(FAR) - FAR) / (NEAR - FAR) * 2 - 1).expand(3, -1, -1)


def _place(texture_uv: torch.Tensor) -> torch.Tensor:
    """Red and green are the position in the texture, so equal colours are equal spots of a person."""
    known = ~texture_uv.isnan().any(0, keepdim=True)
    return torch.cat((texture_uv.nan_to_num(-1.0), torch.where(known, 0.0, -1.0)))
