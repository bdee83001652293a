"""ROME avatar files: what is saved comes back, and nothing else is taken."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.avatar import RomeAvatar
from mobile_avatar.models.rome.avatar_mesh import AvatarMesh
from mobile_avatar.models.rome.compact_renderer import CompactConfig, CompactRenderer
from mobile_avatar.models.rome.feature_image import feature_image
from mobile_avatar.models.rome.model import Person, Rome
from mobile_avatar.models.rome.networks import RomeNetworks
from tests.models.rome.heads import EXPRESSIONS, SHAPES, golden_arrays, golden_head, random_head
from tests.models.rome.official import SMALL
from tests.rome_avatars import ENCODER_SIZE, SIZE, small_avatar, source_codes


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[RomeAvatar, Path]:
    avatar, path = small_avatar(), tmp_path_factory.mktemp("avatar") / "a.avatar"
    avatar.save(path)
    return avatar, path


def test_a_loaded_avatar_renders_the_same_frame(saved: tuple) -> None:
    avatar, path = saved
    again = RomeAvatar.load(path)
    image = torch.rand(1, 3, ENCODER_SIZE, ENCODER_SIZE)
    codes = avatar.encoder(image)
    assert torch.equal(again.encoder(image), codes)
    frame, other = avatar.render(codes), again.render(codes)
    for name in ("positions", "normals", "features", "rgba"):
        assert torch.equal(getattr(frame, name), getattr(other, name)), name
    assert again.facts == avatar.facts
    assert again.config == avatar.config
    assert torch.equal(again.source_codes, avatar.source_codes)


def test_frames_follow_their_codes(saved: tuple) -> None:
    avatar, _ = saved
    codes = avatar.source_codes.repeat(3, 1)
    codes[1, avatar.mesh.expressions + 1] += 0.5
    codes[2, :3] += 2
    frames = [avatar.render(row[None]) for row in codes]
    for frame in frames:
        assert 0.2 < frame.features[:, -1].mean() < 0.95
        assert frame.rgba.shape == (1, 4, SIZE, SIZE)
    assert (frames[0].rgba - frames[1].rgba).abs().mean() > 0.01
    assert (frames[0].positions - frames[2].positions).abs().max() > 0.02


def test_the_file_says_what_it_is_and_is_marked_synthetic(saved: tuple) -> None:
    with safe_open(saved[1], "pt") as file:
        metadata = file.metadata()
    assert metadata["synthetic_media"] == "true"
    assert metadata["license"] == "Apache-2.0"
    assert json.loads(metadata["config"])["renderer"]["width"] == 4


def _rewritten(path: Path, folder: Path, config: dict | None = None, **tensors: torch.Tensor | None) -> Path:
    """The file with other sizes in its config and other tensors, None for none."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | (config or {}))
    state = load_file(path) | {name.replace("__", "."): value for name, value in tensors.items()}
    save_file({name: value for name, value in state.items() if value is not None}, folder / "x.avatar", metadata)
    return folder / "x.avatar"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"texture": None}, "texture"),
        ({"texture": torch.full((1, 8, SIZE, SIZE), torch.nan)}, "texture"),
        ({"texture": torch.zeros(1, 8, 4, 5)}, "texture"),
        ({"source_codes": torch.zeros(3)}, "source_codes"),
        ({"mesh__corners": torch.full((70, 3), 48, dtype=torch.int32)}, "corners"),
        ({"mesh__uv": None}, "uv"),
        ({"extra": torch.zeros(1)}, "extra"),
        ({"config": {"vertices": 10**9}}, "sizes"),
        ({"config": {"expressions": 5}}, "tensor"),
        ({"config": {"encoder_width": "1"}}, "encoder_width"),
        ({"config": {"encoder_size": 10**6}}, "encoder_size"),
        ({"config": {"renderer": {}}}, "renderer"),
    ],
)
def test_damaged_files_are_refused_in_a_sentence(saved: tuple, tmp_path: Path, change: dict, word: str) -> None:
    path = _rewritten(saved[1], tmp_path, **change)
    with pytest.raises(BadInput, match=word):
        RomeAvatar.load(path)


@torch.no_grad()
def test_the_avatar_sees_what_the_rendering_network_of_its_mode_sees() -> None:
    """Made from a whole ROME in its mobile mode: the same vertices and, but for the encoding, the same features."""
    head = random_head()
    config = replace(
        SMALL, n_vertices=48, n_shape=SHAPES, n_exp=EXPRESSIONS, image_size=32, mobilenet_width=0.25, img_channels=4
    )
    networks = RomeNetworks(config, ("frame_regressor", "rendering_unet")).eval()
    torch.manual_seed(0)
    offsets = 0.01 * torch.randn(1, 48, 3)
    person = Person(torch.randn(1, 8, 32, 32), torch.randn(1, SHAPES), offsets)
    networks.frame_regressor.classifier[1].bias.copy_(source_codes(head) + 0.03 * torch.rand(EXPRESSIONS + 9))
    rome, image = Rome(networks, head, "linear_mobile"), torch.rand(1, 3, 32, 32)
    frame = rome(person, rome.frame_codes(image))
    avatar = RomeAvatar.of(networks, head, person, CompactRenderer(CompactConfig(32, 4, 1)), source_codes(head), {})
    found = avatar.render(avatar.encoder(image))
    rows = avatar.mesh.vertex.long()
    torch.testing.assert_close(found.positions, frame.mesh.projected[:, rows], atol=1e-5, rtol=0)
    expected = torch.cat((frame.features[:, :8], frame.maps.normals, frame.maps.mask), dim=1)
    assert 0.1 < expected[:, -1].mean() < 0.9
    torch.testing.assert_close(found.features, expected, atol=1e-3, rtol=0)
    with pytest.raises(BadInput, match="linear"):
        RomeAvatar.of(networks, head, replace(person, offsets=None), avatar.renderer, source_codes(head), {})


@torch.no_grad()
def test_features_equal_the_official_ones(shared) -> None:
    """From the codes that the official mobile path was given to the inputs of its rendering network."""
    golden, model = (golden_arrays(shared, name) for name in ("11_linear_path", "00_model"))
    offsets = (golden["coef"] @ model["u_full"].T).view(1, -1, 3) + model["mean_deform"]
    mesh = AvatarMesh.of(golden_head(shared), golden["shape"], offsets)
    positions, normals = mesh(golden["online_output"])
    size = golden["linear_mobile/hard_mask"].shape[-1]
    found = feature_image(positions, normals, mesh.corners.long(), mesh.uv, golden["texture"], size)
    rows = mesh.vertex.long()
    want = {key.removeprefix("linear_mobile/"): value for key, value in golden.items()}
    torch.testing.assert_close(positions, want["vertices_proj"][:, rows], atol=1e-5, rtol=0)
    assert torch.equal(found[:, 11:].long(), want["hard_mask"])
    torch.testing.assert_close(found[:, :8], want["rendered_texture_masked"], atol=1e-3, rtol=0)
    torch.testing.assert_close(found[:, 8:11], want["normals"], atol=1e-4, rtol=0)


def test_parts_that_do_not_fit_are_refused(saved: tuple) -> None:
    avatar, _ = saved
    with pytest.raises(BadInput, match="codes"):
        replace(avatar, source_codes=torch.zeros(4))
