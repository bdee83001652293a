"""Pages of bundles of several graphs, alone and beside a bundle of one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.benchmarking.result import Result
from mobile_avatar.benchmarking.subject import Subject, open_subject
from mobile_avatar.reporting.collect import Facts, collect
from mobile_avatar.reporting.compare import compare, match
from mobile_avatar.reporting.page import render_comparison, render_report
from tests.cli.runner import run
from tests.reporting import chromium
from tests.reporting.chromium import Chromium
from tests.reporting.html import Page
from tests.reporting.rows import host_row, store
from tests.reporting.test_browser import BROKEN, CUT, FAILS, WIDTHS
from tests.rome_bundles import rome_bundle


def frame_rows(subject: Subject) -> list[Result]:
    """As `benchmark --on host` leaves them; the numbers are made up."""
    hashes = {graph.name: graph.model_sha256 for graph in subject.graphs}
    row = host_row(subject, runtime="onnxruntime", delegate="CPU", scope="graph", composite_p50_ms=None)
    times = {"encoder": 3.0, "mesh": 1.0, "renderer": 9.0, "draw": 7.0, "frame": 13.5}
    rows = [
        replace(row, graph=graph, p50_ms=ms, model_sha256=hashes.get(graph, row.model_sha256))
        for graph, ms in times.items()
    ]
    return [*rows, replace(rows[-1], scope="frame", p50_ms=20.5, composite_p50_ms=7.0)]


@pytest.fixture(scope="module")
def rome(tmp_path_factory) -> Path:
    """A bundle with stored measurements; look, do not touch."""
    folder = rome_bundle(tmp_path_factory.mktemp("rome"))
    subject = open_subject(folder)
    store(subject, *frame_rows(subject), place="host")
    return folder


@pytest.fixture(scope="module")
def facts(rome) -> Facts:
    return collect(rome)


@pytest.fixture(scope="module")
def page(facts) -> Page:
    return Page(render_report(facts))


def test_head_and_sections(page):
    for words in (
        "✓ Parity passed MEASURED",
        "3 graphs, 1 draw call",
        "64 × 64 px",
        "13.5 ms MEASURED 50 runs, this host, without the draw call",
        "Licence of the weights: Apache-2.0",
        "mobile-avatar export AVATAR --target onnx --precision fp32 -o rome",
    ):
        assert words in page.text
    assert "keypoint" not in page.text
    assert "warp" not in page.text
    anchors = [a["href"][1:] for a in page.all("a") if a["href"].startswith("#")]
    assert set(anchors) <= {attributes.get("id") for _, attributes in page.elements}
    assert "draw" in anchors
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in page.all("img"))


def test_parity_of_every_graph_and_from_end_to_end(facts, page):
    rows = [(row["graph"], row["output"]) for row in facts.parity_rows]
    outputs = [("encoder", "codes"), ("mesh", "positions"), ("mesh", "normals"), ("renderer", "rgba")]
    assert rows == [*outputs, ("frame", "drawn"), ("frame", "frame")]
    assert page.text.count("end to end") == 2
    for row in facts.parity_rows:
        assert f"{row['psnr_db']:.1f} dB" in page.text


def test_frames_are_drawn_by_the_files(rome, facts, page):
    """The picture of torch is the golden one on white, and the file's own is near it but made anew."""
    assert facts.frames.frames[0].case == 0
    rgba = np.load(rome / "golden" / "frame" / "rgba.npy").transpose(0, 2, 3, 1)
    white = (rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]) * 2 - 1
    assert np.allclose(facts.verified.golden["image"], white, atol=1e-6)
    made = facts.verified.results["image"]
    assert made.shape == white.shape
    assert 0 < np.abs(made - white).max() < 0.1
    assert [name for name, _, _ in facts.frames.layers] == ["input", "texture", "normals", "coverage", "mask"]
    assert "from the camera's picture, through all graphs" in page.text
    assert "the draw call in between was made in software" in page.text


def test_size_operators_and_draw_call(rome, facts, page):
    manifest = json.loads((rome / "manifest.json").read_text())
    for row, graph in zip(manifest["graphs"], facts.graphs, strict=True):
        assert (graph.name, graph.macs) == (row["name"], row["macs"])
        assert graph.bytes == (rome / f"{row['name']}.onnx").stat().st_size
        assert f"{sum(graph.contents.operators.values())} operators, counted from {row['name']}.onnx" in page.text
    assert facts.contents.operators["Conv"] == sum(graph.contents.operators.get("Conv", 0) for graph in facts.graphs)
    carried = ["encoder.onnx", "mesh.onnx", "renderer.onnx", "texture.f16", "corners.u16", "uv.f32"]
    carried += ["mesh.vert", "mesh.frag"]
    assert facts.app_bytes == sum((rome / name).stat().st_size for name in carried)
    assert f"draws {manifest['draw']['triangles']} triangles of {manifest['draw']['vertices']} vertices" in page.text
    assert "the shaders did not run for this page" in page.text


