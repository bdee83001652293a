"""`mobile-avatar create`: a real photo, the real tracker, the shipped weights; and everything that can be wrong."""

import json
import os
import warnings

import pytest
from PIL import Image

from mobile_avatar.avatar import Avatar
from tests.cli.runner import run


@pytest.fixture(scope="module")
def astronaut(tmp_path_factory):
    data = pytest.importorskip("skimage.data")
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


def test_a_real_photo_becomes_an_avatar_that_exports(astronaut, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = astronaut.read_bytes()
    done = run(capfd, "create", astronaut, "--refine", 200, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    psnr = result["source_psnr_db"]
    assert list(psnr) == ["generated", "updated", "refined"]
    assert psnr["generated"] < psnr["updated"] < psnr["refined"]
    assert psnr["refined"] >= 24
    assert result["faces_found"] == 1
    assert sorted(os.listdir(tmp_path)) == ["astronaut.avatar", "astronaut.avatar.png"]
    assert astronaut.read_bytes() == before
    assert Image.open("astronaut.avatar.png").width > 4 * 128
    facts = Avatar.load(tmp_path / "astronaut.avatar").facts
    assert len(facts["photo_sha256"]) == 64
    assert facts["license"] == "Apache-2.0"

    done = run(capfd, "export", "astronaut.avatar", "--target", "tflite", "--json")
    assert done.code == 0, done.err
    assert all(row["passed"] for row in json.loads(done.out)["parity"])


def test_the_largest_of_two_faces_is_taken_and_said(astronaut, capfd, tmp_path):
    face = Image.open(astronaut).crop((80, 0, 380, 300))
    canvas = Image.new("RGB", (560, 300), (200, 200, 200))
    canvas.paste(face, (260, 0))
    canvas.paste(face.resize((210, 210)), (20, 60))
    canvas.save(tmp_path / "two.png")
    done = run(capfd, "create", tmp_path / "two.png", "-o", tmp_path / "two.avatar", "--update-steps", 0, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["faces_found"] == 2
    assert "2 faces found, taking the largest" in done.err


def make_bad_photos(folder, astronaut) -> dict[str, str]:
    """File -> words of the sentence."""
    (folder / "text.jpg").write_text("hello")
    Image.open(astronaut).save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:5000])
    (folder / "whole.jpg").unlink()
    Image.new("RGB", (512, 512), (90, 120, 90)).save(folder / "meadow.png")
    Image.new("RGB", (5, 5)).save(folder / "tiny.png")
    Image.new("1", (20000, 20000)).save(folder / "huge.png")
    (folder / "empty.png").write_bytes(b"")
    return {
        "missing.jpg": "there is no such photo",
        "text.jpg": "",
        "truncated.jpg": "",
        "meadow.png": "no face",
        "tiny.png": "5",
        "huge.png": "64 megapixels",
        "empty.png": "",
    }


def test_bad_photos(astronaut, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = make_bad_photos(tmp_path, astronaut)
    before = sorted(os.listdir(tmp_path))
    for name, words in cases.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            done = run(capfd, "create", name)
        assert done.code == 2, name
        assert name in done.sentence
        assert words in done.sentence
        assert done.out == ""
        assert sorted(os.listdir(tmp_path)) == before, f"{name} left something behind"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "PHOTO", "--force"], "is also an input"),
        (["--output", "empty"], "is a folder"),
        (["--weights", "none.safetensors"], "none.safetensors does not exist"),
        (["--output", "/proc/nowhere/me.avatar"], "cannot be written"),
        (["--tracker-models", "empty"], "empty"),
        (["--refine", "-1"], "--refine"),
    ],
)
def test_wrong_usage(astronaut, capfd, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    done = run(capfd, "create", astronaut, *(str(astronaut) if word == "PHOTO" else word for word in arguments))
    assert done.code == 2
    assert words in done.sentence
    assert os.listdir(tmp_path) == ["empty"]


def test_existing_output_asks_for_force(astronaut, capfd, tmp_path):
    output = tmp_path / "me.avatar"
    output.write_text("precious")
    done = run(capfd, "create", astronaut, "-o", output)
    assert done.code == 2
    assert "--force" in done.sentence
    assert output.read_text() == "precious"
