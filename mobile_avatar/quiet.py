"""Keeping C++ libraries from writing to the terminal."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing that happens inside reaches standard output or error, not even from C++.

    Redirection happens at the file descriptors. `sys.stdout` and `sys.stderr` stay the same objects, so loggers that
    are made meanwhile keep a stream that lives on.
    """
    _flush()
    with tempfile.TemporaryFile() as log:
        saved = []
        try:
            for number in (1, 2):
                with contextlib.suppress(OSError):  # closed, as in a background service
                    saved.append((number, os.dup(number)))
            for number, _ in saved:
                os.dup2(log.fileno(), number)
            yield
        finally:
            _flush()
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, AttributeError):
            stream.flush()
