"""Progress of long work: a bar on a terminal, plain lines in a log."""

import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

# In a log: a line per tenth, but not more often than once a second; of slow work at least every ten seconds.
LINE_SHARE, LINE_LEAST_S, LINE_MOST_S = 0.1, 1.0, 10.0


def progress(
    iterable: Iterable[Item], total: int | None, label: str, enabled: bool = True, start: int = 0, samples: int = 0
) -> Iterator[Item]:
    """Pass the items on and say on stderr how far the work is; stdout stays free for results.

    Args:
        iterable: the work, one item a step.
        total: number of items, or None when unknown (a video stream).
        label: what is being done, as "rendering".
        enabled: False makes it silent.
        start: how many of `total` were done before; the items are the rest.
        samples: what an item counts as in samples per second; 0 says nothing about them.
    """
    if not enabled:
        yield from iterable
    elif sys.stderr.isatty():
        from tqdm import tqdm

        # Asked here, because tqdm shows nothing on a terminal that does not know its size (a container's).
        width, height = shutil.get_terminal_size()
        bar = tqdm(iterable, label, total, file=sys.stderr, ncols=min(100, width), nrows=height, initial=start)
        begin = time.monotonic()
        for done, item in enumerate(bar, start=1):
            yield item
            if samples:
                bar.set_postfix_str(_speed(done * samples, time.monotonic() - begin), refresh=False)
    else:
        yield from _plain(iterable, total, label, start, samples)


def _plain(iterable: Iterable[Item], total: int | None, label: str, before: int, samples: int) -> Iterator[Item]:
    start = told_at = time.monotonic()
    done = told = before
    for done, item in enumerate(iterable, start=before + 1):
        yield item
        now = time.monotonic()
        advanced = total is not None and done - told >= LINE_SHARE * total and now - told_at >= LINE_LEAST_S
        if advanced or now - told_at >= LINE_MOST_S:
            _line(label, done, total, now - start, done - before, samples)
            told, told_at = done, now
    if told != done:
        _line(label, done, total, time.monotonic() - start, done - before, samples)


def _line(label: str, done: int, total: int | None, seconds: float, now: int, samples: int) -> None:
    """`now` of the `done` items were done in these `seconds`."""
    parts = [f"{done}/{total} ({done / total:.0%})" if total else str(done), f"{seconds:.0f} s"]
    if samples:
        parts.append(_speed(now * samples, seconds))
    if total and done < total:
        parts.append(f"{_clock(seconds * (total - done) / now)} left")
    print(f"{label}: {', '.join(parts)}", file=sys.stderr, flush=True)


def _speed(samples: int, seconds: float) -> str:
    return f"{samples / max(seconds, 1e-9):.1f} samples/s"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
