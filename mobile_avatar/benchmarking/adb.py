"""An Android phone behind the `adb` program: commands, files, and every failure as one sentence."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from mobile_avatar.errors import BadInput, CheckFailed, MissingTool, MobileAvatarError

MOST_OUTPUT = 16 << 20
"""Bytes a command may print; a tool of this size of output has gone wrong."""
ANSWER_S = 30.0
"""How long a small command may take."""
SLOWEST_BYTES_S = 500_000
"""Files are waited for as if the cable carried no more than this."""
DONE = "mobile-avatar-done"


class PhoneLost(MissingTool):
    """The phone, or adb itself, went away in the middle: nothing more can be measured."""


class TimedOut(CheckFailed):
    """A command did not end in time; the phone itself may still answer."""


class Transport(Protocol):
    """How adb is called."""

    def run(self, arguments: Sequence[str], timeout: float) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `adb ARGUMENTS`.

        Raises TimedOut after `timeout` seconds, MissingTool where adb cannot be started."""


class AdbProgram:
    """The installed `adb`."""

    def __init__(self) -> None:
        self._path = shutil.which("adb")
        if self._path is None:
            raise MissingTool(
                "adb is not installed; install Android's platform tools (Debian: `apt install adb`) and connect a phone"
            )

    def run(self, arguments: Sequence[str], timeout: float) -> tuple[int, str, str]:
        # Files instead of pipes: adb leaves a server behind, which would keep a pipe open.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                process = subprocess.Popen([self._path, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            except OSError as error:
                raise MissingTool(f"{self._path} cannot be started ({error.strerror}); install adb again") from error
            try:
                _wait(process, _verb(arguments), timeout, (out, err))
            finally:
                process.kill()
                process.wait()
            return process.returncode, _text(out), _text(err)


def _wait(process: subprocess.Popen, verb: str, timeout: float, files: Sequence[IO[bytes]]) -> None:
    end = time.monotonic() + timeout
    while True:
        try:
            process.wait(max(0.0, min(0.5, end - time.monotonic())))
            return
        except subprocess.TimeoutExpired:
            if time.monotonic() >= end:
                raise TimedOut(f"`adb {verb}` did not finish within {timeout:g} s; is the phone awake?") from None
            if max(os.fstat(file.fileno()).st_size for file in files) > MOST_OUTPUT:
                raise CheckFailed(f"`adb {verb}` printed more than {MOST_OUTPUT >> 20} MB and was ended") from None


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MOST_OUTPUT).decode(errors="replace").replace("\r\n", "\n")


def _verb(arguments: Sequence[str]) -> str:
    return arguments[2] if arguments[0] == "-s" else arguments[0]


AWAY = "the phone {serial} went away during `adb {verb}` ({said}); check the cable, and that `adb devices` lists it"
FAILURES: tuple[tuple[str, type[MobileAvatarError], str], ...] = (
    (
        r"device (still )?unauthorized",
        PhoneLost,
        "the phone {serial} has not allowed this computer; unlock it and confirm 'Allow USB debugging'",
    ),
    (
        r"no permissions|insufficient permissions",
        PhoneLost,
        "this user may not open the USB device {serial}; add its udev rules "
        "(Debian: `apt install android-sdk-platform-tools-common`), join the group plugdev and connect it again",
    ),
    (r"device (still )?(authorizing|connecting)", PhoneLost, "the phone {serial} is still connecting; try again"),
    (r"device offline", PhoneLost, "the phone {serial} is offline; connect it again, or run `adb reconnect offline`"),
    (r"device '.*' not found|no devices|device not found|error: closed|protocol fault", PhoneLost, AWAY),
    (r"[Cc]onnection reset|read copy response|couldn't read from device|[Bb]roken pipe", PhoneLost, AWAY),
    (r"cannot connect to daemon|server version|failed to start daemon", PhoneLost, "adb's server failed: {said}"),
    (r"No space left on device", CheckFailed, "the phone {serial} is full ({said}); free some of its storage"),
    (r"Read-only file system|Permission denied|Operation not permitted", CheckFailed, "{serial} refused: {said}"),
)
"""What adb says (the first pattern that fits) -> the error and its sentence."""


