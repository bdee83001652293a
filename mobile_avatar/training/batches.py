"""The batches of a run by number, read ahead in the background."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum

import numpy as np

from mobile_avatar.data.clips import Clips, ClipSource
from mobile_avatar.training.distributed import share
from mobile_avatar.training.options import TrainOptions

Augment = Callable[[Clips, np.random.Generator, int, slice], Clips]
AHEAD = 2  # batches that are read before they are needed


class Stream(IntEnum):
    """Independent sequences of batches."""

    TRAINING = 0
    STATISTICS = 1


class Batches:
    """Batch `number` depends on the run's seed and on `number` alone, so the position in the data is the step.

    Every process draws the global batch and loads its own share.
    """

    def __init__(self, source: ClipSource, options: TrainOptions, augment: Augment | None = None) -> None:
        self.source, self.options, self.augment = source, options, augment
        self.share = share(options.batch_size)

    def read(self, number: int, stream: Stream = Stream.TRAINING) -> Clips:
        """This process's share of a batch: a source and its targets for every person."""
        options = self.options
        generator = np.random.default_rng([options.seed, stream, number])
        draws = self.source.draw(generator, options.batch_size, options.targets + 1)
        clips = self.source.load(draws[self.share], options.device)
        if self.augment:
            clips = self.augment(clips, generator, options.batch_size, self.share)
        return clips

    def ahead(self, start: int, stop: int) -> Iterator[Clips]:
        """Batches start to stop - 1; while one is worked on, a thread reads the next."""
        with ThreadPoolExecutor(1, "batches") as pool:
            waiting = [pool.submit(self.read, number) for number in range(start, min(start + AHEAD, stop))]
            try:
                for number in range(start, stop):
                    clips = waiting.pop(0).result()
                    if number + AHEAD < stop:
                        waiting.append(pool.submit(self.read, number + AHEAD))
                    yield clips
            finally:
                pool.shutdown(cancel_futures=True)
