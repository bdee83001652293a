"""`mobile-avatar export` and `verify` of a ROME avatar."""

import json
from pathlib import Path

import pytest

from mobile_avatar.models.rome.avatar import is_rome_avatar
from tests.cli.runner import run
from tests.rome_avatars import small_avatar


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rome") / "me.avatar"
    small_avatar().save(path)
    return path


def test_export_and_verify(avatar: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "b"
    done = run(capfd, "export", avatar, "--target", "onnx", "--output", folder, "--strict")
    assert done.code == 0, done.err
    for name in ("encoder", "mesh", "renderer"):
        assert f"{name}.onnx" in done.out
    assert "GMAC per frame" in done.out
    assert "ESTIMATE, not measured" in done.out
    again = run(capfd, "verify", folder, "--json")
    assert again.code == 0, again.err
    assert all(row["passed"] for row in json.loads(again.out)["parity"])
    written = run(capfd, "report", folder, "-o", tmp_path / "r.html")
    assert written.code == 0, written.err
    assert "b: parity passed" in written.out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--target", "onnx", "--warp", "native"), "--warp"),
        (("--target", "tflite", "--precision", "w8a8"), "fp32 or fp16"),
        (("--target", "onnx", "--rewrites", "narrow_first"), "rewrite"),
    ],
)
def test_what_a_rome_avatar_has_not_is_refused(
    avatar: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: tuple, word: str
) -> None:
    done = run(capfd, "export", avatar, *arguments, "--output", tmp_path / "b")
    assert done.code == 2
    assert word in done.sentence
    assert not (tmp_path / "b").exists()


def test_other_files_are_no_rome_avatars(avatar: Path, tmp_path: Path) -> None:
    assert is_rome_avatar(avatar)
    (tmp_path / "x").write_bytes(b"no")
    assert not is_rome_avatar(tmp_path / "x")
    assert not is_rome_avatar(tmp_path / "missing")
