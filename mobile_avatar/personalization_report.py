"""What a personalisation leaves to look at: held-out frames as a film and as a contact sheet."""

from pathlib import Path

import numpy as np
from torch import Tensor

from mobile_avatar.images import to_uint8
from mobile_avatar.models.bilayer.inference_generator import masked
from mobile_avatar.personalization import Personalized
from mobile_avatar.rendering.comparison import curve, side_by_side
from mobile_avatar.rendering.contact_sheet import contact_sheet

SHEET_FRAMES = 5


def write_film(done: Personalized, path: Path, fps: float) -> None:
    """The held-out frames: photo | before | after."""
    driven = done.driven["after"]
    columns = {"photo": masked(driven.goals, driven.goal_masks)}
    columns |= {name: done.driven[name].images for name in ("before", "after")}
    side_by_side([(name, _frames(images)) for name, images in columns.items()], path, fps)


def write_sheet(done: Personalized, path: Path) -> None:
    """Held-out frames, a row each: photo, warp of the first frame, before, after; then both textures and the curve."""
    driven = done.driven["after"]
    photos = masked(driven.goals, driven.goal_masks)
    cells = []
    for i in np.linspace(0, len(photos) - 1, SHEET_FRAMES).round().astype(int).tolist():
        cells.append((f"held-out frame {i}", to_uint8(photos[i])))
        cells += [(name, to_uint8(done.driven[name].images[i])) for name in ("warp", "before", "after")]
    size = photos.shape[-1]
    history = [(row["step"], row["psnr"]) for row in done.finetuned.history]
    low, high = (limit(value for _, value in history) for limit in (min, max))
    cells += [
        ("texture before", to_uint8(done.before.texture[0])),
        ("texture after", to_uint8(done.avatar.texture[0])),
        (f"{low:.1f} to {high:.1f} dB by step {history[-1][0]}", curve(history, 2 * size)),
        ("", None),
    ]
    contact_sheet(cells, 4, path)


def _frames(images: Tensor) -> np.ndarray:
    return np.stack([to_uint8(image) for image in images])
