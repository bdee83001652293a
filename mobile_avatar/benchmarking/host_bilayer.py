"""The rows of a bundle of one graph on this host: a frame is the graph and the composition of the image."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.assets import shipped
from mobile_avatar.avatar import Avatar
from mobile_avatar.benchmarking.host_lanes import NOT_HERE, RANDOM, Bench, Lane, Side, opened, unless_missing
from mobile_avatar.benchmarking.host_runtimes import RUNTIMES, TORCH, Run, composer, convert, open_torch
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import Result
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.errors import BadInput
from mobile_avatar.graphs.spec import GraphSpec
from mobile_avatar.models.bilayer.config import BilayerConfig
from mobile_avatar.models.bilayer.folded import FoldedGenerator
from mobile_avatar.quiet import quiet
from mobile_avatar.verification.parity import THRESHOLDS, compare
from mobile_avatar.verification.runners import Exported
from mobile_avatar.verification.verify import read_texture

METHOD = "timed in turns with the other rows of this run; graph and composition of the image (in torch) per frame"


@dataclass(frozen=True)
class Person:
    """The network behind the bundle."""

    generator: FoldedGenerator
    texture: Tensor
    own: bool
    """False: random numbers in the same structure, because the avatar is not here."""


def side(bench: Bench) -> Side:
    """The rows; BadInput for an avatar that is not the one of the bundle."""
    person = _person(bench.subject, bench.settings)
    return Side(lambda name: _rows(bench, person, name))


def _rows(bench: Bench, person: Person, name: str) -> Iterator[Lane]:
    notes = () if person.own else (RANDOM,)
    fields = {"threads": 1, "precision": "fp32", "own_file": False, "scope": "frame", "method": METHOD, "notes": notes}
    row = bench.row(runtime=name, **fields)
    if name in TORCH:
        run, spec = open_torch(name, person.generator, person.texture, bench.subject.warp)
        lane = _lane(bench, replace(row, runtime_version=torch.__version__), lambda: run, spec, person)
        lane.result = replace(lane.result, load_ms=None)  # nothing is loaded
        yield lane
        return
    runtime = RUNTIMES[name]
    own = runtime.target == bench.subject.target
    row = replace(row, own_file=own, delegate=runtime.delegate)
    if own:
        row = replace(row, precision=bench.subject.precision, notes=())
    yield from unless_missing(bench, row, _runtime_rows(bench, person, row))


def _runtime_rows(bench: Bench, person: Person, row: Result) -> Iterator[Lane]:
    subject, runtime = bench.subject, RUNTIMES[row.runtime]
    if row.own_file:
        exported = Exported(subject.folder, subject.files, subject.spec, subject.precision, subject.warp)
        person = Person(person.generator, _texture(subject), True)
    else:
        bench.settings.say(f"converting for {row.runtime}")
        folder = bench.place / row.runtime
        folder.mkdir()
        exported = convert(person.generator, person.texture, runtime.target, folder, subject.warp)
    row = replace(row, runtime_version=version(runtime.package))
    with quiet():
        runtime.ready()
    for threads in bench.thread_counts(runtime):
        opener = lambda threads=threads: runtime.open(exported, threads)  # noqa: E731
        yield _lane(bench, replace(row, threads=threads), opener, exported.spec, person)


def _lane(bench: Bench, row: Result, open_run: Callable[[], Run], spec: GraphSpec, person: Person) -> Lane:
    """An opened runtime; `person` has the texture that it composes with."""
    keypoints = bench.subject.golden(bench.subject.spec.inputs[0])
    row, run = opened(row, open_run, keypoints[:1])
    compose = composer(spec, person.texture, person.generator.config.align_corners)
    parity = _parity(bench.subject) if person.own else lambda lane: ()
    return Lane(row, bench.journal, run, keypoints, parity, compose)


def _texture(subject: Subject) -> Tensor:
    """The bundle's own texture file (1, 3, S, S), as the app uploads it; zeros where the graph returns the image."""
    size = subject.manifest["avatar"]["config"]["image_size"]
    if subject.warp != "split":
        return torch.zeros(1, 3, size, size)
    return torch.from_numpy(read_texture(subject.folder, size)).permute(2, 0, 1)[None].contiguous()


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
    settings.say(NOT_HERE)
    config = BilayerConfig.from_dict(facts["config"], str(subject.folder))
    generator = FoldedGenerator(config).eval().requires_grad_(False)
    return Person(generator, torch.zeros(1, 3, config.image_size, config.image_size), False)


def _parity(subject: Subject) -> Callable[[Lane], tuple[dict, ...]]:
    """The composited image beside the golden one."""

    def compared(lane: Lane) -> tuple[dict, ...]:
        stored = subject.judged[-1]
        golden = subject.golden(stored)
        golden = golden.transpose(0, 2, 3, 1) if stored.layout == "NCHW" else golden
        frames = np.concatenate([lane.compose(lane.run(row[None])).copy() for row in lane.inputs])
        name = f"{lane.result.runtime} on this host"
        return (compare(stored, name, frames, golden, THRESHOLDS[lane.result.precision]).to_dict(),)

    return compared