def test_latency_and_estimate_by_graph(facts, page):
    scopes = [(found.scope.partition(":")[0], len(found.rows)) for found in facts.groups]
    assert scopes == [("all graphs of a frame, nothing else", 1), ("parts of a frame", 4), ("whole frames", 1)]
    assert "draw call in software (torch); on a phone the GPU draws" in page.text
    assert "Within budget ESTIMATED" in page.text, "the host is not the chip of the budget"
    assert [row.graph for row in facts.estimates] == ["encoder", "mesh", "renderer"]
    for row in (facts.estimates[0], facts.estimates[2]):
        assert f"{row.low_ms:.2f} to {row.high_ms:.2f} ms" in page.text
    assert "looking up vertices" in page.text
    assert "the draw call of the GPU, the mesh graph on the CPU" in page.text


def test_a_damaged_graph_is_told_and_not_run(rome, tmp_path):
    folder = shutil.copytree(rome, tmp_path / "damaged")
    (folder / "mesh.onnx").write_bytes(b"damaged")
    page = Page(render_report(collect(folder)))
    for words in (
        "✕ Parity failed",
        "✕ Hash check failed mesh.onnx differs",
        "Not every file was executed for this page: mesh.onnx differs",
        "Not counted: not opened: mesh.onnx differs",
        "No measurement counts: mesh.onnx differs",
    ):
        assert words in page.text
    assert not any("drawn by the exported files" in image["alt"] for image in page.all("img"))


def test_a_changed_texture_is_no_matter_of_the_models(rome, tmp_path):
    folder = shutil.copytree(rome, tmp_path / "texture")
    (folder / "texture.f16").write_bytes(b"short")
    page = Page(render_report(collect(folder)))
    assert "? Parity not run here" in page.text
    assert "texture.f16 is missing or damaged" in page.text
    assert "✕ Hash check failed texture.f16 differs" in page.text


def test_beside_a_bundle_of_one_graph(facts, split, rome):
    bilayer = collect(split)
    pair = compare(bilayer, facts)
    page = Page(render_comparison(pair))
    assert "so no frame is of the same" in page.text
    assert "encoder, mesh, renderer" in page.text
    found = next(item for item in pair.matches if item.ratio is not None)
    assert (found.first.runtime, found.first.scope, found.second.graph) == ("onnxruntime", "frame", "frame")
    assert (found.first_ms, found.second_ms, found.ratio) == (8.0, 20.5, 20.5 / 8)
    assert pair.one_run, "both fixtures carry the same time"
    assert "one run, in which both were timed in turns" in page.text
    assert pair.estimates.ratio is None
    assert "leaves the mesh graph out" in page.text
    assert not any((item.first or item.second).graph == "encoder" for item in pair.matches)
    other = compare(facts, bilayer)
    assert "so no frame is of the same" in Page(render_comparison(other)).text


def test_two_of_several_graphs_are_compared_graph_by_graph(facts, rome):
    rows = frame_rows(open_subject(rome))
    found = match(rows, [replace(row, p50_ms=row.p50_ms * 2) for row in rows])
    assert [(item.first.graph, item.first.scope, item.ratio) for item in found] == [
        (row.graph, row.scope, 2.0) for row in rows
    ]
    pair = compare(facts, facts)
    assert pair.same_golden
    assert len(pair.frames) == 3
    Page(render_comparison(pair))


def test_the_command_refuses_what_would_damage_or_means_nothing(rome, tmp_path, capfd):
    inside = run(capfd, "report", rome, "--force", "-o", rome / "renderer.onnx")
    assert (inside.code, "is not an HTML file" in inside.sentence) == (2, True)
    folder = run(capfd, "report", rome, "--sensitivity", tmp_path, "-o", tmp_path / "r.html")
    assert (folder.code, "has no integer precisions" in folder.sentence) == (2, True)


@pytest.mark.slow
@pytest.mark.skipif(chromium.PATH is None, reason="Chromium is not on this machine")
def test_pages_in_a_browser(facts, split, tmp_path):
    contents = {"rome": render_report(facts), "both": render_comparison(compare(collect(split), facts))}
    with Chromium() as browser:
        for name, content in contents.items():
            path = tmp_path / f"{name}.html"
            path.write_text(content)
            for width in WIDTHS:
                browser.open(path, width)
                assert browser.complaints() == []
                assert browser.requests() == [path.resolve().as_uri()]
                assert browser.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
                assert (browser.evaluate(BROKEN), browser.evaluate(CUT)) == ("", ""), (name, width)
            for dark in (False, True):
                browser.open(path, dark=dark)
                assert browser.evaluate(FAILS) == "", (name, dark)
