"""Rows of this host while they are being measured, timed in turns in one process."""

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mobile_avatar.benchmarking.host_facts import power_mode, processor, resident_mb, temperature_c
from mobile_avatar.benchmarking.host_runtimes import Outputs, Run, Runtime
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import Minute, Result, steady
from mobile_avatar.benchmarking.store import Journal
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.errors import CheckFailed, MissingTool, MobileAvatarError, first_line

WARM_UP = 5
MOST_THREAD_ROWS = 4
RANDOM = "random numbers in the same structure: the avatar was not here (--avatar FILE)"
"""Note of rows that were not computed with the avatar's numbers, and what is said when they are made."""
NOT_HERE = "the avatar is not here (--avatar FILE): runtimes other than the bundle's get random numbers instead"


@dataclass
class Lane:
    """One row while it is being measured."""

    result: Result
    journal: Journal
    run: Run
    inputs: np.ndarray
    """(T, ...) float32: what `run` gets, one after another."""
    parity: Callable[["Lane"], tuple[dict, ...]]
    """Outputs beside the golden ones, asked for once at the end; empty where they cannot be compared."""
    compose: Callable[[Outputs], np.ndarray] | None = None
    """What belongs to the frame besides the graph."""
    graph_ms: list[float] = field(default_factory=list)
    compose_ms: list[float] = field(default_factory=list)
    failure: str = ""

    def frame(self, number: int) -> None:
        """Time one frame; a failure ends this row, not the run."""
        if self.failure:
            return
        values = self.inputs[number % len(self.inputs)][None]
        try:
            start = time.perf_counter()
            outputs = self.run(values)
            middle = time.perf_counter()
            if self.compose is not None:
                self.compose(outputs)
            end = time.perf_counter()
        except Exception as error:  # whatever a third-party runtime raises
            self.failure = f"{self.result.runtime} stopped: {first_line(error)}"
            return
        self.graph_ms.append((middle - start) * 1e3)
        self.compose_ms.append(0.0 if self.compose is None else (end - middle) * 1e3)

    def clear(self) -> None:
        """Forget what was timed."""
        self.graph_ms.clear()
        self.compose_ms.clear()

    @property
    def frame_ms(self) -> list[float]:
        return [graph + rest for graph, rest in zip(self.graph_ms, self.compose_ms, strict=True)]


@dataclass
class Sum:
    """A row that is timed by others: what their graphs took together, frame by frame, and a draw call beside."""

    result: Result
    journal: Journal
    parts: tuple[Lane, ...]
    draw: Lane | None = None

    @property
    def graph_ms(self) -> list[float]:
        # Not strict: an interruption leaves some parts one frame ahead of others.
        return [sum(times) for times in zip(*(part.graph_ms for part in self.parts), strict=False)]

    @property
    def compose_ms(self) -> list[float]:
        return [] if self.draw is None else self.draw.graph_ms

    @property
    def frame_ms(self) -> list[float]:
        if self.draw is None:
            return self.graph_ms
        return [graph + rest for graph, rest in zip(self.graph_ms, self.draw.graph_ms, strict=False)]

    @property
    def failure(self) -> str:
        return next((lane.failure for lane in (*self.parts, self.draw) if lane is not None and lane.failure), "")

    def parity(self, _: object) -> tuple[dict, ...]:
        """Those of its parts, which come before it in the journal."""
        return tuple(row for part in self.parts for row in part.result.parity)


@dataclass(frozen=True)
class Bench:
    """One bundle of a run."""

    subject: Subject
    settings: Settings
    journal: Journal
    taken: str
    """When the run began: the same for all rows that are timed in turns."""
    place: Path
    """An empty folder for files that are converted on the spot."""

    def row(self, **fields: object) -> Result:
        """A row with what is true of all rows of this host."""
        return Result(
            kind="measured",
            place="host",
            device="this host",
            taken=self.taken,
            model_sha256=self.subject.model_sha256,
            soc=processor(),
            os=f"{platform.system()} {platform.release()}",
            power_mode=power_mode(),
            **fields,
        )

    def thread_counts(self, runtime: Runtime) -> list[int]:
        """1 to n where the runtime has threads; of many cores the powers of two and n."""
        most = (self.settings.threads or os.cpu_count() or 1) if runtime.threaded else 1
        if most <= MOST_THREAD_ROWS:
            return list(range(1, most + 1))
        return sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})


