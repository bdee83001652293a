"""A scripted phone for tests: an `adb` program without a phone.

It is no Android. `adb push` and `adb pull` copy files of a folder, `adb shell` runs the very script in a shell of this
computer with that folder in place of /data/local/tmp, and `getprop`, `dumpsys` and `settings` print recorded outputs.
Device tools are scripts that print recorded outputs too. Faults can be ordered for any call.
"""

import json
import os
import shutil
import stat
import sys
from pathlib import Path

from tests.benchmarking import scripted_adb

RECORDED = Path(__file__).parent / "recorded"


class ScriptedPhone:
    """The folder of one phone; `path` holds its `adb`."""

    serial = "9B1AY1SCRIPT"

    def __init__(self, root: Path, shell: str = "sh") -> None:
        self.root = root
        self.path = root / "path"
        self.storage = root / "data" / "local" / "tmp"
        self.storage.mkdir(parents=True)
        (root / "shell").write_text(shell)
        self.path.mkdir()
        _program(self.path / "adb", f"#!{sys.executable} -SE\n{Path(scripted_adb.__file__).read_text()}")
        (root / "bin").mkdir()
        for name in ("getprop", "dumpsys", "settings"):
            words = {"getprop": "properties", "dumpsys": "$1", "settings": "$3"}[name]
            _program(root / "bin" / name, f'#!/bin/sh\ncat "$PHONE/answers/{words}" 2> /dev/null || echo null\n')
        (root / "answers").mkdir()
        for name, sample in (
            ("properties", "adb-getprop-android10.txt"),
            ("thermalservice", "adb-thermalservice-android10.txt"),
            ("battery", "adb-battery-android10.txt"),
        ):
            shutil.copy(RECORDED / sample, root / "answers" / name)
        self.answer("low_power", "0\n")
        self.answer("airplane_mode_on", "1\n")
        self.devices(f"{self.serial}\tdevice\n")
        self.fault()

    def run(self, arguments, timeout):
        """The phone as a transport of this process: the same answers, many times faster."""
        code, out, err = scripted_adb.answer(str(self.root), list(arguments))
        return code, out.decode(errors="replace"), err.decode(errors="replace")

    def answer(self, name: str, text: str) -> None:
        """What `dumpsys NAME`, `settings get global NAME` or `getprop` (name `properties`) prints."""
        (self.root / "answers" / name).write_text(text)

    def devices(self, lines: str) -> None:
        """What `adb devices` lists."""
        (self.root / "devices.txt").write_text(f"List of devices attached\n{lines}\n")

    def fault(self, *faults: dict) -> None:
        """Calls that hold the words `at` fail: after the first `after`, with `out`, `err` and `code`; `hang`, `kill`
        (of adb itself) and `gone` (from then on there is no phone) do what they say."""
        for path in self.root.glob("fault-*"):
            path.unlink()
        (self.root / "faults.json").write_text(json.dumps(faults))

    def calls(self, verb: str = "") -> list[list[str]]:
        """Every call so far, without `-s SERIAL`."""
        path = self.root / "calls.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        lines = [line[2:] if line[0] == "-s" else line for line in lines]
        return [line for line in lines if line[0].startswith(verb)]

    @property
    def left(self) -> list[str]:
        """Names in /data/local/tmp."""
        return sorted(os.listdir(self.storage))


def write_tool(path: Path, body: str) -> None:
    """A device tool: a shell script; `$PHONE` is the phone's folder on this computer."""
    _program(path, f"#!/bin/sh\n{body}")


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
