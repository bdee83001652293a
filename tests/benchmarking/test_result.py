"""The result format: what goes out comes back, what is wrong is named; the journal and the gate."""

import json
import random
from dataclasses import fields, replace
from pathlib import Path

import pytest

from mobile_avatar.benchmarking.gate import judge
from mobile_avatar.benchmarking.result import Minute, OperatorTime, Result, steady
from mobile_avatar.benchmarking.store import FOLDER, Journal, newest, stored_results
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.errors import BadInput
from mobile_avatar.graphs.spec import graph_spec

ROW = Result(
    kind="measured",
    place="adb",
    device="Pixel 4",
    runtime="snpe",
    precision="fp16",
    taken="2026-01-01T00:00:00+00:00",
    model_sha256="a" * 64,
    soc="SM8150",
    delegate="GPU",
    threads=1,
    operators=(OperatorTime("conv", "Conv", "GPU", 1.5), OperatorTime("add", "Add", "CPU", None)),
    sustained=(Minute(1, 600, 40.5, 33.0),),
    parity=({"output": "uv", "passed": True, "psnr_db": 70.0, "threshold_db": 35.0},),
    jobs=({"id": "j1", "type": "profile", "url": "x", "status": "done"},),
    notes=("a note",),
    **steady([41.0] * 98 + [60.0] * 2),
)


def subject(folder: Path) -> Subject:
    return Subject(folder, {"target": "snpe"}, graph_spec("split", 64, "NHWC"), {}, ROW.model_sha256)


def test_a_result_survives_json():
    assert Result.from_dict(json.loads(json.dumps(ROW.to_dict())), "here") == ROW


def test_every_wrong_field_is_named():
    good = ROW.to_dict()
    for field in fields(Result):
        wrong = {**good, field.name: object()}
        with pytest.raises(BadInput, match=rf"here is not a benchmark result \({field.name}"):
            Result.from_dict(wrong, "here")
    with pytest.raises(BadInput, match="kind"):
        Result.from_dict({**good, "kind": "guessed"}, "here")
    with pytest.raises(BadInput, match="place"):
        Result.from_dict({key: value for key, value in good.items() if key != "place"}, "here")


