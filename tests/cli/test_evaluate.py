"""`mobile-avatar evaluate`: a folder with numbers, a table and pictures; one sentence for everything unusable."""

import json
import os

import pytest
import torch
from PIL import Image

from mobile_avatar.models.bilayer.weights import save_weights
from tests.cli.runner import run
from tests.models.bilayer.official import random_model
from tests.training.evaluation_cases import lpips_weights, write_recognition, write_states


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Small weights, and stand-ins for the networks of LPIPS and CSIM."""
    folder = tmp_path_factory.mktemp("desk")
    save_weights(random_model(), folder / "small.safetensors", {"license": "none"})
    write_states(folder, *lpips_weights())
    write_recognition(folder / "face.onnx")
    (folder / "text.pth").write_text("hello")
    (folder / "kept").mkdir()
    (folder / "kept" / "thesis.txt").write_text("mine")
    return folder


def test_every_metric_in_one_folder(desk, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(desk)
    out = tmp_path / "out"
    options = ["--weights", "small.safetensors", "--identities", 2, "--frames", 3, "-o", out]
    networks = ["--lpips-vgg", "state0.pth", "--lpips-lin", "state1.pth", "--csim", "face.onnx"]
    done = run(capfd, "evaluate", *options, *networks, "--refine", 2, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert sorted(os.listdir(out)) == ["grid.png", "metrics.json", "metrics.md"]
    assert json.loads((out / "metrics.json").read_text()) == found
    assert list(found["methods"]) == ["still", "warp", "generated", "updated", "refined", "photo"]
    measured = {name for name, metric in found["metrics"].items() if metric["reason"] is None}
    assert {"psnr_masked", "psnr_raw", "ssim_masked", "ssim_raw", "mask_iou", "lpips", "csim"} <= measured
    warp = found["methods"]["warp"]["metrics"]
    assert warp["psnr_masked"]["identities"] == 2
    assert warp["psnr_masked"]["frames"] == 4
    low, high = warp["psnr_masked"]["ci95"]
    assert low <= warp["psnr_masked"]["mean"] <= high
    assert warp["lpips"]["mean"] > 0
    assert warp["csim"]["mean"] > 0.5
    table = (out / "metrics.md").read_text()
    assert f"{warp['psnr_masked']['mean']:.2f} ±" in table
    assert Image.open(out / "grid.png").height > 2 * 64

    again = run(capfd, "evaluate", *options, *networks, "--refine", 2, "--json", "--force")
    assert again.code == 0, again.err
    assert json.loads(again.out) == found, "everything is deterministic"
    assert run(capfd, "evaluate", *options).sentence.endswith("pass --force to replace it or choose another output")


def test_without_networks_the_table_says_what_is_missing(desk, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--identities", 1, "--frames", 2, "--no-nme", "--update-steps", 0]
    done = run(capfd, "evaluate", "--weights", desk / "small.safetensors", *options)
    assert done.code == 0, done.err
    assert "generated" in done.out
    assert "updated" not in done.out
    for words in (
        "lpips was not measured: no weights",
        "csim was not measured",
        "nme_percent was not measured: left out",
    ):
        assert words in done.out
    found = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert found["methods"]["generated"]["metrics"]["lpips"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--weights", "none.safetensors"], "none.safetensors does not exist"),
        (["--lpips-vgg", "state0.pth"], "needs both files"),
        (["--lpips-vgg", "none.pth", "--lpips-lin", "state1.pth"], "none.pth: there is no such weights file"),
        (["--lpips-vgg", "text.pth", "--lpips-lin", "state1.pth"], "text.pth is not a readable"),
        (["--lpips-vgg", "state1.pth", "--lpips-lin", "state0.pth"], "features.0.weight is missing"),
        (["--csim", "none.onnx"], "none.onnx: there is no such"),
        (["--csim", "text.pth"], "text.pth is not an ONNX file"),
        (["--tracker-models", "none"], "none: there is no such folder"),
        (["--data", "none"], "none"),
        (["--device", "abacus"], "--device abacus does not work here"),
        (["-o", "kept", "--force"], "kept holds other things"),
        (["-o", "text.pth"], "text.pth is a file"),
        (["--frames", "1"], "1 is not in the range"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(desk, capfd, monkeypatch, options, words):
    monkeypatch.chdir(desk)
    before = sorted(os.listdir(desk))
    weights = [] if "--weights" in options else ["--weights", "small.safetensors"]
    nme = [] if "--tracker-models" in options else ["--no-nme"]
    done = run(capfd, "evaluate", *weights, *nme, "--identities", 1, *options)
    assert done.code == 2
    assert words in done.sentence
    assert sorted(os.listdir(desk)) == before


def test_a_failure_on_the_way_leaves_no_folder(desk, capfd, tmp_path, monkeypatch):
    from mobile_avatar.training import evaluation_report

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluation_report, "contact_sheet", full)
    monkeypatch.chdir(tmp_path)
    options = ["--weights", desk / "small.safetensors", "--identities", 1, "--frames", 2, "--no-nme"]
    done = run(capfd, "evaluate", *options)
    assert done.code == 2
    assert "No space left" in done.sentence
    assert os.listdir(tmp_path) == []
    assert torch.is_grad_enabled()
