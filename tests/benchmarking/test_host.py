"""Timing on this host: real runtimes, real bundles; what fails or is interrupted keeps what was measured."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.assets import shipped
from mobile_avatar.avatar import Avatar
from mobile_avatar.benchmarking import host, host_bilayer, host_runtimes
from mobile_avatar.benchmarking.host_lanes import Bench
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.store import Journal, stored_results
from mobile_avatar.benchmarking.subject import open_subject
from mobile_avatar.errors import BadInput
from tests.cli.runner import run

COMMAND = [sys.executable, "-c", "from mobile_avatar.cli.main import main; main()"]
FAST = ("onnxruntime", "torch-folded")


def export(folder: Path, *options: str) -> Path:
    done = subprocess.run([*COMMAND, "export", *options, "-o", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """The default avatar for ONNX Runtime, the target that converts fastest."""
    return export(tmp_path_factory.mktemp("host") / "onnx", "--target", "onnx")


def measured(bundle: Path, **settings) -> Journal:
    subject = open_subject(bundle)
    journal = Journal(subject, "host")
    host.measure(subject, Settings(say=lambda line: None, **{"runtimes": FAST, "runs": 3} | settings), journal)
    return journal


def test_rows_hold_what_the_format_promises(bundle):
    rows = {row.runtime: row for row in measured(bundle, runs=12).results}
    assert list(rows) == ["torch-folded", "onnxruntime"]
    assert (rows["onnxruntime"].own_file, rows["torch-folded"].own_file) == (True, False)
    for row in rows.values():
        assert (row.kind, row.place, row.scope, row.runs, row.threads) == ("measured", "host", "frame", 12, 1)
        assert 0 < row.p50_ms <= row.p90_ms
        assert row.p99_ms is None, "12 frames have no 99th percentile"
        assert row.first_ms > 0
        assert row.warmup_ms > 0
        assert row.runtime_version
        assert row.soc
        (image,) = row.parity
        assert image["passed"] is True
        assert image["psnr_db"] > 100
    assert rows["onnxruntime"].taken == rows["torch-folded"].taken, "one run: only such rows are compared"


def test_the_command_shows_judges_and_keeps(bundle, capfd):
    done = run(
        capfd, "benchmark", bundle, "--on", "host", "--runtime", "onnxruntime", "--runs", 3, "--budget-ms", 10000
    )
    assert done.code == 0, done.err
    assert "MEASURED" in done.out
    assert "ESTIMATED" in done.out
    assert "measured p50" in done.out
    over = run(
        capfd, "benchmark", bundle, "--on", "host", "--runtime", "onnxruntime", "--runs", 3, "--budget-ms", 0.001
    )
    assert over.code == 1
    assert "is over the budget of 0.001 ms" in over.sentence
    # Measured on this host, not on the chip of the budget: without --on the estimate is what there is.
    later = run(capfd, "benchmark", bundle, "--budget-ms", 10000, "--json")
    assert later.code == 0
    answer = json.loads(later.out)
    assert "estimated" in answer["budget"]["sentence"]
    assert {row["kind"] for row in answer["results"]} == {"measured", "estimated"}
    refused = run(capfd, "benchmark", bundle, "--budget-ms", 10000, "--require", "measured")
    assert refused.code == 1
    assert "no measured p50 of this model file" in refused.sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--serial", "x"], "--serial belongs to --on adb"),
        (["--on", "host", "--unit", "npu"], "--unit belongs to --on aihub"),
        (["--require", "measured"], "--require says what --budget-ms judges"),
        (["--budget-ms", "nan"], "nan is not a number to measure with"),
        (["--on", "host", "--sustained", "nan"], "nan is not a number to measure with"),
        (["--chart", "chart.txt"], "should end in .png"),
        (["--device", "Nokia 3310"], "no numbers are known for the device"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_nothing_would_read_are_refused(bundle, options, sentence, capfd):
    done = run(capfd, "benchmark", bundle, *options)
    assert done.code == 2
    assert sentence in done.sentence


def test_a_chart_never_replaces_a_file_of_the_bundle(bundle, capfd, tmp_path):
    inside = run(capfd, "benchmark", bundle, "--chart", bundle / "texture.png", "--force")
    assert (inside.code, "lies in the bundle" in inside.sentence) == (2, True)
    assert run(capfd, "benchmark", bundle, "--chart", tmp_path / "chart.png").code == 0
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_a_bundle_that_cannot_keep_results_is_refused_before_anything_is_measured(bundle, capfd, tmp_path):
    shutil.copytree(bundle, tmp_path / "b", ignore=shutil.ignore_patterns("measurements"))
    (tmp_path / "b" / "measurements").write_text("a file")
    done = run(capfd, "benchmark", tmp_path / "b", "--on", "host")
    assert done.code == 2
    assert "cannot keep results (it is a file)" in done.sentence
    assert "timing" not in done.err


def test_random_numbers_are_named_in_the_rows(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "b")
    path = tmp_path / "b" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["avatar"]["created"] = "another day"
    path.write_text(json.dumps(manifest))
    rows = {row.runtime: row for row in measured(tmp_path / "b").results}
    assert rows["torch-folded"].notes == (host_bilayer.RANDOM,)
    assert rows["torch-folded"].parity == ()
    assert rows["onnxruntime"].notes == (), "the bundle's own file has its own numbers"
    assert rows["onnxruntime"].parity[0]["passed"]


def test_wrong_requests_are_one_sentence(bundle, tmp_path, capfd):
    assert (
        "no runtime 'snpe' on this host"
        in run(capfd, "benchmark", bundle, "--on", "host", "--runtime", "snpe").sentence
    )
    nothing = run(capfd, "benchmark", tmp_path, "--on", "host")
    assert (nothing.code, "is not a bundle" in nothing.sentence) == (2, True)
    avatar = Avatar.load(shipped("default.avatar"))
    avatar.facts["created"] = "another day"
    avatar.save(tmp_path / "other.avatar")
    with pytest.raises(BadInput, match="is not the avatar of"):
        measured(bundle, avatar=tmp_path / "other.avatar")


def test_a_changed_model_file_is_not_executed(bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    with open(copy / "render.onnx", "ab") as stream:
        stream.write(b"x")
    with pytest.raises(BadInput, match=r"render\.onnx differs from what was exported; export the bundle again"):
        open_subject(copy)


def _open_failing(after: int, error: BaseException):
    calls = []

    def open_run(exported, threads):
        real = host_runtimes._open_onnxruntime(exported, threads)

        def run_(keypoints: np.ndarray):
            calls.append(1)
            if len(calls) > after:
                raise error
            return real(keypoints)

        return run_

    return open_run


def _with_open(monkeypatch, open_run) -> None:
    monkeypatch.setitem(
        host_runtimes.RUNTIMES, "onnxruntime", replace(host_runtimes.RUNTIMES["onnxruntime"], open=open_run)
    )


def test_a_runtime_that_stops_keeps_its_row_and_the_others_go_on(bundle, monkeypatch):
    _with_open(monkeypatch, _open_failing(8, RuntimeError("out of memory")))
    rows = {row.runtime: row for row in measured(bundle, runs=6).results}
    assert rows["onnxruntime"].error == "onnxruntime stopped: out of memory"
    assert rows["onnxruntime"].runs == 2
    assert "stopped after 2 of 6 frames" in rows["onnxruntime"].notes
    assert rows["torch-folded"].runs == 6


def test_an_interruption_keeps_what_was_timed(bundle, monkeypatch):
    _with_open(monkeypatch, _open_failing(9, KeyboardInterrupt()))
    before = len(stored_results(open_subject(bundle))[0])
    with pytest.raises(KeyboardInterrupt):
        measured(bundle, runs=50)
    rows = stored_results(open_subject(bundle))[0][before:]
    assert {row.runtime: row.runs for row in rows} == {"torch-folded": 4, "onnxruntime": 3}


def test_sustained_minutes_are_added_to_the_rows(bundle):
    journal = measured(bundle, sustained_min=0.02, runs=2)
    for row in journal.results:
        (minute,) = row.sustained
        assert minute.minute == 1
        assert minute.runs > 0
        assert minute.p50_ms > 0
    assert stored_results(open_subject(bundle))[0][-2:] == journal.results


@pytest.mark.parametrize(("most", "counts"), [(3, [1, 2, 3]), (12, [1, 2, 4, 8, 12])])
def test_threads_are_tried_one_by_one_and_then_in_powers(bundle, most, counts):
    subject = open_subject(bundle)
    bench = Bench(subject, Settings(threads=most), Journal(subject, "host"), "now", bundle)
    assert bench.thread_counts(host_runtimes.RUNTIMES["litert"]) == counts
    assert bench.thread_counts(host_runtimes.RUNTIMES["onnxruntime"]) == [1]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["snpe", "tflite", "executorch"])
def test_every_runtime_in_one_process(target, tmp_path):
    """In a process of its own: after ExecuTorch, LiteRT cannot prepare a file any more."""
    folder = export(tmp_path / target, "--target", target)
    arguments = ["benchmark", str(folder), "--on", "host", "--runs", "3", "--threads", "2", "--json"]
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [row for row in json.loads(done.stdout)["results"] if row["place"] == "host"]
    found = [(row["runtime"], row["threads"]) for row in rows]
    expected = ["torch-plain", "torch-folded", "litert", "litert", "onnxruntime", "executorch"]
    assert found == list(zip(expected, [1, 1, 1, 2, 1, 1], strict=True))
    assert not any(row["error"] for row in rows)
    assert all(row["parity"][0]["passed"] for row in rows)
    owners = {"tflite": {"litert"}, "executorch": {"executorch"}, "snpe": set()}
    assert {row["runtime"] for row in rows if row["own_file"]} == owners[target]
