"""The quantisation report: numbers from real files, and a recipe that keeps what it promises."""

import json
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.quantization.recipe import MixedRecipe
from mobile_avatar.quantization.sensitivity import SHARE, Measured, choose
from tests.cli.runner import run


def step(kept: int, image: float, worst: float, size: int) -> tuple[tuple[str, ...], Measured]:
    names = tuple(f"layer{i}" for i in range(kept))
    return names, Measured("x", size, {"image": image, "mask": worst}, np.zeros((1, 2, 2, 3), np.float32))


def test_the_recipe_is_the_first_that_gains_enough_on_image_and_outputs() -> None:
    steps = [step(0, 30, 30, 100), step(1, 35, 31, 101), step(2, 34, 34, 105), step(3, 40, 40, 120)]
    assert choose(steps, 3)[0] == ("layer0", "layer1")
    assert len(choose(steps, 8)[0]) == 3
    assert len(choose(steps, 99)[0]) == 3, "what cannot be reached gives the best there is"


@pytest.mark.slow
def test_report_on_the_default_avatar(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = run(capfd, "quantize-report", "--json", "-o", tmp_path / "q")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    recipe, files = report["recipe"], {row["name"]: row for row in report["files"]}
    assert min(recipe["gain_db"], recipe["worst_gain_db"]) >= 3
    assert recipe["size_share"] <= SHARE
    assert files["w8a8"]["worst_db"] >= 30
    assert files["fp16"]["worst_db"] >= 35
    assert len(report["layers"]) >= 20
    operators = report["mixed_operators"]
    counted = sum(int(reason.split(" x ")[0]) for reason in operators["float_reasons"])
    assert counted == sum(operators["float_operators"].values())
    assert {path.name for path in (tmp_path / "q").iterdir()} == {
        *("report.json", "recipe.json", "sensitivity.png", "size.png", "worst.png")
    }
    assert MixedRecipe.load(tmp_path / "q" / "recipe.json").keep == tuple(recipe["keep"])
    arguments = ("export", "--target", "tflite", "--precision", "mixed", "--recipe", tmp_path / "q/recipe.json")
    done = run(capfd, *arguments, "--json", "-o", tmp_path / "bundle")
    assert done.code == 0, done.err
    manifest = json.loads(done.out)
    assert manifest["quantization"]["keep"] == recipe["keep"]
    assert min(row["psnr_db"] for row in manifest["parity"]) >= 30
