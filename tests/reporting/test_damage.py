"""Pages of bundles in which a file was changed: what failed is called by its name, and nothing else is."""

import numpy as np
import pytest

from mobile_avatar.reporting.collect import collect
from mobile_avatar.reporting.page import render_report
from tests.reporting.html import Page
from tests.reporting.test_page import changed, page_of


def test_a_damaged_model_is_told_in_red_and_not_run(split, tmp_path):
    folder = changed(split, tmp_path)
    (folder / "render.onnx").write_bytes(b"damaged")
    facts = collect(folder)
    assert (facts.parity.state, facts.hashes.state, facts.budget.state) == (False, False, None)
    page = Page(render_report(facts))
    assert "✕ Parity failed" in page.text
    assert "✕ Hash check failed render.onnx differs from what was exported" in page.text
    assert "The file was not executed for this page: render.onnx differs from what was exported" in page.text
    assert "The file itself was executed" not in page.text
    assert page.text.count("not run here") >= 4, "three frames, and the reason above them"
    assert not any("drawn by the exported file" in image["alt"] for image in page.all("img"))
    assert "5.00 p50" not in page.text, "the measurements were of another file"


@pytest.mark.parametrize("damage", ["differs from what was exported", "is missing"])
def test_a_damaged_table_of_layers_is_no_failed_parity(native, tmp_path, damage):
    folder = changed(native, tmp_path)
    (folder / "layers.json").write_text("{}")
    if damage == "is missing":
        (folder / "layers.json").unlink()
    page = page_of(folder)
    assert "✓ Parity passed MEASURED" in page.text
    assert f"✕ Hash check failed layers.json {damage}. Export the bundle again" in page.text
    assert f"? Budget not judged No estimate: layers.json {damage}; export the bundle again. No measured" in page.text
    assert f"There is no estimate: layers.json {damage}" in page.text
    assert "The file itself was executed" in page.text
    assert page.text.count("FAILED") == 1, "the check of the hashes"


@pytest.mark.parametrize("name", ["golden/image.npy", "texture.f16"])
def test_golden_files_that_cannot_be_read(split, tmp_path, name):
    folder = changed(split, tmp_path)
    (folder / name).write_bytes(b"other")
    page = page_of(folder)
    assert "? Parity not run here" in page.text
    assert f"✕ Hash check failed {name} differs from what was exported" in page.text
    assert f"{name} is missing or damaged" in page.text
    assert "The file was not executed for this page" in page.text


def test_other_golden_frames_judge_nothing(split, tmp_path):
    folder = changed(split, tmp_path)
    path = folder / "golden" / "image.npy"
    np.save(path, np.load(path) * np.float32(0.5))
    facts = collect(folder)
    assert (facts.parity.state, facts.parity.word, facts.hashes.state) == (None, "not judged", False)
    text = Page(render_report(facts)).text
    assert "? Parity not judged golden/image.npy differs from what was exported" in text
    assert "Parity failed" not in text


def test_a_damaged_file_that_only_checking_needs(split, tmp_path):
    """A Snapdragon bundle has its ONNX source beside the model; here another file plays that role."""
    folder = changed(split, tmp_path, roles={"model": "render.onnx", "source": "layers.json"})
    (folder / "layers.json").write_text("{}")
    facts = collect(folder)
    assert (facts.parity.state, facts.parity.word, facts.executed) == (None, "not run", False)
    text = Page(render_report(facts)).text
    assert "The file was not executed for this page: layers.json differs from what was exported" in text
    assert text.count("FAILED") == 1, "the check of the hashes"


def test_an_undamaged_bundle_has_no_card_about_hashes(content):
    assert "Hash check failed" not in content
