"""`mobile-avatar mesh`: heads that are there, and one sentence for those that are not."""

import json

import numpy as np
import pytest
from PIL import Image

from mobile_avatar.assets import shipped
from mobile_avatar.rendering.rigged_mesh import read_glb
from tests.cli.runner import run
from tests.models.rome.heads import random_head
from tests.models.rome.licensed_files import write_data_files, write_flame


def test_a_synthetic_person(capfd, tmp_path):
    output = tmp_path / "made" / "head.glb"
    done = run(capfd, "mesh", "--identity", 4, "--texture-size", 64, "-o", output, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["distance_m"] < 1e-6 < result["distance_resting_joints_m"] < 2e-4
    assert result["influence_sets"] == 1
    mesh = read_glb(output)
    assert mesh.texture.shape == (64, 64, 3)
    assert mesh.extras["asset"]["identity"] == "4"
    assert mesh.extras["asset"]["synthetic_media"] is True
    sheet = np.asarray(Image.open(tmp_path / "made" / "head.glb.png")).astype(float)
    rows, columns = (slice(6, 294), slice(300, 588), slice(594, 882)), slice(6, 294)
    neutral, others = sheet[columns, rows[0]], [sheet[columns, row] for row in rows[1:]]
    assert neutral.std() > 20
    assert all(np.abs(neutral - other).max() > 60 for other in others)
    assert {path.name for path in output.parent.iterdir()} == {"head.glb", "head.glb.png"}
    assert "exists already" in run(capfd, "mesh", "-o", output).sentence


def test_a_licensed_head(capfd, tmp_path):
    model = random_head()
    write_flame(tmp_path / "generic_model.pkl", model)
    write_data_files(tmp_path / "data", model)
    arguments = ("mesh", "--flame", tmp_path / "generic_model.pkl", "-o", tmp_path / "head.glb")
    done = run(capfd, *arguments)
    assert done.code == 2
    assert "faces_v2.pth is not in" in done.sentence
    done = run(capfd, *arguments, "--data", tmp_path / "data")
    assert done.code == 0, done.err
    assert "licence: " in done.err
    assert "non-commercial" in done.err
    assert "50 expressions" in done.out
    mesh = read_glb(tmp_path / "head.glb")
    assert mesh.texture is None
    assert "non-commercial" in mesh.extras["asset"]["license"]
    np.testing.assert_allclose(mesh.points, model.template.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["default.avatar"], "is a bi-layer avatar"),
        (["default.avatar", "--identity", "3"], "has its own head"),
        (["none.avatar"], "none.avatar"),
        (["--head", "flame"], "needs --flame FILE"),
        (["--head", "synthetic", "--flame", "f.pkl"], "leave them out"),
        (["--data", "folder"], "leave them out"),
        (["--flame", "f.pkl", "--identity", "3"], "leave it out for FLAME"),
        (["--flame", "f.pkl"], "f.pkl"),
        (["-o", "head.obj"], "end its name in .glb"),
        (["--identity", "-1"], "--identity"),
    ],
)
def test_one_sentence(capfd, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    given = [str(shipped(word)) if word == "default.avatar" else word for word in arguments]
    done = run(capfd, "mesh", "-o", "head.glb", *given)
    assert done.code == 2
    assert said in done.sentence
    assert not list(tmp_path.iterdir())
