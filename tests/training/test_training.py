"""What is minimised and how: losses, perceptual networks, discriminator, unrolled updater, statistics, data."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mobile_avatar.data.clips import Clips
from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.models.bilayer.fold import fold
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.models.bilayer.spectral import add_spectral_norm
from mobile_avatar.models.bilayer.weights import load_weights, save_weights
from mobile_avatar.training import sources
from mobile_avatar.training.adversarial import (
    adversarial_losses,
    load_discriminator,
    make_discriminator,
    relativistic_hinge,
    save_discriminator,
)
from mobile_avatar.training.base import BaseObjective, forward
from mobile_avatar.training.batches import Batches
from mobile_avatar.training.losses import gradient_loss, ssim, structural_loss, total_variation, warp_decay
from mobile_avatar.training.perceptual import RECIPES, PerceptualLoss
from mobile_avatar.training.pool import FramePool, PoolSpec
from mobile_avatar.training.statistics import standing_statistics
from mobile_avatar.training.step import Step, trained
from mobile_avatar.training.updater import UpdaterObjective, recolour
from tests.models.bilayer.official import random_model
from tests.training.conftest import OPTIONS, MadeUp

TINY = PRESETS["tiny"]


def batch(number: int = 0, **changes: int) -> Clips:
    return Batches(MadeUp(), replace(OPTIONS, **changes)).read(number)


@pytest.fixture
def vgg(tmp_path):
    """Slim networks in torchvision's format."""
    torch.manual_seed(0)
    paths = {}
    for name, recipe in RECIPES.items():
        state, width = {"classifier.0.weight": torch.zeros(2, 2)}, 3
        for position in recipe.convolutions:
            state[f"features.{position}.weight"] = torch.randn(4, width, 3, 3) / 6
            state[f"features.{position}.bias"] = torch.randn(4)
            width = 4
        paths[name] = tmp_path / f"{name}.pth"
        torch.save(state, paths[name])
    return paths


@pytest.mark.parametrize("adversarial", [False, True])
def test_training_learns(adversarial):
    torch.manual_seed(0)
    options = replace(OPTIONS, adversarial=adversarial).resolved()
    model = BilayerModel(TINY).train()
    model.texture_updater.requires_grad_(False)
    judge = make_discriminator(TINY) if adversarial else None
    parts = [trained(network, 2e-3, 0.9, 1.0) for network in (model, judge) if network is not None]
    step = Step(BaseObjective(model, options, judge), parts)
    totals = []
    for number in range(15):
        totals.append(step.gradients(batch(number, batch_size=3), number))
        step.update()
    for name in ("uv", "mask", "structural"):
        assert np.mean([row[name] for row in totals[-4:]]) < 0.9 * np.mean([row[name] for row in totals[:4]]), name
    if adversarial:
        assert totals[-1]["discriminator"] < totals[0]["discriminator"]


def test_the_thesis_losses_reach_what_they_should(vgg):
    """Section 4: perceptual losses leave the low frequencies alone, masks learn from the cross-entropy alone."""
    options = replace(OPTIONS, vgg19=str(vgg["vgg19"]), vggface=str(vgg["vggface"]), uv_weight=0.0).resolved()
    model = random_model(TINY).train()
    objective = BaseObjective(model, options, None, {name: PerceptualLoss(name, path) for name, path in vgg.items()})
    losses = objective(batch(targets=2), 0)
    assert set(losses) == {"vgg19", "vggface", "lf", "mask", "warp", "total"}
    heads = {name: getattr(model.inference_generator, f"{name}_head").weight for name in ("uv", "lf", "mask")}
    reached = {"vgg19": {"uv"}, "vggface": {"uv"}, "lf": {"lf"}, "mask": {"mask"}, "warp": {"uv"}}
    for loss, expected in reached.items():
        gradients = torch.autograd.grad(losses[loss], list(heads.values()), retain_graph=True, allow_unused=True)
        touched = {
            name
            for name, gradient in zip(heads, gradients, strict=True)
            if gradient is not None and gradient.abs().sum() > 0
        }
        assert touched == expected, loss


def test_real_data_has_no_supervised_warp():
    options, model, clips = OPTIONS.resolved(), random_model(TINY), batch()
    assert "uv" in BaseObjective(model, options)(clips, 0)
    assert "uv" not in BaseObjective(model, replace(options, uv_weight=0.0))(clips, 0)
    assert "uv" not in BaseObjective(model, options)(replace(clips, texture_uv=None), 0)