def complaint(said: str, serial: str, verb: str) -> MobileAvatarError:
    """The error for what adb, or a command on the phone, said."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # adb's own line, where there is one; else the last, which says how it ended.
    line = next((line for line in lines if re.search(r"error:|^adb: ", line)), lines[-1] if lines else "no message")
    short = line[:200]
    for pattern, kind, sentence in FAILURES:
        if re.search(pattern, said):
            return kind(sentence.format(serial=serial, verb=verb, said=short))
    return CheckFailed(f"`adb {verb}` failed: {short}")


@dataclass(frozen=True)
class Phone:
    """One phone that was found ready."""

    transport: Transport
    serial: str

    def shell(self, script: str, timeout: float = ANSWER_S) -> tuple[int, str]:
        """Run shell lines on the phone; exit code and everything printed, stderr included.

        Raises:
            PhoneLost: the connection ended before the script did.
            TimedOut: it did not end in time.
        """
        # The last line proves that the script came to its end; adb's exit code does not: 0 when a phone goes away.
        wrapped = f"(\n{script}\n) 2>&1 < /dev/null\ncode=$?\necho\necho {DONE} $code"
        code, out, err = self._run("shell", [wrapped], timeout)
        text, mark, status = out.rpartition(f"\n{DONE} ")
        if not mark or not status.strip().isdigit():
            error = complaint(err, self.serial, "shell")
            if isinstance(error, PhoneLost):
                raise error
            raise PhoneLost(AWAY.format(serial=self.serial, verb="shell", said=f"no answer, exit code {code}"))
        return int(status), text

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the phone; CheckFailed when it is full or refuses, PhoneLost when it went away."""
        size = local.stat().st_size
        self._copy("push", [str(local.resolve()), remote], size)

    def pull(self, remote: Sequence[str], folder: Path, size: int) -> None:
        """Copy files of `size` bytes in all into a folder here, under their own last names."""
        self._copy("pull", [*remote, str(folder.resolve())], size)

    def answers(self) -> bool:
        """Whether the phone still answers."""
        try:
            return self.shell("true", timeout=5.0)[0] == 0
        except MobileAvatarError:
            return False

    def _copy(self, verb: str, arguments: list[str], size: int) -> None:
        code, out, err = self._run(verb, arguments, ANSWER_S + size / SLOWEST_BYTES_S)
        # Some versions print errors of the far side on stdout.
        if code:
            raise complaint(f"{err}\n{out}", self.serial, verb)

    def _run(self, verb: str, arguments: list[str], timeout: float) -> tuple[int, str, str]:
        code, out, err = self.transport.run(["-s", self.serial, verb, *arguments], timeout)
        if code < 0:
            raise PhoneLost(
                f"adb was ended by signal {-code} during `adb {verb}`; what was measured until then is kept"
            )
        return code, out, err


def connect(transport: Transport, serial: str | None = None) -> Phone:
    """The phone called `serial` (also ANDROID_SERIAL), or the only one that is ready.

    Raises:
        BadInput: several are ready and none was named, or there is none of that name.
        MissingTool: there is no phone, or it is not ready (unauthorised, offline, ...).
    """
    serial = serial or os.environ.get("ANDROID_SERIAL") or None
    code, out, err = transport.run(["devices"], ANSWER_S)
    if code:
        raise complaint(f"{err}\n{out}", serial or "", "devices")
    states = parse_devices(out)
    if not states:
        raise MissingTool(
            "no phone is connected; connect one by USB with USB debugging switched on, until `adb devices` lists it"
        )
    listed = ", ".join(f"{name} ({state})" for name, state in states.items())
    if serial is not None and serial not in states:
        raise BadInput(f"there is no phone {serial!r}; connected: {listed}")
    ready = [name for name, state in states.items() if state == "device"]
    if serial is None and len(ready) > 1:
        raise BadInput(f"several phones are connected, choose one with --serial: {listed}")
    chosen = serial or next(iter(ready or states))
    state = states[chosen]
    if state != "device":
        error = complaint(f"device {state}", chosen, "devices")
        if not isinstance(error, MissingTool):
            error = MissingTool(f"the phone {chosen} is in state {state!r}; start Android on it")
        raise error
    return Phone(transport, chosen)


def parse_devices(text: str) -> dict[str, str]:
    """Serial -> state of every line of `adb devices`."""
    states = {}
    for line in text.partition("List of devices attached")[2].splitlines():
        name, _, state = line.partition("\t")
        if name.strip() and state.strip():
            states[name.strip()] = state.strip()
    return states
