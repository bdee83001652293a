"""Refining the texture of a ROME avatar: small random weights, a made-up photo."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mobile_avatar.models.rome.avatar import RomeAvatar
from mobile_avatar.models.rome.feature_image import sample_texture, texture_places
from mobile_avatar.models.rome.model import Person
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.rome_refinement import refine_rome_texture
from tests.rome_weights import CAMERA, small_weights

SIZE = 64


@pytest.fixture(scope="module")
def avatar():
    """It looks ahead, framed like a photo."""
    torch.manual_seed(0)
    weights, head = small_weights(), synthetic_head()
    zeros, config = torch.zeros, weights.networks.config
    person = Person(torch.randn(1, 8, SIZE, SIZE), zeros(1, config.n_shape), zeros(1, config.n_vertices, 3))
    codes = zeros(config.n_exp + 9)
    codes[-3:] = torch.tensor(CAMERA)
    return RomeAvatar.of(weights.networks, head, person, weights.renderer, codes, {})


@pytest.fixture(scope="module")
def photo():
    """A smooth picture, and the mask of a person who is in its left half: (1, 3, S, S) and (1, 1, S, S)."""
    torch.manual_seed(0)
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., : SIZE // 2] = 1
    return F.interpolate(torch.rand(1, 3, 8, 8), SIZE, mode="bilinear"), mask


def error(avatar, texture, photo):
    """Mean difference of the colours where both masks are."""
    goal, mask = photo
    frame = replace(avatar, texture=texture).render(avatar.source_codes[None])
    colours, shown = frame.rgba.split((3, 1), dim=1)
    return float(((colours - goal).abs() * shown * mask).sum() / (3 * (shown * mask).sum()))


def test_the_photo_is_shown_better_with_every_ten_steps(avatar, photo):
    told = []

    def progress(steps):
        for step in steps:
            told.append(step)
            yield step

    before = avatar.texture.clone()
    found = refine_rome_texture(avatar, *photo, 20, progress)
    assert told == list(range(20))
    assert torch.equal(avatar.texture, before)
    errors = [error(avatar, texture, photo) for texture in (before, refine_rome_texture(avatar, *photo, 10), found)]
    assert errors[0] > errors[1] > errors[2]
    assert not found.requires_grad
    assert all(weight.grad is None for weight in avatar.renderer.parameters())


def test_texels_that_the_pose_does_not_read_stay_as_they_are(avatar, photo):
    found, before = refine_rome_texture(avatar, *photo, 5), avatar.texture
    # Found without gradients: a texel is read when a picture of it alone shows up anywhere in the person's half.
    positions, _ = avatar.mesh(avatar.source_codes[None])
    places, seen = texture_places(positions, avatar.mesh.corners.long(), avatar.mesh.uv, SIZE)
    alone = torch.eye(SIZE * SIZE).view(1, SIZE * SIZE, SIZE, SIZE)
    read = (sample_texture(alone, places) * seen * photo[1]).amax((0, 2, 3)).view(SIZE, SIZE) > 0
    assert 50 < read.sum() < SIZE * SIZE / 2
    changed = (found != before).any(dim=1)[0]
    assert not changed[~read].any()
    assert changed[read].float().mean() > 0.9


def test_it_is_deterministic(avatar, photo):
    first, second = (refine_rome_texture(avatar, *photo, 3) for _ in range(2))
    assert torch.equal(first, second)