def test_perceptual_networks(vgg, tmp_path):
    loss = PerceptualLoss("vgg19", vgg["vgg19"])
    torch.manual_seed(0)
    image, goal = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1
    assert loss(image, image).item() == 0
    image.requires_grad_()
    goal.requires_grad_()
    loss(image, goal).backward()
    assert image.grad.abs().sum() > 0
    assert goal.grad is None
    assert not any(p.requires_grad for p in loss.parameters())
    # By torchvision's own layout: convolution, activation, and average pools between the stages.
    state = torch.load(vgg["vgg19"], weights_only=True)
    x, compared = (image.detach() + 1) / 2, []
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for position in range(30):
        if f"features.{position}.weight" in state:
            x = nn.functional.conv2d(
                x, state[f"features.{position}.weight"], state[f"features.{position}.bias"], padding=1
            )
        elif position in (4, 9, 18, 27):
            x = nn.functional.avg_pool2d(x, 2)
        else:
            x = x.relu()
        if position in (1, 6, 11, 20, 29):
            compared.append(x)
    for a, b in zip(loss.features(image), compared, strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(BadInput, match="no such weights file"):
        PerceptualLoss("vgg19", tmp_path / "none.pth")
    with pytest.raises(BadInput, match=r"no convolution at features\.16.*not a vgg19"):
        PerceptualLoss("vgg19", vgg["vggface"])
    (tmp_path / "bad.pth").write_bytes(b"bad")
    with pytest.raises(BadInput, match="not a readable checkpoint"):
        PerceptualLoss("vgg19", tmp_path / "bad.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(BadInput, match=r"no features\.N\.weight"):
        PerceptualLoss("vgg19", tmp_path / "other.pth")


def test_the_discriminator_learns_and_the_generator_too(tmp_path):
    judge = make_discriminator(TINY)
    real, landmarks = torch.rand(6, 3, 64, 64), torch.rand(6, 3, 64, 64)  # two people, three frames of each
    fake = torch.rand(6, 3, 64, 64, requires_grad=True)
    losses = adversarial_losses(judge, fake, real, landmarks)
    losses["discriminator"].backward(retain_graph=True)
    assert all(p.grad is not None for p in judge.parameters()), "the official code gives it no gradient"
    assert fake.grad is None
    judge.zero_grad()
    (losses["adversarial"] + losses["matching"]).backward()
    assert fake.grad.abs().sum() > 0
    assert all(p.grad is None for p in judge.parameters())
    assert all(p.requires_grad for p in judge.parameters())
    save_discriminator(judge, TINY, tmp_path / "d.safetensors")
    again = load_discriminator(TINY, tmp_path / "d.safetensors")
    for key, value in judge.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    with pytest.raises(BadInput, match="has shape"):
        load_discriminator(replace(TINY, dis_channels=16), tmp_path / "d.safetensors")


def test_relativistic_hinge():
    assert relativistic_hinge(torch.full((4,), 5.0), torch.zeros(4)).item() == 0
    assert relativistic_hinge(torch.zeros(4), torch.zeros(4)).item() == 2
    assert relativistic_hinge(torch.zeros(4), torch.full((4,), 5.0)).item() == 12


@pytest.mark.parametrize("spectral", [False, True])
def test_checkpointing_gives_the_gradients_of_the_plain_unroll(spectral):
    gradients, losses = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        options = replace(OPTIONS, checkpointing=checkpointing, spectral_norm=spectral).resolved()
        model = random_model(TINY).requires_grad_(False)
        model.texture_updater.requires_grad_(True)
        if spectral:
            add_spectral_norm(model.texture_updater)
        step = Step(UpdaterObjective(model, options), [trained(model.texture_updater, 1e-3, 0.9, 0.0)])
        losses.append(step.gradients(batch(), 0))
        gradients.append([p.grad for p in model.texture_updater.parameters()])
    assert losses[0] == losses[1]
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)
        assert plain.abs().sum() > 0


def test_the_thesis_updater_judges_the_updated_image(vgg):
    options = replace(OPTIONS, vgg19=str(vgg["vgg19"])).resolved()
    model, judge = random_model(TINY).requires_grad_(False), make_discriminator(TINY)
    model.texture_updater.requires_grad_(True)
    objective = UpdaterObjective(model, options, judge, {"vgg19": PerceptualLoss("vgg19", vgg["vgg19"])})
    losses = objective(batch(targets=2), 0)
    assert set(losses) == {"vgg19", "discriminator", "adversarial", "matching", "total"}
    for name in ("vgg19", "adversarial", "matching"):
        gradients = torch.autograd.grad(losses[name], list(model.texture_updater.parameters()), retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients), name


def test_colours_change_per_person_and_by_the_generator_alone():
    clips = batch(batch_size=4)
    whole = recolour(clips, np.random.default_rng(1), 4, slice(0, 4))
    half = Clips(clips.images[2:], clips.masks[2:], clips.keypoints[2:])
    assert torch.equal(recolour(half, np.random.default_rng(1), 4, slice(2, 4)).images, whole.images[2:])
    assert (whole.images - clips.images).abs().mean() > 0.05
    assert whole.images.abs().max() <= 1


@pytest.mark.parametrize(
    "changes", [{"tex_spade": False}, {"adaptive_skips": False}, {"tex_spade": False, "adaptive_skips": False}]
)
def test_variants_of_the_ablation(changes, tmp_path):
    """Table 5.1 of the thesis: they train, fold exactly and are saved."""
    config = replace(TINY, **changes)
    model = random_model(config)
    losses = BaseObjective(model.train(), OPTIONS.resolved())(batch(), 0)
    losses["total"].backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None and not n.startswith("texture_updater.")]
    assert unused == []
    model.eval()
    save_weights(model, tmp_path / "w.safetensors", {})
    loaded, _ = load_weights(tmp_path / "w.safetensors")
    assert loaded.config == config
    both = batch()
    clips = Clips(both.images[:1], both.masks[:1], both.keypoints[:1])
    with torch.no_grad():
        person, layers = forward(loaded, clips, clips.keypoints)
        delta, lf, mask = fold(loaded, person)(clips.keypoints[0])
    for folded, plain in ((delta, layers.delta), (lf, layers.lf), (mask, layers.mask())):
        torch.testing.assert_close(folded, plain, atol=1e-5, rtol=0)
    sizes = [sum(p.numel() for p in BilayerModel(c).parameters()) for c in (config, TINY)]
    assert sizes[0] < sizes[1]


