"""What whole sessions are tested with: a bundle, a scripted phone, and a device tool.

The tool, `frame_timer`, is made up, so that every answer can be ordered.
"""

import json
import re
from pathlib import Path

import numpy as np

from mobile_avatar.benchmarking.adb import AdbProgram
from mobile_avatar.benchmarking.phone import measure
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import Result
from mobile_avatar.benchmarking.store import Journal
from mobile_avatar.benchmarking.subject import open_subject
from mobile_avatar.benchmarking.tools.table import Reading, Tool
from mobile_avatar.errors import CheckFailed, MissingTool
from tests.benchmarking.scripted_phone import ScriptedPhone, write_tool
from tests.benchmarking.small_bundle import CASES, small_bundle

BODY = """
echo "$@" >> "$PHONE/tool-calls"
if [ -f "$PHONE/tool/$1.sh" ]; then . "$PHONE/tool/$1.sh"; fi
cat "$PHONE/tool/$1.txt"
if [ "$4" = True ]; then cp "$PHONE/tool/$1/"*.raw "$3/"; fi
"""


def _commands(run):
    return (f"./frame_timer {run.delegate} {run.runs} {run.output} {run.details} {run.threads} {' '.join(run.inputs)}",)


def _parse(run, text, output, host):
    if "binary log" in text:
        raise MissingTool("the viewer is not on this computer")
    found = dict(re.findall(r"(\w+)=(\S+)", text))
    if not found:
        raise CheckFailed(f"frame_timer printed no figures: {text[:40]!r}")
    times = {f"{name}_ms": float(found[name]) for name in ("mean", "p50", "load", "first") if name in found}
    fallback = "half of it ran elsewhere" if "fallback" in found else ""
    return Reading(**times, runs=run.runs, delegate=found.get("unit", ""), fallback=fallback, version="1.0")


def _read_outputs(run, output):
    if not (output / "uv_0.raw").exists():
        return []
    read = {t.name: (t.shape, np.dtype(t.dtype)) for t in run.spec.outputs}
    try:
        return [
            {name: np.fromfile(output / f"{name}_{i}.raw", kind).reshape(shape) for name, (shape, kind) in read.items()}
            for i in range(len(run.inputs))
        ]
    except (OSError, ValueError) as error:
        raise CheckFailed("frame_timer wrote outputs of another size") from error


def tool(name: str = "frame_timer", **changes) -> Tool:
    values = {
        "name": name,
        "runtime": "timer",
        "targets": ("snpe",),
        "delegates": ("GPU", "DSP", "CPU"),
        "programs": ("frame_timer",),
        "libraries": ("libtimer*.so",),
        "host_programs": (),
        "commands": _commands,
        "parse": _parse,
        "read_outputs": _read_outputs,
    }
    return Tool(**{**values, **changes})


class Bench:
    """A bundle, a scripted phone and a made-up tool; answers can be changed before `measure`."""

    def __init__(self, root: Path, integers=None, precision="fp16") -> None:
        folder, self.spec, self.golden = small_bundle(root / "bundle", precision=precision, integers=integers)
        self.subject = open_subject(folder)
        self.phone = ScriptedPhone(root / "phone")
        self.tools = root / "tools"
        self.tools.mkdir()
        write_tool(self.tools / "frame_timer", BODY)
        (self.tools / "libtimer.so").write_bytes(b"library")
        (self.phone.root / "tool").mkdir()
        for number, unit in enumerate(("CPU", "GPU", "DSP")):
            self.answers(
                unit, f"unit={unit} mean={(30, 10, 12)[number]} p50={(29, 9.5, 11.5)[number]} load=200 first=50"
            )
            # Rounding of an accelerator: different bits, 60 dB and more.
            self.outputs(unit, {name: array + number * 2**-12 for name, array in self.golden.items()})
        self.said: list[str] = []

    def answers(self, unit: str, text: str, script: str = "") -> None:
        (self.phone.root / "tool" / f"{unit}.txt").write_text(f"{text}\n")
        (self.phone.root / "tool" / f"{unit}.sh").write_text(f"{script}\n")

    def outputs(self, unit: str, arrays: dict[str, np.ndarray]) -> None:
        folder = self.phone.root / "tool" / unit
        folder.mkdir(exist_ok=True)
        for tensor in self.spec.outputs:
            for case in range(CASES):
                tensor.store(arrays[tensor.name][case]).tofile(folder / f"{tensor.name}_{case}.raw")

    def measure(self, *tools: Tool, transport=None, **settings) -> list[Result]:
        """Rows by the journal; they are on disk, too, whatever happens."""
        self.journal = Journal(self.subject, "adb")
        chosen = Settings(tools=self.tools, say=self.said.append, **settings)
        table = {item.name: item for item in tools or (tool(),)}
        try:
            measure(self.subject, chosen, self.journal, transport or self.phone, table)
        finally:
            if self.journal.path is not None:
                kept = json.loads(self.journal.path.read_text())["results"]
                assert kept == json.loads(json.dumps([row.to_dict() for row in self.journal.results]))
        return self.journal.results


class ToolsByProgram:
    """The scripted phone, with a real process called adb for the calls that start a tool."""

    def __init__(self, bench: Bench, monkeypatch) -> None:
        monkeypatch.setenv("PATH", f"{bench.phone.path}:/usr/bin:/bin")
        self._ways = {True: AdbProgram(), False: bench.phone}

    def run(self, arguments, timeout):
        return self._ways["./frame_timer" in arguments[-1]].run(arguments, timeout)
