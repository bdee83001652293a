"""Independent jobs on several processes; one that crashes takes only its own job with it."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def usable_cores() -> int:
    """The cores this process may use, which under a job scheduler are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_jobs(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Iterator[tuple[Job, Result | None]]:
    """Yield every job with its result, in the order in which they finish; None where the process died.

    `concurrent.futures` gives up all jobs when one process dies, and does not say which job it was.

    Args:
        function: from the top level of a module; an exception in it counts as the death of its process.
        jobs: anything that can be pickled.
        workers: processes; 1 runs everything in this one, where exceptions pass through.
    """
    waiting = list(jobs)[::-1]
    if workers == 1 or len(waiting) < 2:
        while waiting:
            job = waiting.pop()
            yield job, function(job)
        return
    busy: dict[Connection, tuple[multiprocessing.process.BaseProcess, Job]] = {}
    try:
        for _ in range(min(workers, len(waiting))):
            _start(function, waiting.pop(), busy)
        while busy:
            for pipe in wait(list(busy)):
                process, job = busy.pop(pipe)
                try:
                    result = pipe.recv()
                except (EOFError, OSError):
                    result = None
                    pipe.close()
                    process.join()
                    if waiting:
                        _start(function, waiting.pop(), busy)
                else:
                    if waiting:
                        following = waiting.pop()
                        pipe.send(following)
                        busy[pipe] = process, following
                    else:
                        pipe.close()
                        process.join()
                yield job, result
    finally:
        for process, _ in busy.values():
            process.terminate()
        for process, _ in busy.values():
            process.join()


def _start(function: Callable, job: object, busy: dict) -> None:
    # A fork would copy the locks of threads that LiteRT, OpenCV and torch have running.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, theirs), daemon=True)
    process.start()
    theirs.close()
    ours.send(job)
    busy[ours] = process, job


def _serve(function: Callable, pipe: Connection) -> None:
    """Work until the other end closes the pipe, which also happens when its process is killed."""
    # Ctrl-C reaches the whole group; the parent ends this process when it is done with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send(function(pipe.recv()))
