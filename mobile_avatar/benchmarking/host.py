"""Every runtime of this host, timed in turns in one process, so that what disturbs the machine disturbs all of them.

A frame is the graph and the composition of the image, as an app needs it. The bundle's own file runs where its runtime
is here; the other runtimes get the same graph in float32, converted on the spot.
"""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.assets import shipped
from mobile_avatar.avatar import Avatar
from mobile_avatar.benchmarking.host_facts import power_mode, processor, resident_mb, temperature_c
from mobile_avatar.benchmarking.host_runtimes import (
    RUNTIMES,
    TORCH,
    Outputs,
    Run,
    composer,
    convert,
    open_torch,
)
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import Minute, Result, now, steady
from mobile_avatar.benchmarking.store import Journal
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.errors import BadInput, CheckFailed, MissingTool, MobileAvatarError, first_line
from mobile_avatar.graphs.spec import GraphSpec
from mobile_avatar.models.bilayer.config import BilayerConfig
from mobile_avatar.models.bilayer.folded import FoldedGenerator
from mobile_avatar.quiet import quiet
from mobile_avatar.verification.manifest import judged_tensors
from mobile_avatar.verification.parity import THRESHOLDS, compare
from mobile_avatar.verification.runners import Exported
from mobile_avatar.verification.verify import read_texture

WARM_UP = 5
MOST_THREAD_ROWS = 4
RANDOM = "random numbers in the same structure: the avatar was not here (--avatar FILE)"
METHOD = "timed in turns with the other rows of this run; graph and composition of the image (in torch) per frame"


@dataclass
class Lane:
    """One row while it is being measured."""

    result: Result
    run: Run
    compose: Callable[[Outputs], np.ndarray]
    own_numbers: bool
    """Whether the weights are this person's, so that the frames can be compared with the golden ones."""
    graph_ms: list[float] = field(default_factory=list)
    compose_ms: list[float] = field(default_factory=list)
    failure: str = ""

    def frame(self, keypoints: np.ndarray) -> None:
        """Time one frame; a failure ends this row, not the run."""
        try:
            start = time.perf_counter()
            outputs = self.run(keypoints)
            middle = time.perf_counter()
            self.compose(outputs)
            end = time.perf_counter()
        except Exception as error:  # whatever a third-party runtime raises
            self.failure = f"{self.result.runtime} stopped: {first_line(error)}"
            return
        self.graph_ms.append((middle - start) * 1e3)
        self.compose_ms.append((end - middle) * 1e3)

    @property
    def frame_ms(self) -> list[float]:
        return [graph + rest for graph, rest in zip(self.graph_ms, self.compose_ms, strict=True)]


@dataclass(frozen=True)
class Person:
    """The network behind the bundle."""

    generator: FoldedGenerator
    texture: Tensor
    own: bool
    """False: random numbers in the same structure, because the avatar is not here."""


def measure(subject: Subject, settings: Settings, journal: Journal) -> None:
    """Time every runtime that is here; a runtime that is missing gets a row that says so.

    Raises:
        BadInput: an unknown runtime, or an avatar that is not the one of the bundle.
    """
    known = (*RUNTIMES, *TORCH)
    for name in settings.runtimes:
        if name not in known:
            raise BadInput(f"no runtime {name!r} on this host; choose one of {', '.join(known)}")
    wanted = settings.runtimes or known
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="mobile-avatar-") as place:
            person = _person(subject, settings)
            lanes = list(_lanes(subject, settings, journal, person, wanted, Path(place)))
            if lanes:
                _time(subject, settings, journal, lanes)
    finally:
        torch.set_num_threads(before)
    if not any(result.p50_ms for result in journal.results):
        raise MissingTool("none of the runtimes could be measured here; the rows above say why")


def _person(subject: Subject, settings: Settings) -> Person:
    facts = subject.manifest["avatar"]
    if settings.avatar is not None:
        avatar = Avatar.load(settings.avatar)
        if avatar.describe() != facts:
            raise BadInput(f"{settings.avatar} is not the avatar of {subject.folder}; leave --avatar out or export it")
        return Person(avatar.generator, avatar.texture, True)
    avatar = Avatar.load(shipped("default.avatar"))
    if avatar.describe() == facts:
        return Person(avatar.generator, avatar.texture, True)
    settings.say("the avatar is not here (--avatar FILE): runtimes other than the bundle's get random numbers instead")
    config = BilayerConfig.from_dict(facts["config"], str(subject.folder))
    generator = FoldedGenerator(config).eval().requires_grad_(False)
    return Person(generator, torch.zeros(1, 3, config.image_size, config.image_size), False)


