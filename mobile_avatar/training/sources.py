"""Where training frames come from, by the name that --data gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_avatar.data.clips import Clips, ClipSource, Draw
from mobile_avatar.training.distributed import is_first, wait_for_all
from mobile_avatar.training.options import SYNTHETIC, TrainOptions
from mobile_avatar.training.pool import FramePool, PoolSpec

PEOPLE = 2**31 - 1  # numbers of synthetic people to draw from


@dataclass(frozen=True)
class SyntheticStream:
    """Synthetic heads rendered when they are asked for; practically nobody is seen twice."""

    image_size: int
    split: str = "train"

    def draw(self, generator: np.random.Generator, people: int, frames: int) -> list[Draw]:
        """Random people; of each the first frames, which are as random as any others."""
        return [Draw(int(person), tuple(range(frames))) for person in generator.integers(PEOPLE, size=people)]

    def load(self, draws: Sequence[Draw], device: str = "cpu") -> Clips:
        """Render the frames of a draw."""
        from mobile_avatar.data.synthetic import SyntheticHeads

        heads = SyntheticHeads(self.image_size, self.split)
        batch = heads.sample([draw.person for draw in draws], len(draws[0].frames), device=device)
        return Clips(batch.images, batch.masks, batch.keypoints, batch.texture_uv)


def open_source(options: TrainOptions, folder: Path, image_size: int, split: str = "train") -> ClipSource:
    """The source that `options.data` names.

    Args:
        folder: the run's; a pool of synthetic frames lies beside it.
        split: `test` for the people of the contact sheets.

    Raises:
        BadInput: neither a known name nor the folder of a dataset.
    """
    return SOURCES.get(options.data, _dataset)(options, Path(folder), image_size, split)


def _stream(options: TrainOptions, folder: Path, image_size: int, split: str) -> ClipSource:
    return SyntheticStream(image_size, split)


def _pool(options: TrainOptions, folder: Path, image_size: int, split: str) -> ClipSource:
    if split == "test":  # a handful of pictures
        return SyntheticStream(image_size, split)
    place, spec = (
        folder.absolute().parent / f"pool-{image_size}",
        PoolSpec(image_size, options.identities, options.frames),
    )
    # One process renders, the others find the pool finished.
    if is_first():
        FramePool(place, spec).fill(options.device)
    wait_for_all()
    return FramePool(place, spec)


def _dataset(options: TrainOptions, folder: Path, image_size: int, split: str) -> ClipSource:
    from mobile_avatar.data.voxceleb import VoxCelebClips

    root = Path(options.data)
    if split == "test" and not (root / "imgs" / split).is_dir():
        split = "train"
    return VoxCelebClips(root, split, image_size)


SOURCES: dict[str, Callable[[TrainOptions, Path, int, str], ClipSource]] = dict(
    zip(SYNTHETIC, (_pool, _stream), strict=True)
)
