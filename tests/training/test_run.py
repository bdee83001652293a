"""Runs as folders: they resume exactly, also behind kill -9, stop on NaN, and refuse what does not fit."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from mobile_avatar.errors import BadInput, CheckFailed
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.models.bilayer.weights import load_weights
from mobile_avatar.training import base
from mobile_avatar.training.options import TrainOptions, has_bf16, read_options
from mobile_avatar.training.updater import train_updater
from tests.training.conftest import OPTIONS

GAN = replace(OPTIONS, adversarial=True, spectral_norm=True)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[dict]:
    """Rows without what the clock decides."""
    timed = ("seconds", "samples_per_second", "seconds_left")
    return [{key: value for key, value in row.items() if key not in timed} for row in rows(folder)]


def test_a_resumed_run_equals_an_unbroken_one(tmp_path, monkeypatch):
    begin = BilayerModel(PRESETS["tiny"])
    updater = {key: value.clone() for key, value in begin.texture_updater.state_dict().items()}
    whole = base.train_base(GAN, tmp_path / "whole", False, copy.deepcopy(begin))
    assert whole.state_dict().keys() == begin.state_dict().keys()
    for key, value in whole.texture_updater.state_dict().items():
        assert torch.equal(value, updater[key]), "the base stage leaves the updater alone"
    write_sheet = base.write_sheet

    def power_cut(path, *arguments):
        write_sheet(path, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(base, "write_sheet", power_cut)
    folder = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        base.train_base(GAN, folder, False, begin)
    monkeypatch.setattr(base, "write_sheet", write_sheet)
    with pytest.raises(BadInput, match="--resume"):
        base.train_base(GAN, folder, resume=False)
    # What a kill leaves in the metrics: steps behind the checkpoint, and half a row.
    with open(folder / "metrics.jsonl", "a") as metrics:
        metrics.write('{"step": 3, "total": 7}\n{"step": 4, "to')
    resumed = base.train_base(GAN, folder, resume=True)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert losses(folder) == losses(tmp_path / "whole")
    assert {path.name for path in folder.iterdir()} == {
        "options.yaml",
        "metrics.jsonl",
        "checkpoint.pt",
        "discriminator.safetensors",
        "sheet-000002.png",
        "sheet-000004.png",
    }
    row = rows(folder)[0]
    assert row["samples_per_second"] > 0
    assert {"seconds_left", "lr", "gradient", "total", "discriminator", "adversarial", "matching"} <= set(row)
    stored = yaml.safe_load((folder / "options.yaml").read_text())
    assert (stored["losses"], stored["perceptual"]) == ("substitute", "structural-substitute")


COMMAND = "train bilayer --data synthetic --preset tiny --steps 5 --batch-size 2 --targets 1 --identities 2 --frames 2"
CADENCE = "--checkpoint-every 2 --sheet-every 100 --log-every 1 --standing-batches 1 --adversarial --device cpu"


def start(folder: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "mobile_avatar", *COMMAND.split(), *CADENCE.split(), "--run", str(folder), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # three times the start of a process, on a machine that may be busy
def test_a_killed_command_goes_on_with_the_same_losses(tmp_path):
    """SIGKILL, which leaves no time to tidy up; the metrics say what was computed."""
    folder = tmp_path / "killed"
    process = start(folder)
    deadline = time.monotonic() + 600
    while not (folder / "metrics.jsonl").exists() or len((folder / "metrics.jsonl").read_text().splitlines()) < 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "weights.safetensors").exists()
    outputs = []
    for resumed in (start(folder, "--resume"), start(tmp_path / "whole")):
        outputs.append(resumed.communicate(timeout=600)[1])
        assert resumed.returncode == 0, outputs[-1]
    assert losses(folder) == losses(tmp_path / "whole")
    assert "samples/s" in outputs[1]
    assert "left" in outputs[1] or "5/5" in outputs[1]
    killed, whole = (load_weights(path / "weights.safetensors")[0] for path in (folder, tmp_path / "whole"))
    torch.testing.assert_close(killed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_nan_stops_with_the_last_good_checkpoint(tmp_path, monkeypatch):
    structural_loss, calls = base.structural_loss, []

    def broken(image, goal):
        calls.append(0)
        return structural_loss(image, goal) * (torch.nan if len(calls) > 3 else 1)

    monkeypatch.setattr(base, "structural_loss", broken)
    with pytest.raises(CheckFailed, match=r"loss became nan at step 3; the last good checkpoint is .*--resume"):
        base.train_base(OPTIONS, tmp_path / "run", resume=False)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    assert all(value.isfinite().all() for value in state["networks"]["model"].values())
    with pytest.raises(CheckFailed, match="loss became nan at step 0; there is no checkpoint yet"):
        base.train_base(OPTIONS, tmp_path / "another", resume=False)


def test_weights_of_nan_are_never_written(tmp_path, monkeypatch):
    def poison(self, rate=None):
        with torch.no_grad():
            self.trained[0].parameters[0][:] = torch.nan

    monkeypatch.setattr(base.Step, "update", poison)
    with pytest.raises(CheckFailed, match=r"holds NaN or Inf at step 1; there is no checkpoint yet"):
        base.train_base(replace(OPTIONS, checkpoint_every=1), tmp_path / "run", resume=False)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_the_updater_stage_trains_the_updater_alone(tmp_path):
    torch.manual_seed(0)
    model = BilayerModel(PRESETS["tiny"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = replace(OPTIONS, steps=2, spectral_norm=True, adversarial=True)
    after = train_updater(options, tmp_path / "run", model, resume=False).state_dict()
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"texture_updater"}
    assert after.keys() == before.keys()


def test_foreign_checkpoints_are_refused(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"no")
    with pytest.raises(BadInput, match="not a readable checkpoint"):
        base.train_base(OPTIONS, tmp_path, resume=True)
    torch.save({"step": 3, "model": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(BadInput, match="another version"):
        base.train_base(OPTIONS, tmp_path, resume=True)


def test_resuming_takes_the_options_of_the_run(tmp_path):
    (tmp_path / "options.yaml").write_text("steps: 4\nlr: 0.1\nidentities: 9\nseed: 3\nbf16: true\ndevice: cuda\n")
    options = read_options(tmp_path, True, {"steps": 6, "lr": None, "device": "cpu"})
    assert (options.steps, options.lr, options.identities, options.seed) == (6, 0.1, 9, 3)
    assert options.bf16 == has_bf16("cpu"), "the precision belongs to the device"
    assert read_options(tmp_path, True, {"lr": 0.2}).lr == 0.2
    assert read_options(tmp_path, False, {"seed": 1}).seed == 1
    with pytest.raises(BadInput, match="has seed 3, not 1"):
        read_options(tmp_path, True, {"seed": 1})


def test_defaults_follow_from_each_other(tmp_path):
    short = TrainOptions(preset="tiny", steps=30, device="cpu").resolved()
    assert (short.losses, short.adversarial, short.perceptual, short.identities) == (
        "substitute",
        False,
        "structural-substitute",
        16,
    )
    assert TrainOptions(steps=100_000).resolved().identities == 1200
    thesis = TrainOptions(vgg19="a.pth", vggface="b.pth").resolved()
    assert (thesis.losses, thesis.perceptual, thesis.adversarial, thesis.lr, thesis.beta1, thesis.clip_norm) == (
        "thesis",
        "vgg19+vggface",
        True,
        2e-4,
        0.5,
        0.0,
    )
    assert thesis.resolved() == thesis
    config = TrainOptions(preset="compact", image_size=64, tex_spade=False).config()
    assert (config.image_size, config.enh_bottleneck, config.dis_blocks, config.tex_spade) == (64, 32, 4, False)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"frames": 3, "targets": 3}, "too few for a source"),
        ({"identities": 4, "batch_size": 8}, "too few for a batch"),
        ({"losses": "thesis"}, "need --vgg19"),
        ({"losses": "substitute", "vgg19": "f"}, "uses no perceptual network"),
        ({"losses": "l2"}, "unknown losses 'l2'"),
        ({"preset": "huge"}, "unknown preset 'huge'"),
        ({"steps": 0}, "steps 0 is too small"),
        ({"seed": -1}, "seed -1 is negative"),
    ],
)
def test_impossible_options_are_refused(values, words):
    with pytest.raises(BadInput, match=words):
        TrainOptions(**values)
