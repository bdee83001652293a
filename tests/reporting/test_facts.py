"""The parts of a page: clean values, groups of times, pictures, charts, contents of files."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobile_avatar.benchmarking.result import Minute, OperatorTime, Result
from mobile_avatar.benchmarking.subject import open_subject
from mobile_avatar.errors import BadInput
from mobile_avatar.reporting import clean
from mobile_avatar.reporting.charts import nice_above, sustained_chart
from mobile_avatar.reporting.contents import read_contents
from mobile_avatar.reporting.frames import AMPLIFIED, make_frames
from mobile_avatar.reporting.latency import by_unit, columns, conditions, group, layers, methods
from mobile_avatar.reporting.sensitivity import read_sensitivity
from tests.reporting.rows import host_row, phone_row


def pixels(address: str) -> np.ndarray:
    content = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\nb\t c\x00", "a b c"),
        ("x\u202ey", "x y"),
        ("abcdefgh", "abcd…"),
        (None, ""),
        ({}, ""),
        (1.5, "1.5"),
    ],
)
def test_texts_are_printable_and_short(value, shown):
    assert clean.text(value, 5) == shown
    assert clean.text(10**5000) == "", "Python refuses to write such a number"


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), 10**400, 1e30, [1]])
def test_what_cannot_be_drawn_is_no_number(value):
    assert clean.number(value) is None


def rows_of(bundle: Path) -> tuple[Result, Result]:
    subject = open_subject(bundle)
    return host_row(subject), phone_row(subject)


def test_bars_compare_one_device_and_one_scope_only(split):
    host, phone = rows_of(split)
    slower = host_row(open_subject(split), p50_ms=32.0, threads=2)
    graph = host_row(open_subject(split), p50_ms=100.0, scope="graph")
    first, other, last = group([slower, host, phone, graph])
    assert [(row.ms, row.share) for row in first.rows] == [(8.0, 0.25), (32.0, 1.0)]
    assert (other.device, [row.share for row in other.rows]) == ("A Phone", [1.0])
    assert (last.device, [row.share for row in last.rows]) == ("this host", [1.0])


def test_a_group_shows_what_is_known_of_it(split):
    host, phone = rows_of(split)
    assert [name for name, _ in columns(group([host])[0])] == ["p90", "p99", "compose", "load", "first"]
    assert columns(group([phone])[0]) == []
    assert conditions(host)[:2] == ["this bundle's file", "50 runs"]
    assert methods(group([host, host_row(open_subject(split), threads=2)])[0]) == [
        ("timed in turns", ["litert fp32, XNNPACK, 1 thread", "litert fp32, XNNPACK, 2 threads"])
    ]


def test_operators_are_summed_by_unit_and_layers_by_time():
    operators = tuple(OperatorTime(f"l{i}", "CONV", "GPU" if i % 2 else "CPU", float(i)) for i in range(5))
    shares = by_unit((*operators, OperatorTime("x", "PAD", "", None), OperatorTime("y", "PAD", "", float("nan"))))
    assert [(s.type, s.unit, s.count, s.ms) for s in shares] == [
        ("CONV", "CPU", 3, 6.0),
        ("CONV", "GPU", 2, 4.0),
        ("PAD", "not told", 2, None),
    ]
    assert [(s.type, s.ms) for s in layers(operators, 2)] == [("l4", 4.0), ("l3", 3.0), ("2 further layers", 3.0)]
    assert layers(()) == []


def arrays(size: int, error: float) -> tuple[dict, dict]:
    rng = np.random.default_rng(0)
    golden = {"keypoints": np.zeros((3, 136), np.float32), "image": np.zeros((3, size, size, 3), np.float32)}
    golden["keypoints"][2] = rng.uniform(-1, 1, 136)
    made = golden["image"].copy()
    made[1, 5, 7] += error
    return golden, {"image": made}


@pytest.mark.parametrize("size", [64, 512])
def test_differences_have_a_fixed_scale_and_do_not_get_lost(size):
    levels = 255 / AMPLIFIED
    golden, made = arrays(size, levels / 127.5)
    found = make_frames(golden, made, "NHWC")
    assert [frame.case for frame in found.frames] == [0, 1, 2]
    assert [frame.why for frame in found.frames] == ["front pose", "drawn worst", "furthest from the front pose"]
    worst = found.frames[1]
    assert worst.largest == pytest.approx(levels, abs=0.01)
    heat = pixels(worst.difference)
    assert heat.shape[0] == min(size, 256)
    factor = size // heat.shape[0]
    bright = np.argwhere(heat.sum(axis=-1) > 300)
    assert bright.tolist() == [[5 // factor, 7 // factor]], "one pixel, as bright as the scale goes"
    assert pixels(found.scale)[0, -1].tolist() == heat[5 // factor, 7 // factor].tolist()
    assert pixels(found.frames[0].difference).sum(axis=-1).max() < 10


def test_a_file_that_did_not_run_has_no_pictures():
    golden, _ = arrays(64, 0)
    for frame in make_frames(golden, {}, "NHWC").frames:
        assert (frame.exported, frame.difference, frame.psnr_db) == ("", "", None)
        assert frame.torch


def test_values_that_are_not_finite_are_drawn_as_large_errors():
    golden, made = arrays(64, float("nan"))
    assert make_frames(golden, made, "NHWC").frames[1].largest == pytest.approx(255)


@pytest.mark.parametrize(("value", "end"), [(0, 1), (0.03, 0.03), (0.7, 0.8), (1, 1), (5.1, 6), (12, 20), (99, 100)])
def test_axes_end_at_readable_numbers(value, end):
    assert nice_above(value) == pytest.approx(end)


def test_long_runs_are_drawn_from_zero_and_escaped():
    chart = sustained_chart([Minute(1, 10, 5.0), Minute(2, 10, 10.0), Minute(3, 10, float("nan"))], "<b>")
    assert 'aria-label="&lt;b&gt;"' in chart
    assert chart.count("<circle") == 2
    assert ">0<" in chart
    assert ">10<" in chart
    assert sustained_chart([Minute(1, 10, 5.0)], "") == ""


def test_what_is_in_a_file_is_counted(native, split, tmp_path):
    found = read_contents(native / "render.onnx", "onnx", 64)
    assert found.operators["GridSample"] == 1
    assert found.constants["texture"] == 64 * 64 * 3 * 4
    assert found.constants["sampling grid"] == 64 * 64 * 2 * 4
    assert sum(found.constants.values()) < (native / "render.onnx").stat().st_size
    assert "texture" not in read_contents(split / "render.onnx", "onnx", 64).constants
    (tmp_path / "render.tflite").write_bytes(b"nothing")
    for target in ("tflite", "snpe", "onnx"):
        found = read_contents(tmp_path / "render.tflite", target, 64)
        assert found.operators == {}
        assert "render.tflite cannot be read" in found.reason
    assert "executorch" in read_contents(tmp_path / "render.tflite", "executorch", 64).reason


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"layers": 1}', '{"layers": [], "recipe": 3}'])
def test_other_folders_are_no_quantisation_reports(tmp_path, content):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(BadInput, match=r"report\.json is not a quantisation report"):
        read_sensitivity(tmp_path, {})


def test_a_quantisation_report_is_read_back(tmp_path):
    layer = {"name": "<i>heads</i>", "psnr_db": {"image": 30.0}, "worst_db": 29.0}
    fine = {"name": "mlp.0", "psnr_db": {"image": 50.0}, "worst_db": None}
    content = {"layers": [fine, layer, {"name": "x"}], "recipe": {"keep": ["<i>heads</i>"], "gain_db": 5.0}}
    (tmp_path / "report.json").write_text(json.dumps(content | {"avatar": {"person": "somebody"}}))
    Image.new("RGB", (2200, 100)).save(tmp_path / "size.png")
    found = read_sensitivity(tmp_path, {"person": "nobody"})
    assert found.layers == (("<i>heads</i>", 30.0, 29.0, True), ("mlp.0", 50.0, None, False))
    assert not found.same_avatar
    assert [pixels(address).shape for _, address in found.plots] == [(50, 1100, 3)]
    (tmp_path / "worst.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"worst\.png is damaged"):
        read_sensitivity(tmp_path, {})
