"""Properties of the networks that need no golden data."""

import pytest
import torch
from torch.nn.utils import parametrize

from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.config import PRESETS, BilayerConfig
from mobile_avatar.models.bilayer.discriminator import Discriminator
from mobile_avatar.models.bilayer.fold import fold
from mobile_avatar.models.bilayer.inference_generator import masked, warp
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.models.bilayer.spectral import add_spectral_norm, resolve_spectral_norm
from mobile_avatar.models.bilayer.texture_updater import reconstruction_gradient
from tests.models.bilayer.official import SMALL, random_model


def inputs(size: int, b: int = 1, n: int = 1, seed: int = 1) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    images, landmarks = (torch.rand(b, n, 3, size, size, generator=g) * 2 - 1 for _ in range(2))
    return images, torch.rand(b, n, 1, size, size, generator=g), landmarks


def variant(**changes: object) -> BilayerConfig:
    return BilayerConfig.from_dict(SMALL.to_dict() | changes)


@pytest.mark.parametrize("changes", [{}, {"num_harmonics": 4}, {"image_size": 128, "align_corners": True}])
@torch.no_grad()
def test_folding_is_exact(changes):
    config = variant(**changes)
    model = random_model(config)
    person = model.person(*inputs(config.image_size))
    keypoints = torch.rand(1, 5, 136) * 2 - 1
    layers = model.frame_layers(keypoints, person)
    delta, lf, mask = fold(model, person)(keypoints[0])
    assert layers.delta.std() > 0.01, "a flat output would agree with anything"
    for folded, plain in ((delta, layers.delta), (lf, layers.lf), (mask, layers.mask())):
        torch.testing.assert_close(folded, plain, atol=1e-5, rtol=0)


@torch.no_grad()
def test_people_in_a_batch_do_not_mix():
    model = random_model()
    images, masks, landmarks = inputs(64, b=2)
    keypoints = torch.rand(2, 3, 136) * 2 - 1
    together = model(keypoints, model.person(images, masks, landmarks))
    for i in range(2):
        alone = model(keypoints[i : i + 1], model.person(images[i : i + 1], masks[i : i + 1], landmarks[i : i + 1]))
        # Random textures are noise, so rounding in uv shows.
        torch.testing.assert_close(together[3 * i : 3 * i + 3], alone, atol=2e-4, rtol=0)


@torch.no_grad()
def test_order_of_sources_does_not_matter():
    model = random_model()
    images, masks, landmarks = inputs(64, n=3)
    order = torch.tensor([2, 0, 1])
    a = model.person(images, masks, landmarks).texture
    b = model.person(images[:, order], masks[:, order], landmarks[:, order]).texture
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@torch.no_grad()
def test_background_of_the_photo_is_never_seen():
    model = random_model()
    images, masks, landmarks = inputs(64)
    masks = (masks > 0.5).float()
    other = torch.where(masks > 0, images, -images)
    seen, unseen = (model.identity_embedder(x, masks, landmarks) for x in (images, other))
    assert all(torch.equal(a, b) for a, b in zip(seen, unseen, strict=True))


def test_gradient_of_the_updater_is_the_derivative_of_its_error():
    torch.manual_seed(0)
    texture, lf, goal = (torch.randn(1, 3, 8, 8, dtype=torch.float64) for _ in range(3))
    uv, mask = torch.rand(1, 8, 8, 2, dtype=torch.float64) * 2.4 - 1.2, torch.rand(1, 1, 8, 8, dtype=torch.float64)
    gradient = reconstruction_gradient(texture.clone(), lf, uv, mask, goal, False)

    def error(t):
        return 0.5 * (goal - masked(lf + warp(t, uv, False), mask)).square().sum()

    direction, step = torch.randn_like(texture), 1e-5
    numeric = (error(texture + step * direction) - error(texture - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-6, atol=1e-8)


def test_training_reaches_every_parameter():
    model = random_model().train()
    images, masks, landmarks = inputs(64, b=2)
    keypoints = torch.rand(2, 1, 136) * 2 - 1
    person = model.person(images, masks, landmarks)
    layers = model.frame_layers(keypoints, person)
    updated = model.texture_updater(person.texture, layers, images.flatten(0, 1), 2)[-1]
    (model.unmasked(layers, updated).square().mean() + layers.mask().mean()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_spectral_norm_comes_and_goes():
    model = random_model()
    images = inputs(64)
    add_spectral_norm(model)
    layers = [m for m in model.modules() if parametrize.is_parametrized(m)]
    assert len(layers) > 80
    for layer in layers:
        sigma = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
        assert 0.9 < sigma < 1.35, "fifteen iterations bring every layer near a norm of one"
    with torch.no_grad():
        before = model.person(*images).texture
        resolve_spectral_norm(model)
        after = model.person(*images).texture
    assert torch.equal(before, after)
    assert model.state_dict().keys() == random_model().state_dict().keys()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_fit_together(preset):
    with torch.device("meta"):
        model, discriminator = BilayerModel(PRESETS[preset]), Discriminator(PRESETS[preset])
        size = PRESETS[preset].image_size
        scores, features = discriminator(torch.empty(2, 3, size, size), torch.empty(2, 3, size, size))
    assert scores.shape == (2, 1, 8, 8)
    assert len(features) == PRESETS[preset].dis_blocks
    # Section 9 of the description of the release: static parameters of the inference generator.
    known = {"quarter": 1_032_000, "medium": 4_124_000, "full": 16_487_000}
    if preset in known:
        static = sum(p.numel() for p in model.inference_generator.parameters())
        assert abs(static - known[preset]) < 1000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 96}, "not a power of two"),
        ({"image_size": 32}, "from 64 to"),
        ({"inf_channels": 0}, "inf_channels 0"),
        ({"enh_bottleneck": 128}, "enh_bottleneck 128"),
        ({"image_size": "64"}, "should be int"),
        ({"colour": 1}, "unknown model option 'colour'"),
    ],
)
def test_bad_configs_are_refused(changes, words):
    with pytest.raises(BadInput, match=words):
        variant(**changes)


def test_widths_that_cannot_be_projected_are_refused():
    with pytest.raises(BadInput, match="ratio is a power of two"):
        BilayerModel(variant(inf_channels=3, inf_max_channels=11))
