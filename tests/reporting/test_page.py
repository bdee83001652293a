"""The page of one bundle: it says what is known, nothing else, and shows foreign text as text."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.benchmarking.subject import open_subject
from mobile_avatar.errors import BadInput
from mobile_avatar.reporting.collect import collect
from mobile_avatar.reporting.page import render_report
from tests.reporting.html import Page
from tests.reporting.rows import phone_row, store

LARGEST = 3_000_000  # characters of a page that can still be mailed


def page_of(bundle: Path) -> Page:
    return Page(render_report(collect(bundle)))


def changed(bundle: Path, place: Path, **fields: object) -> Path:
    """A copy of a bundle with other fields in its manifest."""
    folder = place / bundle.name
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | fields))
    return folder


def test_the_page_needs_nothing_else_and_is_accessible(content):
    assert len(content) < LARGEST
    page = Page(content)
    assert page.all("script") == []
    assert page.all("link") == []
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    for image in page.all("img"):
        assert image["src"].startswith("data:image/png;base64,")
        assert image["alt"]
    assert not re.search(r"url\(|@import", content.replace('clip-path="url(#', ""))
    followed = [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    assert followed == ["https://jobs.example/j1"]
    assert len(page.all("table")) == len(page.all("caption")) >= 7
    assert all("scope" in attributes for attributes in page.all("th"))
    targets = {attributes.get("id") for _, attributes in page.elements}
    assert {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")} <= targets
    assert len(page.all("h1")) == 1


def test_head_parity_and_origin(split, content):
    text = Page(content).text
    assert "✓ Parity passed MEASURED" in text
    for words in ("onnx", "fp32", "split warp", "desktop", "64 × 64 px", "CC0-1.0", "sha256 " + "ab" * 32, "nobody"):
        assert words in text
    for row in json.loads((split / "manifest.json").read_text())["parity"]:
        assert f"{row['output']} passed {row['psnr_db']:.1f} dB 60 dB" in text
    assert "synthetic media" in text
    assert "mobile-avatar export AVATAR --target onnx --precision fp32 --warp split -o split" in text
    assert f"onnxruntime {json.loads((split / 'manifest.json').read_text())['tools']['onnxruntime']}" in text


def test_times_stand_with_how_they_were_obtained(content):
    text = Page(content).text
    for words in (
        "litert fp32, GPU",
        "5.00 p50 MEASURED",
        "50 runs · burst · 31.5 °C none → 36.0 °C light · outputs right, worst 64.2 dB",
        "the tool's own clock",
        "command: benchmark_model --graph=render.tflite",
        "litert fp32, NNAPI : the delegate refused it",
        "the same graph, converted",
        "5.30 ms in the first and 6.80 ms in the last",
        "j1 (profile, done)",
    ):
        assert words in text, words
    assert "CONV_2D GPU 2 4.00 89 %" in text, "operators by unit"
    assert "PAD not told 1 –" in text, "an operator without a time"
    assert "Where they run is not known" not in text


def test_without_measurements_the_page_says_so(native):
    text = page_of(native).text
    assert "Nothing was timed yet" in text
    assert "Where they run is not known" in text
    assert "GridSample 1" in text, "counted from the file"
    assert "texture 49.2 kB" in text, "64 x 64 x 3 float32 inside the model file"


def test_a_runtime_that_is_not_here_is_no_pass(split, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    facts = collect(split)
    assert facts.parity.state is None
    page = Page(render_report(facts))
    assert "? Parity not run here" in page.text
    assert "ONNX Runtime" in facts.frames_reason
    assert " ".join(facts.frames_reason.replace("`", " ").split()) in page.text
    assert all(not frame.exported for frame in facts.frames.frames)
    recorded = json.loads((split / "manifest.json").read_text())["parity"][0]["psnr_db"]
    assert f"recorded at export: {recorded:.1f} dB in onnxruntime-cpu" in page.text


HOSTILE = '"><script>alert(1)</script><img src=https://x.example/y onerror=alert(2)>\u202e{{ 7*7 }}'


def test_foreign_text_is_shown_as_text(split, tmp_path):
    manifest = json.loads((split / "manifest.json").read_text())
    fields = {
        "avatar": manifest["avatar"] | {"person": HOSTILE, "created": HOSTILE, "weights_sha256": HOSTILE},
        "device": HOSTILE,
        "license": HOSTILE,
        "notes": [HOSTILE] * 1000,
        "rewrites": [HOSTILE],
        "tools": {HOSTILE: HOSTILE},
        "quantization": {"float_operators": {HOSTILE: HOSTILE}, "float_reasons": HOSTILE},
        "parity": [{"output": "uv", "psnr_db": 1.0, "runner": HOSTILE}],
        "macs_plain": HOSTILE,
        "parameters": 10**400,
    }
    folder = changed(split, tmp_path, **fields)
    subject = open_subject(folder)
    hostile = {"device": HOSTILE, "runtime": HOSTILE, "delegate": HOSTILE, "method": HOSTILE, "notes": (HOSTILE,)}
    jobs = ({"id": HOSTILE, "type": HOSTILE, "status": [], "url": "javascript:alert(1)"}, {})
    operators = phone_row(subject).operators[:1] * 3
    store(subject, phone_row(subject, **hostile, jobs=jobs, operators=operators, p50_ms=float("nan"), mean_ms=2.0))
    content = render_report(collect(folder))
    page = Page(content)
    assert page.all("script") == []
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert all(not a["href"].startswith("javascript") for a in page.all("a"))
    assert "\u202e" not in content
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert len(content) < LARGEST


WRONG = (None, [None, float("inf"), [], {}], {"a": {"b": []}})


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_wrong_kinds_of_values_do_no_harm(split, tmp_path, value):
    names = "device budget parity checks notes license tools quantization rewrites macs macs_plain parameters"
    names += " synthetic_media"
    folder = changed(split, tmp_path, **dict.fromkeys(names.split(), value))
    page = page_of(folder)
    assert "Parity passed" in page.text, "parity is that of this run, whatever the manifest says"


def test_pages_are_not_made_of_huge_images(split, tmp_path):
    manifest = json.loads((split / "manifest.json").read_text())
    manifest["avatar"]["config"]["image_size"] = 10**6
    for row in manifest["outputs"]:
        row["shape"] = [10**6 if side == 64 else side for side in row["shape"]]
    folder = changed(split, tmp_path, **manifest)
    with pytest.raises(BadInput, match="images of 1000000 pixels"):
        collect(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "x"}, "unknown target 'x'"),
        ({"target": 3}, "is damaged"),
        ({"roles": {"model": 3}}, "is damaged"),
        ({"files": [{"path": None, "sha256": ""}]}, "is damaged"),
        ({"avatar": []}, "is damaged"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_no_page_can_be_made_of_is_one_sentence(split, tmp_path, change, words):
    folder = changed(split, tmp_path, **change)
    (folder / "render.onnx").write_bytes(b"x")
    with pytest.raises(BadInput, match=words):
        collect(folder)


def test_a_golden_file_that_claims_to_be_huge_is_damaged(split, tmp_path):
    folder = changed(split, tmp_path)
    with open(folder / "golden" / "image.npy", "wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 64, 64, 3)}
        np.lib.format.write_array_header_1_0(stream, header)
    assert "golden/image.npy is missing or damaged" in page_of(folder).text


def test_no_path_leads_out_of_the_folder(split, tmp_path):
    folder = changed(split, tmp_path)
    (folder / "texture.f16").unlink()
    (folder / "texture.f16").symlink_to("/etc/hostname")
    with pytest.raises(BadInput, match="points outside the folder"):
        collect(folder)
