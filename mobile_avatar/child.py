"""A child process that answers calls over a pipe: for libraries that print, crash or end the process they live in.

The parent makes a `Child` of a module; that module ends with `serve(...)` and its table of functions. A child ends with
its parent and can be killed at any time.
"""

import contextlib
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO, NoReturn

from mobile_avatar.errors import CheckFailed, MissingTool


class Child:
    """`python -m MODULE` with a pipe; `ask` calls one of the functions that the module serves.

    Args:
        module: name of the module to run.
        subject: whose fault it is when the child fails, as in "ExecuTorch".
        log: where the child's output goes; the file may be closed afterwards.
        folder: its working directory; None for the parent's.
        clean_up: called when the child has ended.
    """

    timeout_s = 600
    """How long an answer may take."""

    def __init__(
        self,
        module: str,
        subject: str,
        log: IO[bytes],
        folder: str | None = None,
        clean_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._subject = subject
        self._pipe, child = Pipe()
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            # -P: modules of the working directory stay out.
            [sys.executable, "-P", "-m", module, str(child.fileno())],
            stdin=subprocess.PIPE,  # never written to: its end tells the child that the parent is gone
            stdout=log,
            stderr=log,
            pass_fds=[child.fileno()],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        child.close()
        # Ends the process; also called when nobody holds this object any more.
        self.close = weakref.finalize(self, _end, self._process, self._pipe, clean_up)

    def ask(self, command: str, *arguments: object) -> object:
        """Run `command` in the child and return its result.

        Raises:
            CheckFailed: the library refused, ended its process or took longer than `timeout_s`.
            MissingTool: the installed version lacks what the command needs.
        """
        try:
            self._pipe.send((command, arguments))
            answered = self._pipe.poll(self.timeout_s)
            kind, value = self._pipe.recv() if answered else (None, None)
        except (EOFError, OSError):
            code = self._process.wait()
            last = self.last_words() or f"exit code {code}"
            raise CheckFailed(f"{self._subject} stopped during '{command}': {last}") from None
        except BaseException:
            self.close()  # an interrupted request would answer the next one
            raise
        if not answered:
            self.close()
            raise CheckFailed(f"{self._subject} did not finish '{command}' within {self.timeout_s} s")
        if kind != "result":
            raise (MissingTool if kind == "missing" else CheckFailed)(value)
        return value

    def last_words(self) -> str:
        """What the child printed last, where its output is kept; empty otherwise."""
        return ""


def _end(process: subprocess.Popen, pipe: Connection, clean_up: Callable[[], None]) -> None:
    process.kill()
    process.wait()
    process.stdin.close()
    pipe.close()
    clean_up()


def serve(commands: dict[str, Callable], refusal: Callable[[str, Exception], str]) -> NoReturn:
    """The child's side: answer calls until the parent is gone, then end without Python's own clean-up.

    Args:
        commands: functions by name.
        refusal: (command, exception) -> the sentence for whatever a third-party library raised.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError):
        while True:
            command, arguments = pipe.recv()
            try:
                answer = "result", commands[command](*arguments)
            except MissingTool as error:
                answer = "missing", str(error)
            except Exception as error:  # everything that a third-party library may raise becomes one sentence
                answer = "failed", refusal(command, error)
            pipe.send(answer)
    os._exit(0)  # some libraries do not survive Python's own clean-up


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)
