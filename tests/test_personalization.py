"""Personal avatars on a synthetic clip: they improve, never see held-out frames, and survive a kill."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mobile_avatar.avatar import Avatar
from mobile_avatar.data.frames import Frames, jitter, rareness
from mobile_avatar.data.synthetic import SyntheticHeads
from mobile_avatar.errors import BadInput, CheckFailed
from mobile_avatar.personalization import (
    Personalized,
    Split,
    check_work,
    personalize,
    scores,
    split_frames,
    typical_frame,
    with_facts,
)
from mobile_avatar.training import finetune
from mobile_avatar.training.finetune import FinetuneOptions, seconds_per_step
from mobile_avatar.training.portrait import Portrait
from tests.models.bilayer.official import random_model

FACTS = {"weights_sha256": "0" * 64, "license": "test"}
OPTIONS = FinetuneOptions(steps=12, batch_size=2, other_poses=1, checks=4)


@pytest.fixture(scope="module")
def split() -> Split:
    batch = SyntheticHeads(64, "test").sample([3], 30)
    return split_frames(Frames(batch.images[0], batch.masks[0], batch.keypoints[0]), 0.2, "clip")


@pytest.fixture(scope="module")
def model():
    return random_model()


def made(model, split, folder, options=OPTIONS, minutes=None) -> Personalized:
    return personalize(model, split, FACTS, options, minutes, folder)


def same(first: Avatar, second: Avatar) -> bool:
    pairs = zip(first.generator.state_dict().values(), second.generator.state_dict().values(), strict=True)
    return torch.equal(first.texture, second.texture) and all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def done(model, split, tmp_path_factory):
    return made(model, split, tmp_path_factory.mktemp("whole") / "work")


def spoiled(frames: Frames) -> Frames:
    return replace(frames, images=-frames.images, masks=1 - frames.masks, keypoints=frames.keypoints * 0.9)


def test_the_split_follows_time(split):
    assert [len(part) for part in (split.train, split.choosing, split.unseen, split.held_out)] == [24, 3, 3, 6]
    assert torch.equal(split.held_out.keypoints[3:], split.unseen.keypoints)


def test_held_out_frames_get_better(model, split, tmp_path):
    # The small model has never learnt anything, so it has further to go than a trained one.
    options = replace(OPTIONS, steps=60, batch_size=3, texture_rate=0.05, rate=0.03)
    done = made(model, split, tmp_path, options)
    table = scores(
        done, len(split.unseen), lambda driven: {"nme_percent": torch.full((len(driven.images),), torch.nan)}
    )
    assert list(table) == ["before", "warp", "after", "end"]
    assert table["after"]["psnr_masked"] > table["before"]["psnr_masked"] + 1.5
    assert table["after"]["psnr_masked_unseen"] > table["before"]["psnr_masked_unseen"] + 1.5
    assert table["after"]["mask_iou"] > table["before"]["mask_iou"]
    assert table["after"]["nme_percent"] is None
    assert done.finetuned.history[0]["step"] == 0
    assert done.finetuned.history[-1]["loss"] < done.finetuned.history[1]["loss"]
    facts = with_facts(done, table).facts
    assert facts["personalised"] == "true"
    assert facts["license"] == "test"
    with_facts(done, table).save(tmp_path / "me.avatar")
    loaded = Avatar.load(tmp_path / "me.avatar")
    points = split.unseen.keypoints
    assert torch.equal(loaded.render(points).image, done.avatar.render(points).image)


def test_training_never_sees_what_is_held_out(model, split, done, tmp_path):
    """Other held-out frames may choose another step, but each step stays the same; other unseen ones change nothing."""
    other = made(model, replace(split, choosing=spoiled(split.choosing), unseen=spoiled(split.unseen)), tmp_path / "a")
    assert same(other.finetuned.end, done.finetuned.end)
    assert [row["loss"] for row in other.finetuned.history[1:]] == [row["loss"] for row in done.finetuned.history[1:]]
    assert other.finetuned.history[-1]["psnr"] != done.finetuned.history[-1]["psnr"]
    other = made(model, replace(split, unseen=spoiled(split.unseen)), tmp_path / "b")
    assert same(other.avatar, done.avatar)
    assert torch.equal(other.avatar.source_keypoints, done.avatar.source_keypoints)
    other = made(model, replace(split, train=replace(split.train, images=split.train.images * 0.9)), tmp_path / "c")
    assert not same(other.finetuned.end, done.finetuned.end)


def test_resumed_work_equals_unbroken_work(model, split, done, tmp_path, monkeypatch):
    save, saved = finetune._Finetuning._save, []

    def power_cut(self):
        save(self)
        saved.append(self.step)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(finetune._Finetuning, "_save", power_cut)
    with pytest.raises(KeyboardInterrupt):
        made(model, split, tmp_path)
    assert saved == [0, 3, 6]
    resumed = made(model, split, tmp_path)
    assert saved == [0, 3, 6, 9, 12]
    assert same(resumed.avatar, done.avatar)
    assert same(resumed.finetuned.end, done.finetuned.end)
    assert repr(resumed.finetuned.history) == repr(done.finetuned.history)
    again = made(model, split, tmp_path)  # killed after the last step, while the film was written
    assert same(again.avatar, done.avatar)
    for options, frames in ((replace(OPTIONS, seed=1), split), (OPTIONS, replace(split, train=split.train[1:]))):
        with pytest.raises(BadInput, match="another video or other options"):
            made(model, frames, tmp_path, options)


def test_work_folders_are_refused_before_any_work(tmp_path):
    work = tmp_path / "me.work"
    check_work(work, resume=False, force=False)
    work.mkdir()
    (work / "diary.txt").write_text("precious")
    with pytest.raises(BadInput, match="never replaced"):
        check_work(work, resume=False, force=True)
    (work / "options.json").write_text("{}")
    with pytest.raises(BadInput, match="--resume to go on with it or --force"):
        check_work(work, resume=False, force=False)
    check_work(work, resume=True, force=False)
    check_work(work, resume=False, force=True)


def test_it_stops_when_nothing_gets_better(done, split, tmp_path):
    falling = iter(range(100, 0, -1))
    options = replace(OPTIONS, steps=40, checks=20, patience=5)
    stopped = finetune.finetune(
        done.before, split.train, split.train.keypoints[:2], lambda _: next(falling), options, tmp_path / "state.pt"
    )
    assert stopped.best_step == 0
    assert same(stopped.best, done.before)
    assert stopped.history[-1]["step"] == 10  # the first check after both stages have had a chance


def test_the_first_stage_leaves_the_shared_weights_alone(done, split, tmp_path):
    options = replace(OPTIONS, steps=2, first_stage=1.0)
    end = finetune.finetune(
        done.before, split.train, split.train.keypoints[:2], lambda _: 0.0, options, tmp_path / "state.pt"
    ).end
    old, new = done.before.generator.state_dict(), end.generator.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    personal = {name.removeprefix("generator.") for name in Portrait(end.generator, end.texture).personal()}
    assert changed == personal - {"texture"}
    assert {"base_norm.scale", "blocks.1.norm.bias", "blocks.0.skip.weight", "blocks.2.conv1.bias"} < personal
    assert not personal & {"heads.weight", "blocks.0.conv1.weight", "blocks.0.conv2.bias", "base.weight"}
    assert not torch.equal(end.texture, done.before.texture)


def test_a_limit_of_time_takes_fewer_steps(model, split, tmp_path, monkeypatch):
    monkeypatch.setattr("mobile_avatar.personalization.seconds_per_step", lambda *_: 10.0)
    assert made(model, split, tmp_path / "a", minutes=0.5).finetuned.history[-1]["step"] == 3
    assert made(model, split, tmp_path / "b", minutes=60).finetuned.history[-1]["step"] == 12


def test_trying_out_the_speed_changes_nothing(done, split):
    before = done.before.texture.clone()
    assert 0 < seconds_per_step(done.before, split.train, split.train.keypoints[:2], OPTIONS) < 60
    assert torch.equal(done.before.texture, before)


def test_nan_stops_with_a_sentence(model, split, tmp_path):
    images = split.train.images.clone()
    images[1:, 0, 30, 30] = torch.nan  # whichever frame is drawn
    with pytest.raises(CheckFailed, match="the loss became nan at step"):
        made(model, replace(split, train=replace(split.train, images=images)), tmp_path)


def test_too_few_frames(split):
    with pytest.raises(BadInput, match=r"clip\.mp4: 20 usable frames"):
        split_frames(split.train[:20], 0.2, "clip.mp4")
    with pytest.raises(BadInput, match="30 usable frames, of which 2 are held out"):
        split_frames(split.train[[0] * 30], 0.05, "clip.mp4")


def test_the_typical_frame_is_the_most_common_one():
    keypoints = torch.zeros(7, 136)
    keypoints[:3] = torch.linspace(1, 3, 3)[:, None]
    assert typical_frame(keypoints) >= 3


def test_rare_faces_are_drawn_as_often_as_common_ones():
    random = torch.Generator().manual_seed(0)
    common, rare = torch.randn(2, 68, 2, generator=random)
    shapes = torch.stack([common] * 18 + [rare] * 2)
    moved = shapes * torch.linspace(0.5, 1, 20)[:, None, None] + torch.linspace(-0.3, 0.3, 20)[:, None, None]
    probabilities = rareness(moved.flatten(1))
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities[18:].sum() == pytest.approx(0.5)


def test_jitter_moves_picture_mask_and_points_together():
    size = 64
    points = np.random.default_rng(0).uniform(-0.7, 0.7, (3, 68, 2)).astype(np.float32)
    images, masks = torch.full((3, 3, size, size), -1.0), torch.zeros(3, 1, size, size)
    places = torch.from_numpy(np.floor((points[:, 0] + 1) / 2 * size)).long()  # (3, 2): x, y of one point each
    for i, (x, y) in enumerate(places.tolist()):
        images[i, :, y - 1 : y + 2, x - 1 : x + 2] = 1
        masks[i, :, y - 1 : y + 2, x - 1 : x + 2] = 1
        points[i, 0] = (2 * x + 1) / size - 1, (2 * y + 1) / size - 1
    frames = Frames(images, masks, torch.from_numpy(points.reshape(3, 136)))
    moved, known = jitter(frames, np.random.default_rng(1))
    still, whole = jitter(frames, np.random.default_rng(1), share=0)
    line = (2 * torch.arange(size) + 1) / size - 1
    for i in range(3):
        for weight in (moved.masks[i, 0], (moved.images[i, 0] + 1) / 2):
            centre = torch.stack([(weight * line).sum(), (weight * line[:, None]).sum()]) / weight.sum()
            torch.testing.assert_close(centre, moved.keypoints[i, :2], atol=0.5 / size, rtol=0)
    assert (moved.keypoints - frames.keypoints).abs().max() > 0.02
    assert 0.7 < known.mean() < 1
    assert whole.min() == 1
    torch.testing.assert_close(still.images, frames.images, atol=1e-3, rtol=0)
    assert set(known.unique().tolist()) == {0.0, 1.0}
