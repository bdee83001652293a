"""`export --precision`: every one that a target accepts, proven; every other one, and what goes with them, refused."""

import json
from pathlib import Path

import pytest

from mobile_avatar.cli.common import shipped
from mobile_avatar.exporters.registry import targets
from mobile_avatar.graphs.rewrites.choice import default_rewrites
from mobile_avatar.quantization.recipe import MixedRecipe
from mobile_avatar.verification.parity import THRESHOLDS
from tests.cli.runner import run

ACCEPTED = [(name, precision) for name, target in targets().items() for precision in target.precisions]
REFUSED = [(name, p) for name, target in targets().items() for p in THRESHOLDS if p not in target.precisions]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.json"
    MixedRecipe(("heads", "blocks.4.conv2", "blocks.4.skip")).save(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("target", "precision"), ACCEPTED)
def test_the_default_avatar_in_every_precision(
    target: str, precision: str, recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mixed = ("--recipe", recipe) if precision == "mixed" else ()
    done = run(
        capfd, "export", "--target", target, "--precision", precision, *mixed, "--json", "-o", tmp_path / "bundle"
    )
    assert done.code == 0, done.err
    manifest = json.loads(done.out)
    assert manifest["precision"] == precision
    assert manifest["parity"]
    for row in manifest["parity"]:
        assert row["passed"], row
        assert row["psnr_db"] >= THRESHOLDS[precision]
    assert all(check["passed"] for check in manifest["checks"])
    assert manifest["macs"] < manifest["macs_plain"]
    assert manifest["rewrites"] == list(default_rewrites(target))
    quantization = manifest["quantization"]
    if precision in ("w8a8", "w8a16", "mixed"):
        assert quantization["calibration"]["frames"] == 64
        assert bool(quantization["float_operators"]) == bool(quantization["float_reasons"])
    else:
        assert quantization == {}


@pytest.mark.parametrize(("target", "precision"), REFUSED)
def test_other_precisions_are_one_sentence(
    target: str, precision: str, recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = run(capfd, "export", "--target", target, "--precision", precision, "-o", tmp_path / "bundle")
    assert done.code == 2
    assert done.sentence.startswith(f"target {target} has no precision '{precision}'; choose one of fp32")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target", "tflite", "--precision", "mixed"), "--precision mixed and --recipe go together"),
        (("--target", "tflite", "--precision", "w8a8", "--recipe", "{recipe}"), "--precision mixed and --recipe go"),
        (("--target", "tflite", "--calibration", "{recipe}"), "--calibration sets the ranges of integers; fp16 has"),
        (("--target", "tflite", "--quantize-io"), "tflite in fp16 has no integer inputs and outputs"),
        (("--target", "coreml", "--precision", "w8a8", "--quantize-io"), "coreml in w8a8 has no integer inputs"),
        (("--target", "onnx", "--rewrites", "transposed,phases"), "exclude each other"),
        (("--target", "onnx", "--rewrites", "magic"), "unknown rewrite 'magic'"),
        (("--target", "tflite", "--precision", "w8a8", "--calibration", "{recipe}"), "not a readable .npy file"),
        (("--target", "tflite", "--precision", "mixed", "--recipe", "{avatar}"), "is not a quantisation recipe"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(
    arguments: tuple, words: str, recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    places = {"recipe": recipe, "avatar": shipped("default.avatar")}
    done = run(capfd, "export", *(a.format(**places) for a in arguments), "-o", tmp_path / "bundle")
    assert done.code == 2
    assert words in done.sentence
    assert not (tmp_path / "bundle").exists()


def test_rewrites_can_be_switched_off(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = run(capfd, "export", "--target", "onnx", "--rewrites", "none", "-o", tmp_path / "bundle", "--json")
    assert done.code == 0, done.err
    manifest = json.loads(done.out)
    assert manifest["rewrites"] == []
    assert manifest["macs"] == manifest["macs_plain"]
    assert all(row["passed"] for row in manifest["parity"])
