"""One phone, one bundle: what every call of a device tool needs, and the row that comes of it."""

import re
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from mobile_avatar.benchmarking.adb import Phone, TimedOut
from mobile_avatar.benchmarking.device_facts import STATUS, DeviceFacts, Heat, read_heat
from mobile_avatar.benchmarking.device_tools import FoundTool
from mobile_avatar.benchmarking.phone_failures import failure
from mobile_avatar.benchmarking.phone_folder import WorkFolder
from mobile_avatar.benchmarking.phone_outputs import Frames
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import Result, now
from mobile_avatar.benchmarking.store import Journal
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.benchmarking.tools.table import DeviceRun, Reading, Tool
from mobile_avatar.errors import CheckFailed

OUTPUT = "output"
CPU = "CPU"
CPU_NAMES = (CPU, "XNNPACK")
CPU_THREADS = 4
START_S, SLOWEST_RUN_S = 300.0, 2.0
"""A tool may take this long to start, and this long for every run."""
LIBRARIES = 'export LD_LIBRARY_PATH="$PWD:$LD_LIBRARY_PATH"'
SKELETONS = 'export ADSP_LIBRARY_PATH="$PWD;/vendor/lib/rfsa/adsp;/vendor/dsp/cdsp;/system/lib/rfsa/adsp;/dsp"'
"""Where the Hexagon processor looks for its half of a library."""


@dataclass
class Session:
    """One phone, one bundle."""

    subject: Subject
    settings: Settings
    journal: Journal
    phone: Phone
    facts: DeviceFacts
    folder: WorkFolder
    inputs: dict[str, Path]
    """Name on the phone -> raw file here, one per golden case."""
    heat: Heat = field(default_factory=Heat)
    """The last look at the sensors."""

    @property
    def model(self) -> str:
        """The model file's name on the phone; of the bundle's own name only the suffix is used."""
        suffix = self.subject.files["model"].suffix
        return f"model{suffix if re.fullmatch(r'[.][a-z0-9]+', suffix) else ''}"

    @property
    def files(self) -> dict[str, Path]:
        """What every tool needs on the phone: name there -> file here."""
        return {self.model: self.subject.files["model"], **self.inputs}

    def look(self) -> Heat:
        """Read the sensors."""
        self.heat = read_heat(self.phone, self.heat)
        return self.heat

    def row(self, tool: Tool, delegate: str) -> Result:
        """A row with everything that is known before the run."""
        heat = self.look()
        notes = [f"temperatures are those of the {heat.sensor}" if heat.sensor else "the phone tells no temperature"]
        if heat.throttling in STATUS[1:]:
            notes.append(f"the phone was throttling before the run began ({heat.throttling}); let it cool down")
        left_out = "the draw call" if self.subject.name else "composing the image"
        return Result(
            kind="measured",
            place="adb",
            device=self.facts.name,
            runtime=tool.runtime,
            precision=self.subject.precision,
            taken=now(),
            model_sha256=self.subject.model_sha256,
            soc=self.facts.soc,
            os=self.facts.os,
            delegate=delegate,
            graph=self.subject.name,
            power_mode=self.facts.power_mode,
            temperature_before_c=heat.temperature_c,
            thermal_before=heat.throttling,
            method=f"{tool.name} ran on the phone and timed the model file; {left_out} is not in it",
            notes=(*notes, *self.facts.notes),
        )

    def call(self, found: FoundTool, delegate: str, runs: int, details: bool = True) -> tuple[Reading, Frames, str]:
        """Run a tool once: what it said, what it computed for the golden cases, and the command.

        Args:
            found: the tool.
            delegate: which of its compute units to ask for.
            runs: steady runs.
            details: False for the times alone.

        Raises:
            CheckFailed: it failed; the sentence says why.
            MissingTool: what it wrote can only be read by a program that is not here.
            PhoneLost: the phone went away.
        """
        tool = found.tool
        inputs = tuple(self.inputs)
        run = DeviceRun(self.model, delegate, self.threads, runs, self.subject.spec, inputs, OUTPUT, details)
        lines = tool.commands(run)
        self.folder.empty(OUTPUT)
        limit = START_S + runs * SLOWEST_RUN_S
        try:
            code, said = self.folder.run([LIBRARIES, SKELETONS, *lines], limit)
        except TimedOut as error:
            raise TimedOut(f"{tool.name} on {delegate} did not end within {limit:g} s and was stopped") from error
        if code:
            raise failure(tool.name, code, said, self.folder.path)
        with tempfile.TemporaryDirectory(prefix="mobile-avatar-") as place:
            local = Path(place)
            self.folder.fetch(OUTPUT, local)
            reading = tool.parse(run, said, local, found.host)
            if not (time_of(reading) or 0) > 0:
                raise CheckFailed(f"{tool.name} printed no time per run")
            frames = tool.read_outputs(run, local) if details else []
            return reading, frames, "; ".join(lines)

    @property
    def threads(self) -> int:
        """Of a run on the CPU."""
        return self.settings.threads or CPU_THREADS


@dataclass(frozen=True)
class Figure:
    """A row with numbers, and what it takes to measure it again."""

    found: FoundTool
    delegate: str
    """The compute unit that was asked for."""
    row: Result

    @property
    def wrong(self) -> bool:
        """Whether its outputs were found wrong."""
        return any(check["passed"] is False for check in self.row.parity)


def time_of(reading: Reading) -> float | None:
    """Steady ms per run: the median, or the mean where the tool gives no other."""
    return reading.mean_ms if reading.p50_ms is None else reading.p50_ms


def filled(row: Result, reading: Reading, delegate: str, command: str, threads: int) -> Result:
    """The row with what the tool said; the compute unit is the one that was found, not the one asked for."""
    found, notes = reading.delegate or delegate, [*row.notes, *reading.notes]
    if not reading.delegate:
        notes.append(f"the output does not tell what did the work; {delegate} was asked for")
    if reading.fallback:
        found = f"{CPU if found in CPU_NAMES else found} (fallback)"
        notes.append(f"asked for {delegate}: {reading.fallback}")
    names = ("load_ms", "first_ms", "warmup_ms", "warmup_runs", "runs", "memory_mb", "memory_what", "operators")
    names += ("mean_ms", "p50_ms", "p90_ms", "p99_ms")
    return replace(
        row,
        **{name: getattr(reading, name) for name in names},
        delegate=found,
        # Not every tool can be told how many.
        threads=threads if delegate == CPU and "threads" in command else None,
        runtime_version=reading.version,
        command=command,
        notes=tuple(notes),
    )