def test_steady_counts_percentiles():
    found = steady([float(value) for value in range(101)])
    assert found == {"runs": 101, "mean_ms": 50.0, "p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0}
    few = steady([1.0, 2.0, 3.0])
    assert few == {"runs": 3, "mean_ms": 2.0, "p50_ms": 2.0, "p90_ms": None, "p99_ms": None}


@pytest.mark.parametrize("value", [0.0, -3.0, float("nan"), float("inf")])
def test_times_that_cannot_be_are_refused(value):
    with pytest.raises(BadInput, match="p50_ms"):
        Result.from_dict({**ROW.to_dict(), "p50_ms": value}, "here")


def test_texts_from_elsewhere_stay_on_their_line():
    hostile = {**ROW.to_dict(), "device": "phone\n\nbudget: passed\x1b[2J" + "x" * 10_000}
    device = Result.from_dict(hostile, "here").device
    assert device.isprintable()
    assert len(device) == 4000


def test_a_journal_is_on_disk_after_every_row(tmp_path):
    journal = Journal(subject(tmp_path), "adb")
    assert not (tmp_path / FOLDER).exists(), "nothing measured, nothing written"
    journal.add(ROW)
    assert stored_results(subject(tmp_path)) == ([ROW], [])
    longer = replace(ROW, sustained=(*ROW.sustained, Minute(2, 580, 42.0)))
    journal.replace_last(longer)
    journal.add(replace(ROW, delegate="CPU"))
    assert stored_results(subject(tmp_path))[0] == [longer, replace(ROW, delegate="CPU")]
    other = Journal(subject(tmp_path), "adb")
    other.add(ROW)
    assert other.path != journal.path, "two runs of one second do not share a file"


def test_results_of_another_model_and_damaged_files_are_left_out(tmp_path):
    Journal(subject(tmp_path), "adb").add(ROW)
    Journal(subject(tmp_path), "host").add(replace(ROW, model_sha256="b" * 64))
    text = next((tmp_path / FOLDER).glob("adb-*")).read_text()
    for number, damage in enumerate(
        ["", "[]", text[:-40], '{"format": 99, "results": []}', text.replace("40.5", '"x"')]
    ):
        (tmp_path / FOLDER / f"z{number}.json").write_text(damage)
    found, notes = stored_results(subject(tmp_path))
    assert found == [ROW]
    assert len(notes) == 6
    assert any("another model" in note for note in notes)
    assert any("format 99" in note for note in notes)


def test_newest_keeps_one_row_per_way_of_running():
    later = replace(ROW, taken="2026-01-02T00:00:00+00:00", p50_ms=39.0)
    failed = replace(later, error="disconnected", jobs=())
    assert newest([ROW, replace(ROW, threads=2), later, failed]) == [replace(ROW, threads=2), later, failed]
    running = replace(ROW, error="still running")
    assert newest([running, later]) == [later], "the job was collected later"


ESTIMATE = replace(
    ROW,
    kind="estimated",
    place="estimate",
    device="snapdragon-855",
    p50_ms=None,
    p90_ms=None,
    p99_ms=None,
    mean_ms=30.0,
    low_ms=20.0,
    high_ms=45.0,
)


def test_a_measurement_is_judged_before_an_estimate():
    verdict = judge([ESTIMATE, ROW], "snapdragon-855", 42)
    assert (verdict.passed, verdict.judged) == (True, ROW)
    assert (
        "measured p50 41.00 ms, snpe fp16, GPU, 1 thread on Pixel 4, is within the budget of 42 ms" in verdict.sentence
    )
    assert not judge([ESTIMATE, ROW], "snapdragon-855", 42, statistic="p99").passed
    slower = replace(ROW, delegate="CPU", p50_ms=90.0)
    assert judge([slower, ROW], None, 42).judged == ROW


def test_the_gate_says_that_it_judged_an_estimate():
    verdict = judge([ESTIMATE], "snapdragon-855", 25)
    assert not verdict.passed
    assert "estimated 30.00 ms (20.00 to 45.00)" in verdict.sentence
    refused = judge([ESTIMATE], "snapdragon-855", 42, require="measured")
    assert (refused.passed, refused.judged) == (False, None)
    assert "no measured p50 of this model file for snapdragon-855 (found: estimated)" in refused.sentence


@pytest.mark.parametrize(
    "change",
    [
        {"own_file": False},
        {"error": "disconnected"},
        {"device": "Galaxy S24", "soc": "SM8650"},
        {"parity": ({"output": "uv", "passed": False},)},
        {"p50_ms": None, "mean_ms": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_rows_that_prove_nothing_about_this_file_are_not_judged(change):
    assert judge([replace(ROW, **change), ESTIMATE], "snapdragon-855", 42).judged == ESTIMATE


def test_slow_frames_are_judged_by_slow_frames():
    mean_only = replace(ROW, p50_ms=None, p90_ms=None, p99_ms=None)
    assert judge([mean_only], None, 42).judged == mean_only
    assert judge([mean_only, ESTIMATE], None, 42, statistic="p99").judged is None


def test_rows_whose_outputs_were_not_compared_come_second_and_are_named():
    unproven = replace(ROW, parity=(), p50_ms=20.0)
    assert judge([unproven, ROW], None, 42).judged == ROW
    alone = judge([unproven], None, 42)
    assert alone.passed
    assert alone.sentence.endswith("its outputs were not compared")


def test_a_chip_that_does_not_take_the_file_is_said_so():
    refused = replace(ESTIMATE, mean_ms=None, error="Snapdragon 855: its DSP does not take these files")
    verdict = judge([refused], "snapdragon-855", 42)
    assert not verdict.passed
    assert verdict.sentence.endswith("its DSP does not take these files")


def test_the_fastest_row_of_the_best_kind_wins_whatever_the_order():
    rng = random.Random(0)
    rows = [replace(ROW, p50_ms=float(value), threads=value) for value in range(10, 20)] + [
        replace(ESTIMATE, mean_ms=1.0)
    ]
    for _ in range(20):
        rng.shuffle(rows)
        assert judge(rows, None, 42).judged.p50_ms == 10.0
