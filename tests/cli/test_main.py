"""The command itself: help, versions, unknown words, doctor, import."""

import importlib.metadata
import json
import subprocess
import sys

import pytest

from mobile_avatar.cli.main import COMMANDS
from mobile_avatar.exporters.registry import targets
from mobile_avatar.models.bilayer.weights import load_weights
from tests.cli.runner import run
from tests.models.bilayer.official import SMALL, random_model, write_runs


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capfd, command):
    done = run(capfd, command, "--help")
    assert done.code == 0
    assert "Usage: " in done.out


def test_help_names_every_command(capfd):
    done = run(capfd, "--help")
    assert done.code == 0
    assert all(command in done.out for command in COMMANDS)
    assert run(capfd, "--version").out.strip() == importlib.metadata.version("mobile-avatar")


@pytest.mark.parametrize("arguments", [["frobnicate"], ["export", "--frobnicate"], ["create"]])
def test_wrong_words(capfd, arguments):
    done = run(capfd, *arguments)
    assert done.code == 2
    assert done.sentence


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['mobile-avatar', '--help']\nfrom mobile_avatar.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'coremltools', 'cv2', 'av') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_doctor(capfd):
    done = run(capfd, "doctor", "--json")
    assert done.code == 0
    rows = {row["name"]: row for row in json.loads(done.out)["rows"]}
    assert {f"target {name}" for name in targets()} <= set(rows)
    assert all(row["present"] or row["remedy"] for row in rows.values())
    done = run(capfd, "doctor")
    assert done.code == 0
    assert "AI Hub account" in done.out


def test_import(capfd, tmp_path):
    runs, output = write_runs(tmp_path, random_model()), tmp_path / "w.safetensors"
    done = run(capfd, "import", "bilayer", runs, "-o", output, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["config"]["image_size"] == 64
    model, facts = load_weights(output)
    assert model.config == SMALL
    assert "75_texture_enhancer.pth" in facts["source"]
    assert run(capfd, "import", "bilayer", runs, "-o", output).code == 2
    done = run(capfd, "import", "bilayer", tmp_path / "none", "-o", tmp_path / "x")
    assert done.code == 2
    assert "not a folder" in done.sentence
    assert not (tmp_path / "x").exists()
