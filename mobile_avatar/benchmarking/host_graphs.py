"""The rows of a bundle of several graphs on this host: each graph, the draw call between them, and their sum.

Every graph gets its own golden inputs, so that rows of other runtimes hold for the same work. A frame is what the
graphs took together, frame by frame; the draw call is a row of its own, because a phone's GPU does it.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import torch

from mobile_avatar.benchmarking.host_lanes import NOT_HERE, RANDOM, Bench, Lane, Side, Sum, opened, unless_missing
from mobile_avatar.benchmarking.host_runtimes import RUNTIMES, TORCH, Run, convert_graph, run_torch
from mobile_avatar.benchmarking.parity import parity_rows
from mobile_avatar.benchmarking.result import DRAW, FRAME, Result
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.errors import BadInput
from mobile_avatar.exporters.registry import Request, find_target
from mobile_avatar.exporters.rome_data import read_draw
from mobile_avatar.graphs.rome import rome_graphs
from mobile_avatar.models.rome.avatar import CODES, RomeAvatar
from mobile_avatar.models.rome.avatar_mesh import AvatarMesh
from mobile_avatar.models.rome.batch_norms import fold_batch_norms
from mobile_avatar.models.rome.compact_renderer import CompactConfig, CompactRenderer
from mobile_avatar.models.rome.mobilenet_v2 import MobileNetV2
from mobile_avatar.quiet import quiet
from mobile_avatar.verification.parity import THRESHOLDS, compare
from mobile_avatar.verification.rome import PICTURE_THRESHOLDS
from mobile_avatar.verification.runners import Exported

FOLDED = "torch-folded"
METHOD = "timed in turns with the other rows of this run; golden inputs of this graph, the graph alone"
DRAW_METHOD = (
    "timed in turns with the other rows of this run; the draw call in torch on one CPU thread, with the bundle's own "
    "texture, index buffer and golden meshes. It says nothing about a GPU"
)
SUM_METHOD = "what the graphs took together in this run, frame by frame; the draw call is a row of its own"
DRAWN_METHOD = "what the graphs and the draw call in software took together in this run, frame by frame"


def side(bench: Bench) -> Side:
    """The rows; BadInput for an avatar that is not the one of the bundle."""
    names = bench.settings.runtimes
    if names and not set(names) & {FOLDED, *RUNTIMES}:
        known = ", ".join((FOLDED, *RUNTIMES))
        raise BadInput(
            f"{bench.subject.folder} has several graphs, which {', '.join(names)} has not; choose of {known}"
        )
    people = _People(bench)
    draw = _draw_lane(bench)
    return Side(lambda name: _rows(bench, people, draw, name), (draw,))


class _People:
    """The avatar behind the bundle, loaded when the first runtime wants it."""

    def __init__(self, bench: Bench) -> None:
        self._bench, self._found = bench, None
        self.own = bench.settings.avatar is not None
        if self.own:
            self._found = RomeAvatar.load(bench.settings.avatar)
            if self._found.describe() != bench.subject.manifest["avatar"]:
                where = bench.subject.folder
                raise BadInput(f"{bench.settings.avatar} is not the avatar of {where}; leave --avatar out or export it")

    def avatar(self) -> RomeAvatar:
        if self._found is None:
            self._bench.settings.say(NOT_HERE)
            self._found = stand_in(self._bench.subject)
        return self._found


@torch.no_grad()
def stand_in(subject: Subject) -> RomeAvatar:
    """An avatar of the same sizes with random networks; triangles are those of the bundle, so look-ups are as far."""
    config = subject.manifest["avatar"]["config"]
    draw = read_draw(subject.folder, subject.manifest)
    codes = config["expressions"] + CODES
    mesh = AvatarMesh(config["vertices"], config["triangles"], config["expressions"])
    mesh.corners.copy_(draw.corners)
    mesh.vertex.copy_(torch.arange(len(mesh.vertex)))
    mesh.neutral.normal_()
    encoder = fold_batch_norms(MobileNetV2(codes, config["encoder_width"]))
    renderer = CompactRenderer.folded(CompactConfig.from_dict(config["renderer"], str(subject.folder)))
    sizes = (config["encoder_size"], config["encoder_width"])
    return RomeAvatar(encoder, mesh.ready(), draw.texture, renderer, torch.zeros(codes), *sizes)


def _rows(bench: Bench, people: _People, draw: Lane, name: str) -> Iterator[Lane | Sum]:
    if name in TORCH:
        if name == FOLDED:
            yield from _torch_rows(bench, people, draw)
        return
    runtime = RUNTIMES[name]
    own = runtime.target == bench.subject.target
    row = _row(bench, name, precision=bench.subject.precision if own else "fp32", own_file=own)
    row = replace(row, graph=FRAME, delegate=runtime.delegate)
    yield from unless_missing(bench, row, _runtime_rows(bench, people, draw, row))


def _row(bench: Bench, runtime: str, **fields: object) -> Result:
    return bench.row(runtime=runtime, threads=1, method=METHOD, **fields)


def _torch_rows(bench: Bench, people: _People, draw: Lane) -> Iterator[Lane | Sum]:
    avatar = people.avatar()
    row = _row(bench, FOLDED, precision="fp32", own_file=False, runtime_version=torch.__version__)
    lanes = []
    for subject, graph in zip(bench.subject.graphs, rome_graphs(avatar, _layout(bench.subject)), strict=True):
        run = run_torch(graph.module, graph.spec)
        lane = _lane(bench, subject, _told(row, people), lambda run=run: run, people.own)
        lane.result = replace(lane.result, load_ms=None)  # nothing is loaded
        lanes.append(lane)
    yield from (*lanes, *_sums(lanes, draw))


def _told(row: Result, people: _People) -> Result:
    return row if people.own or row.own_file else replace(row, notes=(RANDOM,))


def _runtime_rows(bench: Bench, people: _People, draw: Lane, row: Result) -> Iterator[Lane | Sum]:
    runtime, own = RUNTIMES[row.runtime], row.own_file
    if own:
        files = [Exported(s.folder, s.files, s.spec, s.precision, s.warp) for s in bench.subject.graphs]
    else:
        files = _converted(bench, people, row.runtime)
    row = _told(replace(row, runtime_version=version(runtime.package)), people)
    with quiet():
        runtime.ready()
    for threads in bench.thread_counts(runtime):
        lanes = []
        for subject, exported in zip(bench.subject.graphs, files, strict=True):
            opener = lambda exported=exported, threads=threads: runtime.open(exported, threads)  # noqa: E731
            own_row = replace(row, threads=threads, precision=exported.precision)
            lanes.append(_lane(bench, subject, own_row, opener, own or people.own, exported))
        yield from (*lanes, *_sums(lanes, draw))


def _converted(bench: Bench, people: _People, name: str) -> list[Exported]:
    """The same graphs in float32 for another runtime."""
    target, folder = RUNTIMES[name].target, bench.place / name
    folder.mkdir()
    found = []
    for graph in rome_graphs(people.avatar(), find_target(target).layout):
        bench.settings.say(f"converting the {graph.name} for {name}")
        request = Request(graph.module, graph.spec, "fp32", graph.warp, folder, {}, name=graph.name)
        found.append(convert_graph(target, request))
    return found


def _lane(
    bench: Bench,
    subject: Subject,
    row: Result,
    open_run: Callable[[], Run],
    own_numbers: bool,
    exported: Exported | None = None,
) -> Lane:
    """One opened graph; its golden inputs are brought into the layout of `exported` where that is another one."""
    (source,) = subject.spec.inputs
    spec = subject.spec if exported is None else exported.spec
    inputs = _arranged(subject.golden(source), source.layout, spec.inputs[0].layout)
    row = replace(row, graph=subject.name, model_sha256=subject.model_sha256)
    row, run = opened(row, open_run, inputs[:1])

    def parity(lane: Lane) -> tuple[dict, ...]:
        rows = [lane.run(values[None]) for values in lane.inputs]
        outputs = {
            tensor.name: _arranged(np.concatenate([found[tensor.name] for found in rows]), there.layout, tensor.layout)
            for tensor, there in zip(subject.spec.outputs, spec.outputs, strict=True)
        }
        runner = f"{lane.result.runtime} on this host"
        if lane.result.own_file:
            return parity_rows(subject, runner, outputs)
        threshold = THRESHOLDS[lane.result.precision]
        return tuple(
            compare(t, runner, outputs[t.name], subject.golden(t), threshold).to_dict() for t in subject.judged
        )

    return Lane(row, bench.journal, run, inputs, parity if own_numbers else lambda lane: ())


def _sums(lanes: list[Lane], draw: Lane) -> tuple[Sum, Sum]:
    """The frame, and the frame with the draw call."""
    first = lanes[0]
    row = replace(
        first.result,
        graph=FRAME,
        model_sha256=draw.result.model_sha256,
        method=SUM_METHOD,
        load_ms=_added(lane.result.load_ms for lane in lanes),
        first_ms=_added(lane.result.first_ms for lane in lanes),
        memory_mb=_added(lane.result.memory_mb for lane in lanes),
    )
    drawn = replace(row, scope="frame", method=DRAWN_METHOD)
    parts = tuple(lanes)
    return Sum(row, first.journal, parts), Sum(drawn, first.journal, parts, draw)


def _added(values: Iterator[float | None]) -> float | None:
    known = list(values)
    return None if None in known else round(sum(known), 3)


def _draw_lane(bench: Bench) -> Lane:
    """The software rasteriser as a row; what it draws is the renderer's golden input."""
    draw = read_draw(bench.subject.folder, bench.subject.manifest)
    _, mesh, renderer = bench.subject.graphs
    positions, normals = (mesh.golden(tensor) for tensor in mesh.spec.outputs)
    (features,) = renderer.spec.inputs

    def run(pair: np.ndarray) -> dict[str, np.ndarray]:
        return {features.name: draw.features(pair[:, 0], pair[:, 1])}

    row = _row(bench, "torch", precision="fp32", graph=DRAW, runtime_version=torch.__version__)
    row = replace(row, method=DRAW_METHOD)

    def parity(lane: Lane) -> tuple[dict, ...]:
        drawn = np.concatenate([lane.run(pair[None])[features.name] for pair in lane.inputs])
        drawn = _arranged(drawn, "NCHW", features.layout)
        golden = renderer.golden(features)
        return (compare(features, "software rasteriser", drawn, golden, PICTURE_THRESHOLDS["fp32"]).to_dict(),)

    return Lane(row, bench.journal, run, np.stack((positions, normals), axis=1), parity)


def _layout(subject: Subject) -> str:
    return subject.graphs[0].spec.inputs[0].layout


def _arranged(array: np.ndarray, here: str, there: str) -> np.ndarray:
    """An image (T, ...) in another layout; anything else as it is."""
    axes = {("NHWC", "NCHW"): (0, 3, 1, 2), ("NCHW", "NHWC"): (0, 2, 3, 1)}.get((here, there))
    return array if axes is None else np.ascontiguousarray(array.transpose(axes))
