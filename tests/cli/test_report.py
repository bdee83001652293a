"""`mobile-avatar report` as typed: one bundle, two bundles, and what is refused in one sentence."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.runner import run
from tests.reporting.bundles import export
from tests.reporting.html import Page


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return export(tmp_path_factory.mktemp("cli") / "desktop", "native")


def test_one_bundle(bundle, capfd, tmp_path):
    output = tmp_path / "new" / "page.html"
    done = run(capfd, "report", bundle, "-o", output)
    assert (done.code, done.err) == (0, "")
    assert "desktop: parity passed: The file computes what torch computes" in done.out
    assert "desktop: budget" in done.out
    assert f"wrote {output}" in done.out
    assert "Parity passed" in Page(output.read_text()).text
    assert [path.name for path in output.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    "form", ["--compare {0} {0} -o {1}", "{0} -o {1} --compare {0}", "{0} {0} --compare -o {1}"], ids=str
)
def test_two_bundles_in_either_order(bundle, capfd, tmp_path, form):
    output = tmp_path / "both.html"
    assert run(capfd, "report", *form.format(bundle, output).split()).code == 0
    assert "desktop and desktop" in Page(output.read_text()).text


def test_json_and_the_default_names(bundle, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(capfd, "report", bundle, "--json")
    answer = json.loads(done.out)
    assert (answer["page"], answer["bytes"]) == ("report.html", Path("report.html").stat().st_size)
    assert answer["bundles"][0]["parity"] == "passed"
    assert done.err == ""


def test_a_damaged_file_gets_its_page_and_no_error(bundle, capfd, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    (folder / "render.onnx").write_bytes(b"x")
    done = run(capfd, "report", folder, "-o", tmp_path / "page.html")
    assert done.code == 0
    assert "parity failed: render.onnx differs from what was exported" in done.out
    assert "files changed: render.onnx differs from what was exported" in done.out
    assert "Parity failed" in (tmp_path / "page.html").read_text()


def test_an_old_page_needs_force_and_survives_a_failure(bundle, capfd, tmp_path):
    output = tmp_path / "page.html"
    output.write_text("old")
    done = run(capfd, "report", bundle, "-o", output)
    assert (done.code, output.read_text()) == (2, "old")
    assert "--force" in done.sentence
    done = run(capfd, "report", tmp_path, "-o", output, "--force")
    assert (done.code, output.read_text()) == (2, "old")
    assert run(capfd, "report", bundle, "-o", output, "--force").code == 0
    assert output.read_text() != "old"


@pytest.mark.parametrize("there", [True, False], ids=["there", "missing"])
def test_no_page_is_written_onto_a_file_of_the_bundle(bundle, capfd, tmp_path, there):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"].append({"path": "about.html", "sha256": "0" * 64, "bytes": 3})
    manifest["roles"]["model"] = "render.html"
    for entry in manifest["files"]:
        entry["path"] = entry["path"].replace("render.onnx", "render.html")
    (folder / "render.onnx").rename(folder / "render.html")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if there:
        (folder / "about.html").write_text("old")
    (tmp_path / "link").symlink_to(folder)
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    for name in ("bundle/render.html", "bundle/about.html", "link/about.html", "bundle/golden/../about.html"):
        for arguments in ((folder,), ("--compare", bundle, folder)):
            done = run(capfd, "report", *arguments, "-o", tmp_path / name, "--force")
            assert done.code == 2
            assert "belongs to the bundle" in done.sentence
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before
    assert run(capfd, "report", folder, "-o", folder / "page.html").code == 0, "beside them it may lie"


WRONG = {
    "{0} {0} -o x.html": "takes one bundle, not 2",
    "--compare {0} -o x.html": "takes two bundles, not 1",
    "--compare {0} {0} {0}": "takes two bundles, not 3",
    "--compare {0} {0} --sensitivity {0}": "leave --compare out",
    "{0} -o manifest.json": "is not an HTML file",
    "{0} -o .": "is not an HTML file",
    "{0} --sensitivity {0}": "is not a quantisation report",
    "missing": "is not a bundle",
    "": "Missing argument",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_usage_is_one_sentence(bundle, capfd, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = run(capfd, "report", *arguments.format(bundle).split())
    assert done.code == 2
    assert WRONG[arguments] in done.sentence
    assert list(tmp_path.iterdir()) == []