@dataclass(frozen=True)
class Side:
    """The rows that one bundle can have."""

    rows: Callable[[str], Iterable[Lane | Sum]]
    """Name of a runtime -> its rows, opened. One that is not here is told in the journal and has none."""
    extra: tuple[Lane, ...] = ()
    """Rows that belong to no runtime."""


def unless_missing(bench: Bench, row: Result, rows: Iterable[Lane | Sum]) -> Iterator[Lane | Sum]:
    """The rows of a runtime; where it or its converter is not here, `row` goes into the journal with the reason."""
    try:
        yield from rows
    except (MissingTool, CheckFailed, ModuleNotFoundError) as error:
        reason = str(error) if isinstance(error, MobileAvatarError) else f"{row.runtime} is not installed"
        bench.journal.add(replace(row, error=reason))


def opened(row: Result, open_run: Callable[[], Run], first: np.ndarray) -> tuple[Result, Run]:
    """Open a runtime and compute one frame: the row with load and first time, and what they take of memory.

    Args:
        first: (1, ...) the first input.
    """
    memory = resident_mb()
    start = time.perf_counter()
    run = open_run()
    loaded = time.perf_counter()
    run(first)
    done = time.perf_counter()
    grown = None if memory is None else round(max(0.0, resident_mb() - memory), 2)
    filled = replace(
        row,
        load_ms=round((loaded - start) * 1e3, 3),
        first_ms=round((done - loaded) * 1e3, 3),
        # Converting leaves memory behind that loading takes again, so only the bundle's own file tells.
        memory_mb=grown if row.own_file else None,
        memory_what="growth of resident memory by loading and the first run" if row.own_file else "",
    )
    return filled, run


def time_in_turns(lanes: Sequence[Lane], sums: Sequence[Sum], settings: Settings) -> None:
    """Warm up, run in turns, write the rows; then the sustained minutes. An interruption keeps what was timed."""
    rows = [*lanes, *sums]
    heat = temperature_c()
    settings.say(f"timing in turns: {len(lanes)} x {settings.runs} frames")
    warm: list[list[float]] = [[] for _ in rows]
    try:
        for number in range(WARM_UP + settings.runs):
            for lane in lanes:
                lane.frame(number)
            if number == WARM_UP - 1:
                warm = [list(row.frame_ms) for row in rows]
                for lane in lanes:
                    lane.clear()
    except BaseException:
        _finish(rows, warm, heat, settings.runs, compared=False)
        raise
    _finish(rows, warm, heat, settings.runs)
    if settings.sustained_min:
        _sustain(settings, lanes, rows)


def _finish(
    lanes: list[Lane | Sum], warm: list[list[float]], heat: float | None, asked: int, compared: bool = True
) -> None:
    after = temperature_c()
    for lane, times in zip(lanes, warm, strict=True):
        row = replace(lane.result, temperature_before_c=heat, temperature_after_c=after, error=lane.failure)
        measured = lane.frame_ms
        if measured and times:
            row = replace(
                row,
                **steady(measured),
                warmup_ms=round(float(np.mean(times)), 4),
                warmup_runs=WARM_UP,
                composite_p50_ms=round(float(np.median(lane.compose_ms)), 4) if row.scope == "frame" else None,
                parity=lane.parity(lane) if compared and not lane.failure else (),
            )
        if len(measured) < asked:
            row = replace(row, notes=(*row.notes, f"stopped after {len(measured)} of {asked} frames"))
        lane.result = row
        lane.journal.add(row)


def _sustain(settings: Settings, lanes: Sequence[Lane], rows: list[Lane | Sum]) -> None:
    """Go on in turns; after every minute all rows get that minute's median and are written again."""
    minutes: list[list[Minute]] = [[] for _ in rows]
    start, number = time.monotonic(), 0
    settings.say(f"sustained run, {settings.sustained_min:g} min, in turns")
    while (passed := time.monotonic() - start) < settings.sustained_min * 60:
        for lane in lanes:
            lane.clear()
        end = min(start + (passed // 60 + 1) * 60, start + settings.sustained_min * 60)
        while time.monotonic() < end:
            for lane in lanes:
                lane.frame(number)
            number += 1
        heat = temperature_c()
        for index, row in enumerate(rows):
            if measured := row.frame_ms:
                p50 = round(float(np.median(measured)), 4)
                minutes[index].append(Minute(int(passed // 60) + 1, len(measured), p50, heat))
            place = row.journal.results.index(row.result)
            row.result = replace(row.result, sustained=tuple(minutes[index]), error=row.failure)
            row.journal.replace(place, row.result)
        settings.say(f"minute {int(passed // 60) + 1} done")
