"""The folder on the phone that a run works in: pushed once, emptied between runs, removed at the end."""

import contextlib
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType

from mobile_avatar.benchmarking.adb import Phone, TimedOut
from mobile_avatar.errors import CheckFailed, MobileAvatarError

PARENT = "/data/local/tmp"
"""The only place of a phone without root where programs may be put and started."""
MOST_BYTES = 512 << 20
MOST_FILES = 5000
HASHES = {"sha256sum": hashlib.sha256, "md5sum": hashlib.md5}
"""Programs that phones have, the better first."""
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,199}")
"""Names of files that are taken from a phone."""


class WorkFolder:
    """`/data/local/tmp/mobile-avatar-...`, as a context: it is there inside of it and removed afterwards.

    Args:
        phone: where.
        name: last part of the folder's name.
    """

    def __init__(self, phone: Phone, name: str) -> None:
        self._phone = phone
        self.path = f"{PARENT}/mobile-avatar-{name}"
        self._quoted = shlex.quote(self.path)

    def __enter__(self) -> "WorkFolder":
        self._check(*self._phone.shell(f"mkdir -p {self._quoted}"), "making the folder")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # Where the phone no longer answers the folder stays; the next run takes it over and removes it.
        if not self._phone.answers():
            return
        with contextlib.suppress(MobileAvatarError):
            self._stop()
            self._phone.shell(f"rm -rf {self._quoted}")

    def put(self, files: Mapping[str, Path], programs: Sequence[str] = ()) -> int:
        """Push what is not there already with the same content; returns how many files that were.

        Args:
            files: name in the folder -> file here.
            programs: names to be made executable.

        Raises:
            CheckFailed: the phone is full or refuses, or a file arrived damaged.
            PhoneLost: it went away.
        """
        missing = self._differing(files)
        for name in missing:
            self._phone.push(files[name], f"{self.path}/{name}")
        if missing and (damaged := self._differing({name: files[name] for name in missing}, unknown=False)):
            raise CheckFailed(f"{', '.join(damaged)} arrived damaged on the phone; is its storage full or failing?")
        if programs:
            names = " ".join(map(shlex.quote, programs))
            self._check(*self._phone.shell(f"cd {self._quoted} && chmod 755 {names}"), "making programs executable")
        return len(missing)

    def empty(self, name: str) -> None:
        """Make a folder inside, or empty it."""
        inner = shlex.quote(name)
        script = f"cd {self._quoted} && rm -rf {inner} && mkdir {inner}"
        self._check(*self._phone.shell(script), "emptying the folder of outputs")

    def run(self, lines: Sequence[str], timeout: float) -> tuple[int, str]:
        """Run lines in the folder, stopping at the first that fails; exit code and all that was printed."""
        # The process group is noted, so that a program that hangs can be ended from outside.
        script = "\n".join([f"cd {self._quoted} && echo $$ > .running || exit 1", "(", "set -e", *lines, ")"])
        try:
            return self._phone.shell(f"{script}\ncode=$?\nrm -f .running\nexit $code", timeout)
        except TimedOut:
            self._stop()
            raise

    def fetch(self, name: str, target: Path) -> None:
        """Copy the folder `name` into `target`; sizes and names are looked at first.

        Raises:
            CheckFailed: too many files, too large, or names that no tool gives.
        """
        sizes = self._sizes(name)
        if len(sizes) > MOST_FILES or sum(sizes.values()) > MOST_BYTES:
            total = sum(sizes.values()) >> 20
            raise CheckFailed(
                f"the outputs on the phone ({len(sizes)} files, {total} MB) exceed what is taken from it "
                f"({MOST_FILES} files, {MOST_BYTES >> 20} MB)"
            )
        groups: dict[PurePosixPath, list[PurePosixPath]] = {}
        for path in sizes:
            groups.setdefault(path.parent, []).append(path)
        for parent, paths in groups.items():
            local = target.joinpath(*parent.parts)
            local.mkdir(parents=True, exist_ok=True)
            remote = [f"{self.path}/{name}/{path}" for path in paths]
            self._phone.pull(remote, local, sum(sizes[path] for path in paths))
            for path in paths:
                arrived = target.joinpath(*path.parts)
                if not arrived.is_file() or arrived.stat().st_size != sizes[path]:
                    raise CheckFailed(f"{path} did not arrive whole from the phone")

    def _sizes(self, name: str) -> dict[PurePosixPath, int]:
        """Path below the folder `name` -> bytes, of every plain file in it."""
        script = f"cd {self._quoted}/{shlex.quote(name)} && find . -type f -exec stat -c '%s %n' {{}} +"
        code, text = self._phone.shell(script)
        self._check(code, text, "listing the outputs")
        sizes = {}
        for line in text.splitlines():
            size, _, path = line.partition(" ./")
            parts = path.split("/")
            if not size.isdigit() or not all(PLAIN.fullmatch(part) for part in parts):
                raise CheckFailed(f"the phone lists {line[:80]!r} among the outputs, which no tool writes")
            sizes[PurePosixPath(path)] = int(size)
        return sizes

    def _differing(self, files: Mapping[str, Path], unknown: bool = True) -> list[str]:
        """Names of `files` that are not in the folder as they are here; all, if `unknown`, where it cannot be told."""
        names = " ".join(map(shlex.quote, files))
        for program, method in HASHES.items():
            script = f"command -v {program} > /dev/null && cd {self._quoted} && {program} {names}"
            text = self._phone.shell(script)[1]
            found = {name: digest for digest, name in re.findall(r"^([0-9a-f]{32,64}) [ *](.*)$", text, re.MULTILINE)}
            if found or "No such file" in text:
                return [name for name, path in files.items() if found.get(name) != _digest(path, method)]
        return list(files) if unknown else []

    def _stop(self) -> None:
        """End what is still running in the folder."""
        script = (
            f"cd {self._quoted} && [ -f .running ] && kill -9 -$(cat .running); rm -f {self._quoted}/.running; true"
        )
        with contextlib.suppress(MobileAvatarError):
            self._phone.shell(script)

    def _check(self, code: int, text: str, doing: str) -> None:
        if code:
            last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), f"exit code {code}")
            hint = "; free some of its storage" if "No space left" in text else ""
            raise CheckFailed(f"{doing} on the phone failed: {last[:200]}{hint}")


def _digest(path: Path, method: object) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, method).hexdigest()
