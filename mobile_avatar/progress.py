"""Progress of long work: a bar on a terminal, plain lines in a log."""

import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

# In a log: a line per tenth, but not more often than once a second; of slow work at least every ten seconds.
LINE_SHARE, LINE_LEAST_S, LINE_MOST_S = 0.1, 1.0, 10.0


def progress(iterable: Iterable[Item], total: int | None, label: str, enabled: bool = True) -> Iterator[Item]:
    """Pass the items on and say on stderr how far the work is; stdout stays free for results.

    Args:
        iterable: the work, one item a step.
        total: number of items, or None when unknown (a video stream).
        label: what is being done, as "rendering".
        enabled: False makes it silent.
    """
    if not enabled:
        yield from iterable
    elif sys.stderr.isatty():
        from tqdm import tqdm

        # Asked here, because tqdm shows nothing on a terminal that does not know its size (a container's).
        width, height = shutil.get_terminal_size()
        yield from tqdm(iterable, label, total, file=sys.stderr, ncols=min(100, width), nrows=height)
    else:
        yield from _plain(iterable, total, label)


def _plain(iterable: Iterable[Item], total: int | None, label: str) -> Iterator[Item]:
    start = told_at = time.monotonic()
    done = told = 0
    for done, item in enumerate(iterable, start=1):
        yield item
        now = time.monotonic()
        advanced = total is not None and done - told >= LINE_SHARE * total and now - told_at >= LINE_LEAST_S
        if advanced or now - told_at >= LINE_MOST_S:
            _line(label, done, total, now - start)
            told, told_at = done, now
    if told != done:
        _line(label, done, total, time.monotonic() - start)


def _line(label: str, done: int, total: int | None, seconds: float) -> None:
    count = f"{done}/{total} ({done / total:.0%})" if total else str(done)
    print(f"{label}: {count}, {seconds:.0f} s", file=sys.stderr, flush=True)
