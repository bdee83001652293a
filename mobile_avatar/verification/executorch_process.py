"""ExecuTorch's runtime in a process of its own: it ends the whole process when a .pte file is damaged inside.

A `Worker` is a child that opens one file, ends with its parent and can be killed at any time.
"""

import contextlib
import os
import subprocess
import sys
import threading
import weakref
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from mobile_avatar.errors import CheckFailed, first_line

TIMEOUT_S = 300
FLOAT = 6  # torch's ScalarType of float32


class Worker:
    """A child process with one opened .pte file; `ask` calls one of its functions (see _COMMANDS)."""

    def __init__(self) -> None:
        self._pipe, child = Pipe()
        paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        with TemporaryFile() as log:  # the runtime prints, and nobody reads it
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mobile_avatar.verification.executorch_process", str(child.fileno())],
                stdin=subprocess.PIPE,  # never written to: its end tells the child that the parent is gone
                stdout=log,
                stderr=log,
                pass_fds=[child.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )
        child.close()
        self.close = weakref.finalize(self, _end, self._process, self._pipe)

    def ask(self, command: str, *arguments: object) -> object:
        """Run `command` in the child and return its result.

        Raises:
            CheckFailed: the runtime refused, ended its process or took longer than TIMEOUT_S.
        """
        try:
            self._pipe.send((command, arguments))
            answered = self._pipe.poll(TIMEOUT_S)
            kind, value = self._pipe.recv() if answered else (None, None)
        except (EOFError, OSError):
            raise CheckFailed(f"ExecuTorch ended with exit code {self._process.wait()}") from None
        except BaseException:
            self.close()  # an interrupted request would answer the next one
            raise
        if not answered:
            self.close()
            raise CheckFailed(f"ExecuTorch did not finish within {TIMEOUT_S} s")
        if kind != "result":
            raise CheckFailed(value)
        return value


def _end(process: subprocess.Popen, pipe: Connection) -> None:
    process.kill()
    process.wait()
    process.stdin.close()
    pipe.close()


# ---- everything below runs in the child ----

_opened: list[object] = []
"""The program and its method; a method does not keep its program alive."""


def open_program(content: bytes) -> tuple[object, object]:
    """A program of ExecuTorch's runtime on one thread, and its method `forward`; keep both.

    It ends the process when the file is damaged inside: only files that are known to be good may be opened in the
    calling process, which benchmarks do.
    """
    import executorch.extension.pybindings.portable_lib as library
    from executorch.runtime import Runtime

    library._unsafe_reset_threadpool(1)  # the only way there is; by default it takes every core
    program = Runtime.get().load_program(content)
    return program, program.load_method("forward")


def load(content: bytes, facts: str) -> dict:
    """Open a .pte file on one thread: `inputs` and `outputs` as (shape, dtype), and what the method `facts` returns."""
    import executorch.extension.pybindings.portable_lib as library

    program, method = _opened[:] = open_program(content)
    meta = method.metadata
    return {
        "inputs": [_tensor(meta.input_tensor_meta(i)) for i in range(meta.num_inputs())],
        "outputs": [_tensor(meta.output_tensor_meta(i)) for i in range(meta.num_outputs())],
        "threads": library._threadpool_get_thread_count(),
        "facts": program.load_method(facts).execute([])[0] if facts in program.method_names else "",
    }


def run(keypoints: np.ndarray) -> list[np.ndarray]:
    """Execute the opened file: float32 (1, 136) to its outputs in order."""
    import torch

    return [output.numpy() for output in _opened[1].execute([torch.from_numpy(keypoints)])]


_COMMANDS = {f.__name__: f for f in (load, run)}


def _tensor(info: object) -> tuple[tuple[int, ...], str]:
    return tuple(info.sizes()), "float32" if info.dtype() == FLOAT else f"scalar type {info.dtype()}"


def _serve(pipe: Connection) -> None:
    while True:
        command, arguments = pipe.recv()
        try:
            pipe.send(("result", _COMMANDS[command](*arguments)))
        except Exception as error:  # whatever the runtime raises becomes one sentence
            pipe.send(("failed", first_line(error)))


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError):
        _serve(Connection(int(sys.argv[1])))
    os._exit(0)
