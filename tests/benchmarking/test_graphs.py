"""Bundles of several graphs: what is timed, what a frame is, what the budget and the estimate say of it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.benchmarking import host, host_graphs
from mobile_avatar.benchmarking.estimate_graphs import estimate_rows, graph_layers
from mobile_avatar.benchmarking.gate import judge
from mobile_avatar.benchmarking.host_lanes import Lane, Sum
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import Result
from mobile_avatar.benchmarking.store import Journal, newest, stored_results
from mobile_avatar.benchmarking.subject import open_subject
from mobile_avatar.errors import BadInput
from tests.cli.runner import run
from tests.reporting.bundles import export
from tests.rome_bundles import AVATAR, rome_bundle

GRAPHS = ["encoder", "mesh", "renderer"]
FAST = ("torch-folded", "onnxruntime")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return rome_bundle(tmp_path_factory.mktemp("rome"))


@pytest.fixture(scope="module")
def rows(bundle) -> list[Result]:
    """One run with the avatar."""
    return measured(bundle, avatar=bundle.parent / AVATAR)


def measured(bundle: Path, **settings) -> list[Result]:
    subject = open_subject(bundle)
    journal = Journal(subject, "host")
    wanted = {"runtimes": FAST, "runs": 4, "threads": 1} | settings
    host.measure(subject, Settings(say=lambda line: None, **wanted), journal)
    return journal.results


def test_every_graph_is_timed_and_compared(bundle, rows):
    timed = [(row.runtime, row.graph, row.scope) for row in rows]
    graphs = [(runtime, graph, "graph") for runtime in FAST for graph in GRAPHS]
    frames = [(runtime, "frame", scope) for runtime in FAST for scope in ("graph", "frame")]
    assert timed == [*graphs, ("torch", "draw", "graph"), *frames]
    assert len({row.taken for row in rows}) == 1
    subject = open_subject(bundle)
    hashes = {graph.name: graph.model_sha256 for graph in subject.graphs}
    for row in rows:
        assert (row.kind, row.place, row.runs, row.threads, row.error) == ("measured", "host", 4, 1, "")
        assert row.p50_ms > 0
        assert row.model_sha256 == hashes.get(row.graph, subject.model_sha256)
        assert row.own_file == (row.runtime != "torch-folded")
        assert all(check["passed"] for check in row.parity)
    outputs = {row.graph: [check["output"] for check in row.parity] for row in rows if row.own_file}
    frame = ["codes", "positions", "normals", "rgba"]
    assert outputs == {
        "encoder": frame[:1],
        "mesh": frame[1:3],
        "renderer": frame[3:],
        "draw": ["features"],
        "frame": frame,
    }
    assert stored_results(subject)[0] == rows


def test_rows_say_what_they_are(rows):
    titles = [row.title for row in rows if row.own_file]
    assert titles == [
        "encoder: onnxruntime fp32, CPU, 1 thread",
        "mesh: onnxruntime fp32, CPU, 1 thread",
        "renderer: onnxruntime fp32, CPU, 1 thread",
        "draw call in software (torch); on a phone the GPU draws, 1 thread",
        "frame, all graphs, without the draw call: onnxruntime fp32, CPU, 1 thread",
        "frame with the draw call in software: onnxruntime fp32, CPU, 1 thread",
    ]
    draw = next(row for row in rows if row.graph == "draw")
    drawn = next(row for row in rows if row.scope == "frame")
    assert drawn.composite_p50_ms == draw.p50_ms


def lane(graph_ms: list[float], failure: str = "") -> Lane:
    found = Lane(None, None, lambda values: {}, np.zeros((1, 1)), lambda found: ())
    found.graph_ms, found.failure = graph_ms, failure
    return found


def test_a_frame_adds_up_frame_by_frame():
    parts = (lane([1.0, 5.0, 1.0]), lane([2.0, 2.0, 9.0]))
    assert Sum(None, None, parts).frame_ms == [3.0, 7.0, 10.0], "not the sum of two medians, which is 3"
    assert Sum(None, None, parts, lane([10.0, 10.0, 10.0])).frame_ms == [13.0, 17.0, 20.0]
    interrupted = Sum(None, None, (lane([1.0, 1.0]), lane([2.0], "it stopped")))
    assert (interrupted.frame_ms, interrupted.failure) == ([3.0], "it stopped")


def test_without_the_avatar_other_runtimes_get_random_numbers(bundle):
    rows = measured(bundle, runs=1)
    for row in (row for row in rows if not row.own_file):
        assert row.notes == (host_graphs.RANDOM,)
        assert row.parity == ()
    assert all(row.parity and not row.notes for row in rows if row.own_file and row.graph != "draw")


def test_the_stand_in_has_the_work_of_the_avatar(bundle):
    avatar = host_graphs.stand_in(open_subject(bundle))
    config = json.loads((bundle / "manifest.json").read_text())["avatar"]["config"]
    # Its texture is the bundle's, in half precision.
    assert avatar.config == config | {"texture_limit": pytest.approx(config["texture_limit"], rel=1e-3)}


def test_a_long_run_follows_frames_too(bundle):
    rows = measured(bundle, runs=1, runtimes=("onnxruntime",), sustained_min=0.005)
    assert [len(row.sustained) for row in rows] == [1] * 6
    assert all(row.sustained[0].p50_ms > 0 for row in rows)


def test_a_graph_that_stops_ends_its_frames(bundle, monkeypatch):
    def stops(exported, threads):
        real = runtime.open(exported, threads)
        calls = []

        def run_(values):
            calls.append(1)
            if "renderer" in str(exported.files["model"]) and len(calls) > 7:
                raise RuntimeError("out of memory")
            return real(values)

        return run_

    runtime = host_graphs.RUNTIMES["onnxruntime"]
    monkeypatch.setitem(host_graphs.RUNTIMES, "onnxruntime", replace(runtime, open=stops))
    rows = {(row.graph, row.scope): row for row in measured(bundle, runtimes=("onnxruntime",))}
    reason = "onnxruntime stopped: out of memory"
    broken = {("renderer", "graph"), ("frame", "graph"), ("frame", "frame")}
    assert {key for key, row in rows.items() if row.error == reason} == broken
    assert not rows["mesh", "graph"].error


def test_the_budget_is_about_whole_frames(bundle, rows):
    frame = next(row for row in rows if row.own_file and row.graph == "frame" and row.scope == "graph")
    verdict = judge(rows, None, frame.p50_ms)
    assert (verdict.passed, verdict.judged) == (True, frame)
    assert verdict.sentence.endswith("; the draw call is not in it")
    longest = max(row.p50_ms for row in rows if row.own_file and row.graph in GRAPHS)
    assert not judge(rows, None, (longest + frame.p50_ms) / 2).passed, "each graph alone is within it"
    assert judge([row for row in rows if row.graph != "frame"], None, 1e6).judged is None


def test_newest_keeps_one_row_of_each_part(rows):
    assert len(newest([*rows, *rows])) == len(rows)


def test_an_estimate_per_graph_and_their_sum(bundle):
    subject = open_subject(bundle)
    encoder, mesh, renderer, frame = estimate_rows(subject, "snapdragon-855")
    assert [row.graph for row in (encoder, mesh, renderer, frame)] == [*GRAPHS, "frame"]
    assert frame.mean_ms == pytest.approx(encoder.mean_ms + renderer.mean_ms, abs=2e-4)
    assert frame.low_ms < frame.mean_ms < frame.high_ms
    assert frame.mean_ms == pytest.approx(subject.manifest["budget"]["estimate_ms"], rel=0.01)
    assert (*encoder.operators, *renderer.operators) == frame.operators
    assert mesh.mean_ms is None
    assert "the CPU computes it" in mesh.error
    assert "left out: the draw call of the GPU, the mesh graph on the CPU" in frame.method
    assert "draw call" not in encoder.method
    macs = {name: sum(layer.macs for layer in layers) for name, layers in graph_layers(subject).items()}
    assert macs == {row["name"]: row["macs"] for row in subject.manifest["graphs"] if row["name"] != "mesh"}
    refused = estimate_rows(subject, "apple-a14")[-1]
    assert (refused.mean_ms, refused.graph) == (None, "frame")
    assert "onnx" in refused.error


def test_layers_of_other_graphs_are_refused(bundle):
    subject = open_subject(bundle)
    first = replace(subject.graphs[0], manifest=subject.graphs[0].manifest | {"macs": 1})
    with pytest.raises(BadInput, match="is not about the graphs of this bundle"):
        graph_layers(replace(subject, graphs=(first, *subject.graphs[1:])))


def test_the_command(bundle, capfd):
    run_fast = ("--on", "host", "--runtime", "onnxruntime", "--runs", 2)
    done = run(capfd, "benchmark", bundle, *run_fast, "--budget-ms", 1e5)
    assert done.code == 0, done.err
    for words in ("encoder: onnxruntime", "draw call in software (torch); on a phone the GPU draws", "ESTIMATED"):
        assert words in done.out
    assert "measured p50" in done.out
    assert "the draw call is not in it" in done.out
    estimate = run(capfd, "benchmark", bundle, "--budget-ms", 1e-3)
    assert estimate.code == 1
    assert "the draw call and the mesh graph are not in it" in estimate.sentence
    for options, words in (
        (("--on", "host", "--runtime", "torch-plain"), "which torch-plain has not"),
        (("--on", "adb", "--sustained", 1), "--sustained repeats one file"),
        (("--on", "host", "--beside-avatar", "x"), "--beside-avatar is about the bundle of --beside"),
        (("--beside", bundle), "--beside belongs to --on host"),
        (("--on", "host", "--beside", bundle), "cannot be timed beside itself"),
    ):
        refused = run(capfd, "benchmark", bundle, *options)
        assert (refused.code, words in refused.sentence) == (2, True), refused.err


def host_rows(folder: Path, taken: str) -> dict[str, Result]:
    return {row.title: row for row in stored_results(open_subject(folder))[0] if row.taken == taken}


def test_a_texture_that_was_changed_is_noticed(bundle, tmp_path):
    """The draw call's files are no model, so nothing has looked at their hashes."""
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (np.fromfile(copy / "texture.f16", "<f2") * np.float16(1.5)).tofile(copy / "texture.f16")
    draw = next(row for row in measured(copy, runtimes=("onnxruntime",), runs=1) if row.graph == "draw")
    assert [check["passed"] for check in draw.parity] == [False]


