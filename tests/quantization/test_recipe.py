"""Recipes, calibration data, integer tensors: what is read, what is refused."""

import importlib.resources
import json
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.errors import BadInput
from mobile_avatar.graphs.spec import TensorSpec, graph_spec
from mobile_avatar.quantization.calibration import MOST, load_calibration
from mobile_avatar.quantization.make_calibration import NAMED
from mobile_avatar.quantization.recipe import MixedRecipe
from mobile_avatar.rendering.tracks import varied_keypoints
from mobile_avatar.verification.manifest import read_manifest


def test_a_recipe_survives_its_file(tmp_path: Path) -> None:
    recipe = MixedRecipe(("heads", "blocks.3.conv2"), {"gain_db": 4.5})
    recipe.save(tmp_path / "r.json")
    assert MixedRecipe.load(tmp_path / "r.json") == recipe
    recipe.check(["heads", "base", "blocks.3.conv2"], tmp_path)
    with pytest.raises(BadInput, match=r"r\.json names the layer blocks\.3\.conv2"):
        recipe.check(["heads"], tmp_path / "r.json")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": "other", "version": 1, "keep": []}', '{"format": "x', "null"]
    + [json.dumps({"format": "mobile-avatar-quantization", "version": 1, "keep": keep}) for keep in ("heads", [1])],
)
def test_what_is_no_recipe_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(BadInput, match="not a quantisation recipe; write one with `mobile-avatar quantize-report`"):
        MixedRecipe.load(path)


def test_a_missing_and_a_newer_recipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        MixedRecipe.load(tmp_path / "r.json")
    (tmp_path / "r.json").write_text('{"format": "mobile-avatar-quantization", "version": 2, "keep": []}')
    with pytest.raises(BadInput, match="format version 2"):
        MixedRecipe.load(tmp_path / "r.json")


def test_the_default_calibration_covers_pose_and_expression() -> None:
    calibration = load_calibration()
    points = calibration.keypoints.reshape(-1, 68, 2)
    assert points.shape[0] == 64
    # Reproducible as far as it does not depend on float rounding of the renderer.
    np.testing.assert_allclose(calibration.keypoints[:NAMED], varied_keypoints(NAMED, 1000).clip(-1, 1), atol=1e-5)
    width = points[:, 16, 0] - points[:, 0, 0]
    turned = (points[:, 33, 0] - points[:, [0, 16], 0].mean(1)) / width
    assert turned.min() < -0.2
    assert turned.max() > 0.2
    opened = points[:, 66, 1] - points[:, 62, 1]
    assert opened.min() < 0.02
    assert opened.max() > 0.12
    path = importlib.resources.files("mobile_avatar.calibration_data") / "keypoints.npy"
    assert calibration.describe()["file"] == Path(str(path)).name
    assert len(calibration.sha256) == 64


def test_own_calibration_is_thinned_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "track.npy"
    np.save(path, np.linspace(-1, 1, 3 * MOST * 136, dtype=np.float32).reshape(-1, 136))
    found = load_calibration(path).keypoints
    assert found.shape == (MOST, 136)
    assert found[0, 0] == -1
    assert found[-1, -1] == 1
    np.save(path, np.zeros((3, 136), np.float32))
    with pytest.raises(BadInput, match=r"holds 3 frames; calibration needs at least 8"):
        load_calibration(path)


def test_integers_stand_for_real_numbers() -> None:
    tensor = TensorSpec("lf", (1, 2), "NC", (-1.0, 1.0), "int8", (0.01, -3))
    stored = tensor.store(np.array([-9.0, -0.5, 0.0, 0.204, 9.0]))
    assert stored.dtype == np.int8
    assert stored.tolist() == [-128, -53, -3, 17, 127]
    np.testing.assert_allclose(tensor.load(stored[1:4]), [-0.5, 0.0, 0.2], atol=1e-6)
    assert TensorSpec.from_dict(json.loads(json.dumps(tensor.to_dict()))) == tensor
    spec = graph_spec("split", 64, "NHWC").with_integers({"lf": ("uint8", 0.5, 7)})
    assert [t.quantization for t in (*spec.inputs, *spec.outputs)] == [None, None, (0.5, 7), None]


@pytest.mark.parametrize("change", [{"scale": 0.0}, {"scale": float("nan")}, {"dtype": "float64"}])
def test_a_manifest_with_impossible_integers_is_damaged(change: dict, tmp_path: Path) -> None:
    spec = graph_spec("split", 64, "NHWC").with_integers({"uv": ("int8", 0.02, 0)})
    outputs = [tensor.to_dict() for tensor in spec.outputs]
    outputs[0]["quantization"]["scale"] = change.get("scale", 0.02)
    outputs[0]["dtype"] = change.get("dtype", "int8")
    manifest = {
        "format": 1,
        "avatar": {"config": {"image_size": 64, "align_corners": False}},
        "inputs": [tensor.to_dict() for tensor in spec.inputs],
        "outputs": outputs,
        "warp": "split",
        "precision": "w8a8",
        "roles": {"model": "m"},
        "files": [],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="damaged"):
        read_manifest(tmp_path)