def _lanes(
    subject: Subject, settings: Settings, journal: Journal, person: Person, wanted: tuple[str, ...], place: Path
) -> Iterator[Lane]:
    base = Result(
        kind="measured",
        place="host",
        device="this host",
        runtime="",
        precision="fp32",
        taken=now(),
        model_sha256=subject.model_sha256,
        own_file=False,
        scope="frame",
        soc=processor(),
        os=f"{platform.system()} {platform.release()}",
        threads=1,
        power_mode=power_mode(),
        method=METHOD,
        notes=() if person.own else (RANDOM,),
    )
    first = subject.golden(subject.spec.inputs[0])[:1]
    for name in (name for name in TORCH if name in wanted):
        row = replace(base, runtime=name, runtime_version=torch.__version__)
        run, spec = open_torch(name, person.generator, person.texture, subject.warp)
        lane = _lane(row, lambda run=run: run, spec, person, first)
        lane.result = replace(lane.result, load_ms=None)  # nothing is loaded
        yield lane
    for name in (name for name in RUNTIMES if name in wanted):
        runtime = RUNTIMES[name]
        own = runtime.target == subject.target
        row = replace(base, runtime=name, own_file=own, delegate=runtime.delegate)
        if own:
            row = replace(row, precision=subject.precision, notes=())
        try:
            if own:
                exported = Exported(subject.folder, subject.files, subject.spec, subject.precision, subject.warp)
            else:
                settings.say(f"converting for {name}")
                (place / name).mkdir()
                exported = convert(person.generator, person.texture, runtime.target, place / name, subject.warp)
            row = replace(row, runtime_version=version(runtime.package))
            with quiet():
                runtime.ready()
            for threads in _thread_counts(settings) if runtime.threaded else [1]:
                yield _lane(
                    replace(row, threads=threads),
                    lambda e=exported, t=threads, r=runtime: r.open(e, t),
                    exported.spec,
                    replace(person, own=True) if own else person,
                    first,
                    _texture(subject) if own else person.texture,
                )
        except (MissingTool, CheckFailed, ModuleNotFoundError) as error:
            reason = str(error) if isinstance(error, MobileAvatarError) else f"{name} is not installed"
            journal.add(replace(row, error=reason))


def _lane(
    row: Result,
    open_run: Callable[[], Run],
    spec: GraphSpec,
    person: Person,
    keypoints: np.ndarray,
    texture: Tensor | None = None,
) -> Lane:
    """Open the runtime and compute one frame: load and first time, and what they take of memory."""
    memory = resident_mb()
    start = time.perf_counter()
    run = open_run()
    loaded = time.perf_counter()
    run(keypoints)
    done = time.perf_counter()
    grown = None if memory is None else round(max(0.0, resident_mb() - memory), 2)
    row = replace(
        row,
        load_ms=round((loaded - start) * 1e3, 3),
        first_ms=round((done - loaded) * 1e3, 3),
        # Converting leaves memory behind that loading takes again, so only the bundle's own file tells.
        memory_mb=grown if row.own_file else None,
        memory_what="growth of resident memory by loading and the first run" if row.own_file else "",
    )
    align = person.generator.config.align_corners
    return Lane(row, run, composer(spec, person.texture if texture is None else texture, align), person.own)


def _texture(subject: Subject) -> Tensor:
    """The bundle's own texture file (1, 3, S, S), as the app uploads it; zeros where the graph returns the image."""
    size = subject.manifest["avatar"]["config"]["image_size"]
    if subject.warp != "split":
        return torch.zeros(1, 3, size, size)
    return torch.from_numpy(read_texture(subject.folder, size)).permute(2, 0, 1)[None].contiguous()


def _thread_counts(settings: Settings) -> list[int]:
    """1 to n; of many cores the powers of two and n."""
    most = settings.threads or os.cpu_count() or 1
    if most <= MOST_THREAD_ROWS:
        return list(range(1, most + 1))
    return sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})