def test_two_bundles_in_one_run(bundle, tmp_path, capfd):
    other = export(tmp_path / "bilayer")
    options = ("--on", "host", "--beside", bundle, "--runtime", "onnxruntime", "--runs", 3)
    done = run(capfd, "benchmark", other, *options)
    assert done.code == 0, done.err
    assert f"A {other}, B {bundle}, in one run, frame by frame in turns" in done.out
    assert done.out.count("64 x 64 pixels") == 2
    (bilayer,) = stored_results(open_subject(other))[0]
    rows = host_rows(bundle, bilayer.taken)
    drawn = rows["frame with the draw call in software: onnxruntime fp32, CPU, 1 thread"]
    alone = rows["frame, all graphs, without the draw call: onnxruntime fp32, CPU, 1 thread"]
    lines = [line.split() for line in done.out.splitlines() if line.startswith("onnxruntime, 1 thread")]
    networks, frames = ([word for word in line if word[0].isdigit()] for line in lines)
    assert frames[1:] == [
        f"{bilayer.p50_ms:.2f}",
        f"{drawn.p50_ms:.2f}",
        f"{drawn.p50_ms / bilayer.p50_ms:.2f}",
    ]
    assert networks[2] == f"{alone.p50_ms:.2f}"
    assert bilayer.threads == 1


@pytest.mark.slow
def test_two_bundles_as_json(bundle, tmp_path, capfd):
    other = export(tmp_path / "bilayer")
    options = ("--on", "host", "--beside", bundle, "--beside-avatar", bundle.parent / AVATAR, "--runs", 3)
    options = (*options, "--runtime", "torch-folded", "--runtime", "onnxruntime")
    done = run(capfd, "benchmark", other, *options, "--json")
    assert done.code == 0, done.err
    beside = json.loads(done.out)["beside"]
    whats = ("networks alone", "frame, composed or drawn in torch")
    expected = [(f"{name}, 1 thread", what) for name in FAST for what in whats]
    assert [(line["runtime"], line["what"]) for line in beside["lines"]] == expected
    for line in beside["lines"]:
        first, second = (side["p50_ms"] for side in line["sides"])
        assert line["ratio"] == pytest.approx(second / first, abs=1e-3)
    assert all(check["passed"] for row in beside["results"] for check in row["parity"])
