"""Avatars on disk and in torch; creation from a prepared source."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mobile_avatar.avatar import Avatar, avatar_facts
from mobile_avatar.creation import Source, create_avatar, psnr_inside
from mobile_avatar.data.synthetic import SyntheticHeads
from mobile_avatar.errors import BadInput
from mobile_avatar.keypoints.landmark_image import draw_landmarks
from tests.models.bilayer.official import random_model


@pytest.fixture(scope="module")
def source() -> Source:
    batch = SyntheticHeads(64, "test").sample([1], 1)
    points = batch.keypoints[0, 0]
    landmarks = torch.from_numpy(draw_landmarks(points.numpy(), 64))
    return Source(batch.images[0, 0], batch.masks[0, 0], points, landmarks)


@pytest.fixture(scope="module")
def created(source):
    return create_avatar(random_model(), source, {"license": "test"}, refine_steps=250)


def test_an_avatar_renders_what_the_unfolded_model_renders(source, created):
    model = random_model()
    keypoints = torch.rand(1, 3, 136) * 2 - 1
    with torch.no_grad():
        person = model.person(source.image[None, None], source.mask[None, None], source.landmarks[None, None])
        layers = model.frame_layers(keypoints, person)
        expected = model(keypoints, person, created.avatar.texture)
    rendered = created.avatar.render(keypoints[0])
    torch.testing.assert_close(rendered.lf, layers.lf, atol=1e-5, rtol=0)
    torch.testing.assert_close(rendered.uv.permute(0, 2, 3, 1), layers.uv(), atol=1e-5, rtol=0)
    torch.testing.assert_close(rendered.mask, layers.mask(), atol=1e-5, rtol=0)
    torch.testing.assert_close(rendered.image, expected, atol=5e-4, rtol=0)


def test_refining_brings_the_source_closer(source, created):
    assert list(created.psnr) == ["generated", "updated", "refined"]
    assert created.psnr["refined"] > max(created.psnr["generated"], created.psnr["updated"]) + 6
    shown = created.rendered.lf + created.rendered.hf
    own = psnr_inside(shown, source.image[None], source.mask[None] * created.rendered.mask)
    assert own == pytest.approx(created.psnr["refined"])
    assert 0 < created.mask_iou < 1


def test_psnr_counts_only_the_person():
    image, mask = torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    goal = image.clone()
    goal[..., 4:] = 1
    assert psnr_inside(image, goal, mask) > 100
    assert psnr_inside(image, goal + 0.2, mask) == pytest.approx(20)  # (0.2 / 2) squared is a hundredth


def test_a_saved_avatar_comes_back(created, tmp_path):
    path = tmp_path / "me.avatar"
    created.avatar.save(path)
    loaded = Avatar.load(path)
    keypoints = torch.rand(2, 136) * 2 - 1
    assert torch.equal(loaded.render(keypoints).image, created.avatar.render(keypoints).image)
    assert (loaded.config, loaded.facts) == (created.avatar.config, {"license": "test"})
    assert torch.equal(loaded.source_keypoints, created.avatar.source_keypoints)
    stored = load_file(path)
    assert not any(value.shape[-2:] == (64, 64) and key != "texture" for key, value in stored.items()), (
        "no photo inside"
    )


def test_facts_hold_hashes_not_the_photo(tmp_path):
    photo, weights = tmp_path / "a.jpg", tmp_path / "w"
    photo.write_bytes(b"photo"), weights.write_bytes(b"weights")
    facts = avatar_facts(weights, {"license": "MIT"}, photo)
    assert facts["license"] == "MIT"
    assert len(facts["photo_sha256"]) == len(facts["weights_sha256"]) == 64
    assert "photo_sha256" not in avatar_facts(weights, {}, None)


def rewritten(avatar: Avatar, path, tensors=None, **metadata: str) -> None:
    """The avatar's file with other tensors or metadata."""
    avatar.save(path)
    state = load_file(path) | (tensors or {})
    stored = {"format": "mobile-avatar", "version": "1", "config": json.dumps(avatar.config.to_dict())} | metadata
    save_file({k: v for k, v in state.items() if v is not None}, path, stored)


@pytest.mark.parametrize(
    ("metadata", "tensors", "words"),
    [
        ({"version": "2"}, {}, "format version 2.*update mobile-avatar"),
        ({"version": "x"}, {}, "format version x"),
        ({"format": "other"}, {}, "not a .avatar file of mobile-avatar"),
        ({"config": "{"}, {}, "no readable model config"),
        ({"config": '{"image_size": 64, "wings": 2}'}, {}, "unknown model option 'wings'"),
        ({}, {"texture": None}, "texture is missing"),
        ({}, {"texture": torch.full((1, 3, 64, 64), torch.nan)}, "not finite"),
        ({}, {"source_keypoints": torch.zeros(3)}, "source_keypoints"),
        ({}, {"generator.heads.weight": None}, "generator.heads.weight|heads.weight is missing"),
        ({}, {"generator.heads.bias": torch.zeros(5)}, r"heads.bias has shape \(5,\)"),
        ({}, {"generator.heads.bias": torch.full((6,), torch.inf)}, "NaN or Inf"),
        ({}, {"generator.more": torch.zeros(1)}, "unknown tensor more"),
    ],
)
def test_files_that_are_not_ours_are_refused_in_a_sentence(created, tmp_path, metadata, tensors, words):
    path = tmp_path / "bad.avatar"
    rewritten(created.avatar, path, tensors, **metadata)
    with pytest.raises(BadInput, match=words) as error:
        Avatar.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not an avatar", b"\xff" * 4000])
def test_foreign_bytes(tmp_path, content):
    path = tmp_path / "x.avatar"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="truncated or foreign"):
        Avatar.load(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_truncated_files(created, tmp_path, share):
    path = tmp_path / "x.avatar"
    created.avatar.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadInput, match="truncated or foreign"):
        Avatar.load(path)
