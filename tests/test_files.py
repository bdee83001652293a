"""Outputs appear whole or not at all."""

import os
import subprocess
import sys
import time

import pytest

from mobile_avatar.errors import BadInput
from mobile_avatar.files import check_output, inside, replace_file, replace_folder


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replace_file(path) as temporary:
        assert temporary.write_text("half") // 0
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
    with replace_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    path = tmp_path / "bundle"
    with replace_folder(path) as temporary:
        (temporary / "x").write_text("1")
    with pytest.raises(ZeroDivisionError), replace_folder(path) as temporary:
        assert (temporary / "y").write_text("half") // 0
    assert (path / "x").read_text() == "1"
    with replace_folder(path) as temporary:
        (temporary / "y").write_text("3")
    assert os.listdir(path) == ["y"]
    assert os.listdir(tmp_path) == ["bundle"]


def test_a_kill_between_any_two_steps_leaves_a_whole_folder(tmp_path):
    """A loop replaces a folder of two files that must agree, and is killed again and again."""
    loop = (
        "import sys\nfrom pathlib import Path\nfrom mobile_avatar.files import replace_folder\n"
        "for i in range(10**6):\n    with replace_folder(Path(sys.argv[1])) as t:\n"
        "        (t / 'a').write_text(str(i)); (t / 'b').write_text(str(i))\n"
    )
    path = tmp_path / "bundle"
    for round_ in range(8):
        process = subprocess.Popen([sys.executable, "-c", loop, str(path)])
        while not path.exists():
            time.sleep(0.01)
        time.sleep(0.2 + 0.013 * round_)
        process.kill()
        process.wait()
        assert (path / "a").read_text() == (path / "b").read_text() != ""


def test_existing_and_unwritable_outputs_are_refused_first(tmp_path):
    path = tmp_path / "a"
    check_output(path, force=False)
    check_output(tmp_path / "new" / "deep" / "a", force=False)
    path.write_text("x")
    with pytest.raises(BadInput, match="--force"):
        check_output(path, force=False)
    check_output(path, force=True)
    with pytest.raises(BadInput, match="cannot be written"):
        check_output(path / "below", force=False)
    with pytest.raises(BadInput, match="cannot be written"):
        check_output(type(path)("/proc/nowhere/a"), force=False)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "x/../../a", "link/a"])
def test_paths_never_leave_their_folder(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    assert inside(tmp_path / "in", "x/y").name == "y"
    with pytest.raises(BadInput, match="points outside"):
        inside(tmp_path / "in", name)
