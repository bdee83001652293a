"""Bundles of several graphs on phones: file by file with the same tools, and what that says about a frame."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.benchmarking import phone
from mobile_avatar.benchmarking.one_by_one import measure_one_by_one
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import Result
from mobile_avatar.benchmarking.store import Journal, stored_results
from mobile_avatar.benchmarking.subject import Subject, open_subject
from mobile_avatar.errors import CheckFailed
from tests.benchmarking import phone_bench
from tests.benchmarking.scripted_phone import ScriptedPhone, write_tool
from tests.rome_bundles import rome_bundle

GRAPHS = ["encoder", "mesh", "renderer"]


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return open_subject(rome_bundle(tmp_path))


def golden(subject: Subject) -> dict[str, np.ndarray]:
    """What every graph should give, by the name of its output."""
    return {t.name: graph.golden(t) for graph in subject.graphs for t in graph.spec.outputs}


class Phone:
    """A scripted phone with the tests' own tool, which copies ready outputs of all graphs."""

    def __init__(self, root: Path, subject: Subject) -> None:
        self.subject = subject
        self.phone = ScriptedPhone(root / "phone")
        self.tools = root / "tools"
        self.tools.mkdir()
        write_tool(self.tools / "frame_timer", phone_bench.BODY)
        (self.tools / "libtimer.so").write_bytes(b"library")
        for number, (unit, mean) in enumerate((("CPU", 30), ("GPU", 10))):
            folder = self.phone.root / "tool" / unit
            folder.mkdir(parents=True)
            (folder.parent / f"{unit}.txt").write_text(f"unit={unit} mean={mean} p50={mean - 1}\n")
            for name, values in golden(subject).items():
                for case, value in enumerate(values):
                    (value + number * 2.0**-20).astype(np.float32).tofile(folder / f"{name}_{case}.raw")

    def measure(self) -> list[Result]:
        tool = phone_bench.tool(targets=("onnx",), delegates=("GPU", "CPU"), read_outputs=_read)
        self.journal = Journal(self.subject, "adb")
        measure = partial(phone.measure, transport=self.phone, table={"frame_timer": tool})
        settings = Settings(tools=self.tools, runs=5, say=lambda line: None)
        measure_one_by_one(measure, self.subject, settings, self.journal)
        return self.journal.results


def _read(run, output: Path) -> list[dict[str, np.ndarray]]:
    if not all((output / f"{t.name}_0.raw").stat().st_size for t in run.spec.outputs):
        raise CheckFailed("frame_timer wrote an empty output")
    return [
        {t.name: np.fromfile(output / f"{t.name}_{case}.raw", "<f4").reshape(t.shape) for t in run.spec.outputs}
        for case in range(len(run.inputs))
    ]


@pytest.fixture
def scripted(tmp_path, subject, monkeypatch) -> Phone:
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    for name in ("QAIRT_SDK_ROOT", "QNN_SDK_ROOT", "SNPE_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return Phone(tmp_path, subject)


def test_a_phone_gets_graph_by_graph(scripted):
    *rows, frame = scripted.measure()
    assert [(row.graph, row.delegate) for row in rows] == [(name, unit) for name in GRAPHS for unit in ("CPU", "GPU")]
    outputs = {"encoder": ["codes"], "mesh": ["positions", "normals"], "renderer": ["rgba"]}
    for row in rows:
        assert [check["output"] for check in row.parity] == outputs[row.graph]
        assert all(check["passed"] for check in row.parity)
        assert "the draw call is not in it" in row.method
    pushed = [Path(call[2]).parent.name for call in scripted.phone.calls("push") if call[2].endswith("model.onnx")]
    assert pushed == [f"mobile-avatar-{graph.model_sha256[:8]}" for graph in scripted.subject.graphs]
    assert (frame.graph, frame.scope, frame.kind, frame.device) == ("frame", "graph", "measured", "Pixel 4")
    assert (frame.mean_ms, frame.p50_ms, frame.delegate) == (30, None, "GPU")
    assert "encoder 10.00 ms (GPU), mesh 10.00 ms (GPU), renderer 10.00 ms (GPU)" in frame.method
    assert "the draw call between them is left out" in frame.method
    assert stored_results(scripted.subject)[0] == scripted.journal.results


def test_a_unit_with_wrong_outputs_is_not_in_the_frame(scripted):
    for case in range(8):
        path = scripted.phone.root / "tool" / "GPU" / f"normals_{case}.raw"
        (np.fromfile(path, "<f4") + 1).astype("<f4").tofile(path)
    frame = scripted.measure()[-1]
    assert (frame.mean_ms, frame.delegate) == (50, "GPU + CPU")
    assert all(check["passed"] for check in frame.parity)


def test_a_graph_that_fails_leaves_no_frame_and_spares_the_others(scripted):
    for unit in ("CPU", "GPU"):
        for case in range(8):
            (scripted.phone.root / "tool" / unit / f"positions_{case}.raw").write_bytes(b"")
    with pytest.raises(CheckFailed, match="nothing could be measured"):
        scripted.measure()
    rows = scripted.journal.results
    assert [row.graph for row in rows if not row.error] == ["encoder"] * 2 + ["renderer"] * 2
    assert {row.graph for row in rows if row.error} == {"mesh"}


def test_the_cloud_gets_graph_by_graph(subject, tmp_path, monkeypatch):
    pytest.importorskip("qai_hub", reason="the extra `hub` is not installed")
    from mobile_avatar.benchmarking import aihub
    from tests.benchmarking.hosted_phones import Service
    from tests.benchmarking.hub_account import QUICK, SAMPLE, write_account

    graphs = {graph.spec.inputs[0].name: graph for graph in subject.graphs}

    def answer(inputs: dict) -> dict:
        (name,) = inputs
        return {t.name: list(graphs[name].golden(t)[:, None]) for t in graphs[name].spec.outputs}

    service = Service(json.loads(SAMPLE.read_text()), answer)
    try:
        write_account(tmp_path / "client.ini", service.url)
        monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "client.ini"))
        journal, said = Journal(subject, "aihub"), []
        measure = partial(aihub.measure, wait_s=60.0, poll_s=0.0)
        measure_one_by_one(measure, subject, replace(QUICK, say=said.append), journal)
    finally:
        service.close()
    *rows, frame = journal.results
    assert [row.graph for row in rows] == GRAPHS
    assert [service.files[f"m{number}"] for number in range(3)] == [
        (subject.folder / f"{name}.onnx").read_bytes() for name in GRAPHS
    ]
    assert all(check["passed"] for row in rows for check in row.parity)
    assert frame.mean_ms == pytest.approx(sum(row.mean_ms for row in rows))
    assert "sending mesh.onnx to AI Hub; it holds the shape of the avatar's head" in said
