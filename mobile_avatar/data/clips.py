"""What training and evaluation read, whatever the data is: frames of a few people, and sources that draw them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Clips:
    """Frames of b people: n of each; frame 0 is the source in training."""

    images: Tensor
    """(b, n, 3, S, S) float32 RGB in [-1, 1], background as photographed."""
    masks: Tensor
    """(b, n, 1, S, S) float32 in [0, 1], 1 is the person."""
    keypoints: Tensor
    """(b, n, 136) float32 in [-1, 1] of the crop, iBUG order."""
    texture_uv: Tensor | None = None
    """(b, n, 2, S, S) float32: where each pixel lies in the person's texture, NaN off the person; None if unknown."""


class Draw(NamedTuple):
    """One person and some of their frames, by number."""

    person: int
    frames: tuple[int, ...]


class ClipSource(Protocol):
    """Anything that training can draw from.

    Drawing and loading are apart so that every process of a data-parallel run draws the same global batch from the same
    generator and loads only its own share of it.
    """

    image_size: int

    def draw(self, generator: np.random.Generator, people: int, frames: int) -> list[Draw]:
        """Random people, different random frames of each; only `generator` decides."""
        ...

    def load(self, draws: Sequence[Draw], device: str = "cpu") -> Clips:
        """The pictures of a draw."""
        ...
