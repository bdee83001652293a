"""Two bundles: what differs stands out, and ratios stand only where both numbers mean the same."""

from dataclasses import replace

import numpy as np
import pytest

from mobile_avatar.benchmarking.subject import open_subject
from mobile_avatar.files import sha256
from mobile_avatar.models.bilayer.config import BilayerConfig
from mobile_avatar.reporting.collect import collect
from mobile_avatar.reporting.compare import compare, match
from mobile_avatar.reporting.page import render_comparison
from tests.reporting.bundles import SMALLEST, export
from tests.reporting.html import Page
from tests.reporting.rows import host_row, phone_row, store
from tests.reporting.test_page import changed


@pytest.fixture(scope="module")
def row(split):
    return host_row(open_subject(split))


def test_the_same_runtime_is_compared_first(row):
    torch = replace(row, runtime="torch-plain", own_file=False, p50_ms=20.0)
    found = match([row, torch], [replace(torch, p50_ms=30.0), replace(row, p50_ms=4.0)])
    assert {(item.first.runtime, item.second.runtime, item.ratio) for item in found} == {
        ("torch-plain", "torch-plain", 1.5),
        ("litert", "litert", 0.5),
    }


def test_files_of_different_runtimes_are_compared_as_files(row):
    (item,) = match([row], [replace(row, runtime="onnxruntime", delegate="CPU", p50_ms=16.0)])
    assert item.ratio == 2.0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"threads": 2}, "different threads"),
        ({"power_mode": "burst", "threads": 4}, "different threads and power mode"),
        ({"p50_ms": None, "mean_ms": 9.0}, "different statistic"),
    ],
)
def test_rows_of_other_circumstances_get_no_ratio(row, change, why):
    (item,) = match([row], [replace(row, **change)])
    assert (item.ratio, item.why) == (None, why)


@pytest.mark.parametrize(
    "change",
    [{"kind": "simulated"}, {"scope": "graph"}, {"own_file": False, "runtime": "x"}],
    ids=lambda change: next(iter(change)),
)
def test_rows_that_are_something_else_are_not_paired(row, change):
    found = match([row], [row, replace(row, **change)])
    assert [item.ratio for item in found if item.first and item.second] == [1.0]
    assert {item.why for item in found if not (item.first and item.second)} <= {"no counterpart"}


@pytest.mark.parametrize("change", [{"device": "other"}, {"soc": "other"}, {"os": "other"}, {"error": "broken"}])
def test_other_devices_and_failures_are_left_out(row, change):
    assert [item for item in match([row], [replace(row, **change)]) if item.second] == []


def test_what_the_machine_did_between_two_runs_is_told(split, native, tmp_path):
    other = changed(split, tmp_path)
    subject = open_subject(other)
    store(subject, host_row(subject, runtime="torch-plain", delegate="", own_file=False, p50_ms=20.0, taken="2027"))
    pair = compare(collect(split), collect(other))
    assert pair.control is None, "the other runtime was not timed in that run"
    assert "The two were timed in different runs, so a busier machine" in Page(render_comparison(pair)).text
    store(subject, host_row(subject, runtime="onnxruntime", delegate="CPU", taken="2027"))
    pair = compare(collect(split), collect(other))
    assert pair.control == 1.25
    assert "took 1.25 × as long for B as for A" in Page(render_comparison(pair)).text
    assert compare(collect(split), collect(native)).control is None, "other work"


def test_bundles_of_different_warps(split, native):
    pair = compare(collect(split), collect(native))
    lines = {line.label: line for line in pair.lines}
    assert lines["warp"].differs
    assert not lines["target"].differs
    assert lines["model file"].ratio == pytest.approx(
        (native / "render.onnx").stat().st_size / (split / "render.onnx").stat().st_size
    )
    assert {output: change is None for output, *_, change in pair.parity} == {
        "uv": True,
        "lf": True,
        "mask": True,
        "image": False,
    }
    assert pair.same_golden
    assert len(pair.frames) == 3
    assert all(a.case == b.case and a.exported and b.exported for a, b in pair.frames)
    page = Page(render_comparison(pair))
    assert "Torch draws the same for both" in page.text
    assert "split and native" in page.text
    assert "no such output" in page.text
    assert "There is no such device yet" in page.text
    assert page.all("script") == []
    assert all(image["alt"] for image in page.all("img"))


def test_bundles_of_different_sizes_and_keypoints(split, tmp_path):
    larger = BilayerConfig(**SMALLEST.to_dict() | {"image_size": 128})
    other = export(tmp_path / "<b>larger", config=larger)
    subject = open_subject(other)
    store(subject, phone_row(subject, p50_ms=10.0))
    pair = compare(collect(split), collect(other))
    assert not pair.same_golden
    text = Page(render_comparison(pair)).text
    assert "<b>larger" in text
    assert "64 × 64 px 128 × 128 px" in text
    assert "torch A torch B file A" in text
    side = "litert fp32, GPU, p50, 50 runs, 2026-01-02 03:04 UTC"
    assert f"A Phone graph alone MEASURED 5.00 ms {side} 10.0 ms {side} 2.00 ×" in text

    moved = changed(split, tmp_path)
    path = moved / "golden" / "keypoints.npy"
    np.save(path, np.load(path) * 0.5)
    files = collect(moved).manifest["files"]
    named = [entry | {"sha256": sha256(moved / entry["path"])} for entry in files]
    third = changed(moved, tmp_path / "again", files=named)
    pair = compare(collect(split), collect(third))
    assert pair.frames == ()
    assert "they were checked on different golden keypoints" in Page(render_comparison(pair)).text


def test_a_damaged_one_is_shown_beside_a_good_one(split, native, tmp_path):
    folder = changed(native, tmp_path)
    (folder / "render.onnx").write_bytes(b"x")
    text = Page(render_comparison(compare(collect(split), collect(folder)))).text
    assert "✓ Parity passed" in text
    assert "✕ Parity failed" in text
    assert "B: not run here" in text
    assert "B was not run here: render.onnx differs from what was exported" in text
    (folder / "golden" / "image.npy").write_bytes(b"x")
    text = Page(render_comparison(compare(collect(split), collect(folder)))).text
    assert "Not shown side by side: the golden files of one of them are damaged" in text