def test_standing_statistics_average_the_batches():
    norm = nn.BatchNorm2d(2, momentum=0.1)
    batches = [torch.randn(4, 2, 8, 8) * (i + 1) + i for i in range(2)]
    standing_statistics(norm, lambda number: norm(batches[number]), 2)
    expected = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, expected)
    expected = torch.stack([batch.var((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(norm.running_var, expected)
    assert not norm.training
    assert norm.momentum == 0.1


def test_losses_are_zero_only_for_equal_images():
    torch.manual_seed(0)
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    assert structural_loss(image, image).item() == pytest.approx(0, abs=1e-5)
    assert ssim(image, image).item() == pytest.approx(1, abs=1e-5)
    assert structural_loss(image, image + 0.1) < structural_loss(image, image.flip(-1))
    assert gradient_loss(image, image + 0.3).item() == pytest.approx(0, abs=1e-6)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert total_variation(ramp).item() == pytest.approx(1)
    assert [warp_decay(step) for step in (0, 49, 50, 98, 99)] == pytest.approx([1, 1, 0.9, 0.9, 0.81])
    assert warp_decay(10_000) == 0


def test_batches_are_read_ahead_in_order():
    batches = Batches(MadeUp(), OPTIONS)
    ahead = list(batches.ahead(3, 6))
    assert len(ahead) == 3
    for number, clips in zip(range(3, 6), ahead, strict=True):
        assert torch.equal(clips.images, batches.read(number).images)
    assert not torch.equal(ahead[0].images, ahead[1].images)

    class Broken(MadeUp):
        def load(self, draws, device="cpu"):
            raise BadInput("no disk")

    with pytest.raises(BadInput, match="no disk"):
        list(Batches(Broken(), OPTIONS).ahead(0, 3))


def test_pools_grow_and_serve_smaller_runs(tmp_path):
    pool = FramePool(tmp_path, PoolSpec(64, 2, 2))
    pool.fill()
    first = pool.images[:2].copy()
    grown = FramePool(tmp_path, PoolSpec(64, 3, 2))
    assert grown.done == 2
    grown.fill()
    assert np.array_equal(grown.images[:2], first)
    assert grown.images[2].std() > 10
    again = FramePool(tmp_path, PoolSpec(64, 2, 2))
    again.fill()
    assert json.loads((tmp_path / "pool.json").read_text())["spec"]["identities"] == 3
    draws = again.draw(np.random.default_rng(1), 2, 2)
    assert {draw.person for draw in draws} == {0, 1}
    clips = again.load(draws)
    assert not torch.equal(clips.images[:, 0], clips.images[:, 1]), "source and target are different frames"
    assert clips.texture_uv.shape == (2, 2, 2, 64, 64)
    with pytest.raises(BadInput, match="other options"):
        FramePool(tmp_path, PoolSpec(64, 2, 3))


def test_sources(tmp_path):
    options = replace(OPTIONS, data="synthetic-stream").resolved()
    source = sources.open_source(options, tmp_path, 64)
    draws = source.draw(np.random.default_rng(0), 2, 2)
    assert draws == source.draw(np.random.default_rng(0), 2, 2)
    assert source.load(draws).images.shape == (2, 2, 3, 64, 64)
    with pytest.raises(BadInput, match="no such dataset folder"):
        sources.open_source(replace(options, data=str(tmp_path / "none")), tmp_path, 64)


def test_bfloat16_changes_little_and_keeps_what_must_be_exact():
    losses = []
    for bf16 in (False, True):
        torch.manual_seed(0)
        options = replace(OPTIONS, adversarial=True).resolved()
        model, judge = add_spectral_norm(random_model(TINY)).train(), make_discriminator(TINY)
        parts = [trained(network, 1e-3, 0.9, 1.0) for network in (model, judge)]
        step = Step(BaseObjective(model, options, judge), parts, "cpu", bf16)
        losses.append(step.gradients(batch(), 0))
        step.update()
        for network in (model, judge):
            kinds = {value.dtype for value in network.state_dict().values() if value.is_floating_point()}
            assert kinds == {torch.float32}, "power iterations and statistics too"
    for name in ("total", "uv", "structural", "mask"):
        assert losses[1][name] == pytest.approx(losses[0][name], rel=0.05), name
