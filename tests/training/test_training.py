"""Training on synthetic heads: it learns, it resumes exactly, it stops on NaN, it refuses foreign folders."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mobile_avatar.errors import BadInput, CheckFailed
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.training import bilayer
from mobile_avatar.training.losses import gradient_loss, ssim, structural_loss, total_variation
from mobile_avatar.training.pool import FramePool, PoolSpec
from mobile_avatar.training.run import TrainOptions, read_options
from tests.models.bilayer.official import SMALL

OPTIONS = TrainOptions(
    preset="small", steps=4, batch_size=2, targets=1, identities=4, frames=3, bf16=False, sheet_every=2
)


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", SMALL)
    monkeypatch.setattr(bilayer, "STANDING_BATCHES", 2)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    pool = FramePool(tmp_path_factory.mktemp("pool"), PoolSpec(64, 4, 3))
    pool.fill()
    return pool


def test_a_resumed_run_equals_an_unbroken_one(tmp_path, monkeypatch):
    whole = bilayer.train_base(OPTIONS, tmp_path / "a" / "whole", resume=False)
    write_sheet = bilayer.write_sheet

    def power_cut(path, *arguments):
        write_sheet(path, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(bilayer, "write_sheet", power_cut)
    folder = tmp_path / "a" / "broken"
    with pytest.raises(KeyboardInterrupt):
        bilayer.train_base(OPTIONS, folder, resume=False)
    monkeypatch.setattr(bilayer, "write_sheet", write_sheet)
    with pytest.raises(BadInput, match="--resume"):
        bilayer.train_base(OPTIONS, folder, resume=False)
    resumed = bilayer.train_base(OPTIONS, folder, resume=True)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=1e-6)
    assert (folder / "sheet-000002.png").exists()
    assert (folder / "sheet-000004.png").exists()


def test_training_learns(tmp_path, pool):
    torch.manual_seed(0)
    model = BilayerModel(SMALL).train()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    generator = np.random.default_rng(0)
    totals = []
    for _ in range(25):
        losses = bilayer.base_losses(model, pool.load(pool.draw(generator, 4, 2)))
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        totals.append({name: value.item() for name, value in losses.items()})
    for name in ("uv", "mask", "structural", "total"):
        assert np.mean([row[name] for row in totals[-5:]]) < 0.9 * np.mean([row[name] for row in totals[:5]]), name


def test_the_updater_stage_trains_the_updater_alone(tmp_path):
    torch.manual_seed(0)
    model = BilayerModel(SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = replace(OPTIONS, steps=2)
    after = bilayer.train_updater(options, tmp_path / "run", model, resume=False).state_dict()
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"texture_updater"}


def test_nan_stops_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(bilayer, "structural_loss", lambda image, goal: image.mean() * torch.nan)
    with pytest.raises(CheckFailed, match=r"loss became nan at step 0.*--resume"):
        bilayer.train_base(OPTIONS, tmp_path / "run", resume=False)


def test_options_and_pool_are_kept(tmp_path, pool):
    stored = json.loads((pool.folder / "pool.json").read_text())
    assert stored["done"] == 4
    with pytest.raises(BadInput, match="other options"):
        FramePool(pool.folder, PoolSpec(64, 5, 3))
    again = FramePool(pool.folder, PoolSpec(64, 4, 3))
    a, b = (p.load(p.draw(np.random.default_rng(1), 2, 2)) for p in (pool, again))
    assert torch.equal(a.images, b.images)
    assert not torch.equal(a.images[:, 0], a.images[:, 1]), "source and target are different frames"


def test_resuming_takes_the_options_of_the_run(tmp_path):
    (tmp_path / "options.yaml").write_text("steps: 4\nlr: 0.1\nidentities: 9\n")
    options = read_options(tmp_path, True, {"steps": 6, "lr": None})
    assert (options.steps, options.lr, options.identities) == (6, 0.1, 9)
    assert read_options(tmp_path, False, {"lr": 0.2}).lr == 0.2
    with pytest.raises(BadInput, match=r"has lr 0\.1, not 0\.2"):
        read_options(tmp_path, True, {"lr": 0.2})


def test_impossible_options_are_refused():
    with pytest.raises(BadInput, match="too few for a source"):
        TrainOptions(frames=3, targets=3)
    with pytest.raises(BadInput, match="too few for a batch"):
        TrainOptions(identities=4, batch_size=8)


def test_standing_statistics_average_the_batches():
    norm = torch.nn.BatchNorm2d(2, momentum=0.1)
    batches = [torch.randn(4, 2, 8, 8) * (i + 1) + i for i in range(2)]
    queue = iter(batches)
    bilayer.standing_statistics(norm, lambda: norm(next(queue)))
    expected = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, expected)
    assert not norm.training


def test_losses_are_zero_only_for_equal_images():
    torch.manual_seed(0)
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    assert structural_loss(image, image).item() == pytest.approx(0, abs=1e-5)
    assert ssim(image, image).item() == pytest.approx(1, abs=1e-5)
    assert structural_loss(image, image + 0.1) < structural_loss(image, image.flip(-1))
    assert gradient_loss(image, image + 0.3).item() == pytest.approx(0, abs=1e-6)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert total_variation(ramp).item() == pytest.approx(1)