def _time(subject: Subject, settings: Settings, journal: Journal, lanes: list[Lane]) -> None:
    """Warm up, run in turns, write the rows; then the sustained minutes. An interruption keeps what was timed."""
    keypoints = subject.golden(subject.spec.inputs[0])
    heat = temperature_c()
    settings.say(f"timing in turns: {len(lanes)} x {settings.runs} frames")
    warm: list[list[float]] = [[] for _ in lanes]
    try:
        for number in range(WARM_UP + settings.runs):
            for lane in lanes:
                if not lane.failure:
                    lane.frame(keypoints[number % len(keypoints)][None])
            if number == WARM_UP - 1:
                for lane, times in zip(lanes, warm, strict=True):
                    times.extend(lane.frame_ms)
                    lane.graph_ms.clear()
                    lane.compose_ms.clear()
    except BaseException:
        _finish(subject, journal, lanes, warm, heat, settings.runs, compared=False)
        raise
    _finish(subject, journal, lanes, warm, heat, settings.runs)
    if settings.sustained_min:
        _sustain(settings, journal, lanes, keypoints)


def _finish(
    subject: Subject,
    journal: Journal,
    lanes: list[Lane],
    warm: list[list[float]],
    heat: float | None,
    asked: int,
    compared: bool = True,
) -> None:
    after = temperature_c()
    for lane, times in zip(lanes, warm, strict=True):
        row = replace(lane.result, temperature_before_c=heat, temperature_after_c=after, error=lane.failure)
        if lane.frame_ms and times:
            row = replace(
                row,
                **steady(lane.frame_ms),
                warmup_ms=round(float(np.mean(times)), 4),
                warmup_runs=WARM_UP,
                composite_p50_ms=round(float(np.median(lane.compose_ms)), 4),
                parity=_parity(subject, lane) if compared else (),
            )
        if len(lane.frame_ms) < asked:
            row = replace(row, notes=(*row.notes, f"stopped after {len(lane.frame_ms)} of {asked} frames"))
        lane.result = row
        journal.add(row)


def _parity(subject: Subject, lane: Lane) -> tuple[dict, ...]:
    """The composited image beside the golden one, for rows that have this person's numbers."""
    if not lane.own_numbers or lane.failure:
        return ()
    stored = judged_tensors(subject.manifest)[-1]
    golden = subject.golden(stored)
    golden = golden.transpose(0, 2, 3, 1) if stored.layout == "NCHW" else golden
    keypoints = subject.golden(subject.spec.inputs[0])
    frames = np.concatenate([lane.compose(lane.run(row[None])).copy() for row in keypoints])
    name = f"{lane.result.runtime} on this host"
    return (compare(stored, name, frames, golden, THRESHOLDS[lane.result.precision]).to_dict(),)


def _sustain(settings: Settings, journal: Journal, lanes: list[Lane], keypoints: np.ndarray) -> None:
    """Go on in turns; after every minute all rows get that minute's median and are written again."""
    first = len(journal.results) - len(lanes)
    minutes: list[list[Minute]] = [[] for _ in lanes]
    start, number = time.monotonic(), 0
    settings.say(f"sustained run, {settings.sustained_min:g} min, in turns")
    while (passed := time.monotonic() - start) < settings.sustained_min * 60:
        for lane in lanes:
            lane.graph_ms.clear()
            lane.compose_ms.clear()
        end = min(start + (passed // 60 + 1) * 60, start + settings.sustained_min * 60)
        while time.monotonic() < end:
            for lane in lanes:
                if not lane.failure:
                    lane.frame(keypoints[number % len(keypoints)][None])
            number += 1
        heat = temperature_c()
        for index, lane in enumerate(lanes):
            if lane.frame_ms:
                p50 = round(float(np.median(lane.frame_ms)), 4)
                minutes[index].append(Minute(int(passed // 60) + 1, len(lane.frame_ms), p50, heat))
            lane.result = replace(lane.result, sustained=tuple(minutes[index]), error=lane.failure)
            journal.replace(first + index, lane.result)
        settings.say(f"minute {int(passed // 60) + 1} done")
