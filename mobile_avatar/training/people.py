"""Whom a model is tested on: people that it never saw, synthetic or from a dataset."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobile_avatar.data.clips import Clips, Draw
from mobile_avatar.data.voxceleb import VoxCelebClips
from mobile_avatar.errors import BadInput
from mobile_avatar.training.sources import SyntheticStream

SYNTHETIC_FRAMES = 8


@dataclass(frozen=True)
class People:
    """People and how to load them."""

    draws: dict[str, Draw]
    """Name -> whom to load and which frames; the first is the source."""
    load: Callable[[Draw], Clips]
    skipped: dict[str, str] = field(default_factory=dict)
    """Name -> why this person cannot be evaluated."""


@dataclass(frozen=True)
class Selection:
    """Which people and frames are asked for."""

    split: str = "test"
    identities: int = 50
    frames: int | None = None
    """Frames of each, the source included; None: 8 of a synthetic person, all of a dataset."""
    every: int = 1
    """Of a dataset, every so many frames: its frames per second, for one target per second."""

    def __post_init__(self) -> None:
        if self.identities < 1 or self.every < 1 or (self.frames is not None and self.frames < 2):
            raise BadInput("evaluation needs at least one identity, and two frames of each: a source and a target")


def synthetic_people(chosen: Selection, image_size: int, device: str = "cpu") -> People:
    """The first synthetic people of a split, by seed, rendered when they are loaded."""
    heads, frames = SyntheticStream(image_size, chosen.split), tuple(range(chosen.frames or SYNTHETIC_FRAMES))
    draws = {f"{chosen.split} {seed}": Draw(seed, frames) for seed in range(chosen.identities)}
    return People(draws, lambda draw: heads.load([draw], device))


def dataset_people(root: Path, chosen: Selection, image_size: int, device: str = "cpu") -> People:
    """The first video of the first people of a dataset in the layout of VoxCeleb2.

    Raises:
        BadInput: `root` is no such dataset, or nobody in it has a source and a target.
    """
    clips = VoxCelebClips(root, chosen.split, image_size)
    first = {name.split("/")[0]: number for number, name in reversed(list(enumerate(clips.people)))}
    draws, skipped = {}, {}
    for number in sorted(first.values()):
        if len(draws) == chosen.identities:
            break
        try:
            candidates = np.arange(0, len(clips.frames_of(number)), chosen.every)
        except BadInput as error:
            skipped[clips.people[number]] = str(error)
            continue
        if len(candidates) < 2:
            skipped[clips.people[number]] = "fewer than two frames: no source and target"
            continue
        count = min(chosen.frames or len(candidates), len(candidates))
        spread = candidates[np.linspace(0, len(candidates) - 1, count).round().astype(int)]
        draws[clips.people[number]] = Draw(number, tuple(spread.tolist()))
    if not draws:
        raise BadInput(f"{root}: nobody in the split {chosen.split} has two frames, a source and a target")
    return People(draws, lambda draw: clips.load([draw], device), skipped)
