"""ExecuTorch's runtime in a process of its own: it ends the whole process when a .pte file is damaged inside."""

from tempfile import TemporaryFile

import numpy as np

from mobile_avatar.child import Child, serve
from mobile_avatar.errors import first_line

FLOAT = 6  # torch's ScalarType of float32


class Worker(Child):
    """A child process for one .pte file; see _COMMANDS."""

    timeout_s = 300

    def __init__(self) -> None:
        with TemporaryFile() as log:  # the runtime prints, and nobody reads it
            super().__init__("mobile_avatar.verification.executorch_process", "ExecuTorch", log)


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


def run(values: np.ndarray) -> list[np.ndarray]:
    """Execute the opened file: its one input, float32, to its outputs in order."""
    import torch

    return [output.numpy() for output in _opened[1].execute([torch.from_numpy(values)])]


_COMMANDS = {f.__name__: f for f in (load, run)}


def _tensor(info: object) -> tuple[tuple[int, ...], str]:
    return tuple(info.sizes()), "float32" if info.dtype() == FLOAT else f"scalar type {info.dtype()}"


if __name__ == "__main__":
    serve(_COMMANDS, lambda command, error: first_line(error))
