"""ROME's training: what it is fed, what moves what, losses that fall, runs that resume exactly."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.camera import project, turn
from mobile_avatar.models.rome.model import Rome
from mobile_avatar.models.rome.networks import CORE, RomeNetworks, read_frames
from mobile_avatar.models.rome.parametric import ParametricHead, rotation_matrices
from mobile_avatar.models.rome.presets import PRESETS
from mobile_avatar.models.rome.resnet50 import ResNet50
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.models.rome.weights import load_weights
from mobile_avatar.training import linear_rome, rome, rome_augment
from mobile_avatar.training.linear_rome import LINEAR, REGRESSORS, Units, train_linear
from mobile_avatar.training.pool import PoolSpec
from mobile_avatar.training.rome import RomeObjective, train_rome
from mobile_avatar.training.rome_augment import augmented
from mobile_avatar.training.rome_heads import WIDEST, RomePool, axis_angle, draw_people, unseen_clips
from mobile_avatar.training.rome_options import RomeTrainOptions, preset_config
from mobile_avatar.training.rome_person import draw, photo_person, pose_mesh
from tests.cli.runner import run

OPTIONS = RomeTrainOptions(
    steps=4,
    batch_size=1,
    targets=0,
    identities=1,
    frames=1,
    device="cpu",
    lr=4e-3,
    basis_people=2,
    standing_batches=1,
    checkpoint_every=2,
    sheet_every=2,
    log_every=1,
)


def tiny_config():
    narrow = dict.fromkeys(("tex_max_channels", "geom_max_channels", "img_max_channels"), 8)
    config = replace(preset_config("small", synthetic_head()), image_size=32, mlp_channels=16, **narrow)
    return replace(config, resnet_channels=4, mobilenet_width=0.1, n_basis=2)


@pytest.fixture
def start() -> RomeNetworks:
    torch.manual_seed(0)
    return RomeNetworks(tiny_config(), CORE)


@pytest.fixture(autouse=True)
def few_unseen(monkeypatch):
    for module in (rome, linear_rome):
        monkeypatch.setattr(module, "SHEET_PEOPLE", 1)
        monkeypatch.setattr(module, "SHEET_FRAMES", 1)
    monkeypatch.setattr(linear_rome, "UNSEEN", 1)


@pytest.fixture(scope="module")
def clips():
    return unseen_clips(32, 1, 2)


def losses(folder: Path) -> list[dict]:
    """Rows without what the clock decides."""
    timed = ("seconds", "samples_per_second", "seconds_left")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in timed} for line in lines]


def test_codes_place_the_landmarks_on_the_keypoints_and_rotations_are_read_back(clips):
    head = ParametricHead(synthetic_head())
    codes = clips.codes()
    posed = head(clips.shape.repeat_interleave(2, 0), codes.expression, codes.pose)
    points = turn(head.landmarks(posed.vertices, posed.rotation), posed.rotation, posed.root)
    error = (project(points, codes.camera)[..., :2] - clips.keypoints.flatten(0, 1)).norm(dim=-1)
    assert error.mean() < 0.03  # the picture is 2 wide; perspective and painted lips are what is left
    turns = torch.tensor([[0.3, -0.5, 0.1], [0.0, 0.0, 0.0], [2.0, 1.0, -1.5]])
    torch.testing.assert_close(axis_angle(rotation_matrices(turns)), turns, atol=1e-5, rtol=0)


def test_outlines_move_vertices_and_pictures_train_the_texture(start, clips):
    head = synthetic_head()
    model = Rome(start, head)
    objective = RomeObjective(model, head)
    mesh = pose_mesh(model, photo_person(model, clips), clips)
    pictures = objective.pictures(draw(model, clips), clips)
    sum(pictures.values()).backward(retain_graph=True)
    assert all(p.grad is None for p in start.vertex_mlp.parameters())
    assert start.texture_encoder.net[0].weight.grad.abs().sum() > 0
    assert start.rendering_unet.to_outputs.weight.grad.abs().sum() > 0
    losses = objective.geometry(mesh, clips)
    assert losses.keys() == {"hair", "neck", "chamfer", "laplacian", "keypoints"}
    for name, region, other in (("hair", head.hair, head.neck), ("neck", head.neck, head.hair)):
        (grad,) = torch.autograd.grad(losses[name], mesh.projected, retain_graph=True)
        assert grad[:, region].abs().sum() > 0, name
        assert grad[:, other].abs().sum() == 0, f"{name} holds the other region"
    sum(losses.values()).backward()
    assert start.vertex_mlp.block_2[-1].weight.grad.abs().sum() > 0


def test_pictures_are_judged_in_every_so_many_steps_and_outlines_in_driven_frames(start, clips):
    head = synthetic_head()
    objective = RomeObjective(Rome(start, head), head, pictures_every=3)
    names = [set(objective(clips, step)) for step in (2, 3, 5)]
    assert names[0] == names[2] > names[1]
    assert names[0] - names[1] == {"segmentation", "perceptual", "texture"}
    assert clips.judged().images.shape[1] == 1
    torch.testing.assert_close(clips.judged().pose, clips.pose[:, 1:])
    alone = clips.judged().judged()
    torch.testing.assert_close(alone.images, clips.images[:, 1:])


def test_a_pool_pairs_photos_with_outline_views_from_all_sides_and_far_away(tmp_path):
    pool = RomePool(tmp_path, PoolSpec(32, 4, 6))
    pool.fill()
    for frames in (1, 3, 6):
        for draw_ in pool.draw(np.random.default_rng(0), 4, frames):
            assert len(set(draw_.frames)) == frames
            assert draw_.frames[0] < 3
            assert set(draw_.frames[1:4]) <= {3, 4, 5}
    people = draw_people(range(200), 6, "train", outlines=3)
    plain = draw_people(range(200), 6, "train")
    yaw, plain_yaw = (part.frames.pose[:, 0].view(200, 6) for part in (people, plain))
    assert torch.equal(yaw[:, :3], plain_yaw[:, :3])
    assert yaw[:, 3:].abs().max() <= WIDEST
    assert torch.histc(yaw[:, 3:], 6, -WIDEST, WIDEST).min() > 60  # of 100 expected in each sixth
    assert torch.equal(people.identity.lens.view(200, 6)[:, :3], plain.identity.lens.view(200, 6)[:, :3])
    clips = pool.load(pool.draw(np.random.default_rng(0), 4, 4))
    head, codes = ParametricHead(synthetic_head()), clips.codes()
    posed = head(clips.shape.repeat_interleave(4, 0), codes.expression, codes.pose)
    points = turn(head.landmarks(posed.vertices, posed.rotation), posed.rotation, posed.root)
    placed = project(points, codes.camera)[..., :2].view(4, 4, 68, 2)
    error = (placed - clips.keypoints).norm(dim=-1).mean((0, 2))
    assert error[1:].max() < error[0] < 0.03  # no perspective is left in outline views


def test_losses_fall_and_a_resumed_run_equals_an_unbroken_one(tmp_path, monkeypatch, start):
    whole = train_rome(OPTIONS, tmp_path / "whole", False, copy.deepcopy(start))
    told = losses(tmp_path / "whole")
    assert told[-1]["total"] < 0.9 * told[0]["total"]
    write_sheet = rome.write_rome_sheet

    def power_cut(path, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(rome, "write_rome_sheet", power_cut)
    with pytest.raises(KeyboardInterrupt):
        train_rome(OPTIONS, tmp_path / "broken", False, copy.deepcopy(start))
    monkeypatch.setattr(rome, "write_rome_sheet", write_sheet)
    with pytest.raises(BadInput, match="--resume"):
        train_rome(OPTIONS, tmp_path / "broken", False, copy.deepcopy(start))
    resumed = train_rome(OPTIONS, tmp_path / "broken", True, copy.deepcopy(start))
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert losses(tmp_path / "broken") == told
    stored, facts = load_weights(tmp_path / "whole" / "weights.safetensors")
    torch.testing.assert_close(stored.state_dict(), whole.state_dict())
    assert facts["trained_on"] == "synthetic heads, 1 people x 1 frames, 4 steps of 1 (rome)"
    assert {path.name for path in (tmp_path / "whole").glob("*.png")} == {"sheet-000002.png", "sheet-000004.png"}


def test_presets_are_models_and_the_last_one_is_the_released():
    configs = {name: preset_config(name, synthetic_head()) for name in PRESETS}
    with torch.device("meta"):
        networks = {name: RomeNetworks(config, CORE) for name, config in configs.items()}
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    assert counts["small"] < counts["medium"] < counts["released"] == 70_494_124
    groups = {name: network.texture_encoder.net[1].main[0].num_groups for name, network in networks.items()}
    assert groups == {"small": 4, "medium": 8, "released": 32}


@pytest.mark.slow
def test_a_face_network_and_a_discriminator_join_in(tmp_path):
    torch.save(ResNet50(7).state_dict(), tmp_path / "faces.pth")
    options = replace(OPTIONS, steps=2, adversarial=True, face_network=str(tmp_path / "faces.pth"))
    train_rome(options, tmp_path / "run", False, RomeNetworks(replace(tiny_config(), image_size=64), CORE))
    for row in losses(tmp_path / "run"):
        assert 0 < row["identity"] < 0.2
        assert row["discriminator"] > 0
        assert row["matching"] > 0
    checkpoint = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert set(checkpoint["networks"]) == {"model", "discriminator"}


def test_moved_frames_keep_landmarks_and_cameras_together(clips, monkeypatch):
    coloured = augmented(clips, np.random.default_rng(0), 1, slice(0, 1))
    for name in ("GAIN", "GAMMA", "NOISE"):
        monkeypatch.setattr(rome_augment, name, 0)
    moved = augmented(clips, np.random.default_rng(0), 1, slice(0, 1))
    head, codes = ParametricHead(synthetic_head()), moved.codes()
    posed = head(clips.shape.repeat_interleave(2, 0), codes.expression, codes.pose)
    points = turn(head.landmarks(posed.vertices, posed.rotation), posed.rotation, posed.root)

    def error(camera, keypoints):
        return project(points, camera)[..., :2] - keypoints.flatten(0, 1)

    zoom = (moved.camera[..., 0] / clips.camera[..., 0]).flatten()[:, None, None]
    assert 0.01 < (zoom - 1).abs().max() < 0.15
    before = error(clips.camera.flatten(0, 1), clips.keypoints)
    torch.testing.assert_close(error(codes.camera, moved.keypoints), before * zoom, atol=1e-5, rtol=0)

    def seen(clips, part):  # at the keypoints, a row per frame
        places = clips.keypoints.flatten(0, 1)[:, None]
        return F.grid_sample(getattr(clips, part).flatten(0, 1), places, align_corners=False)[:, 0, 0]

    assert (seen(moved, "masks") - seen(clips, "masks")).abs().mean() < 0.05
    for rows in zip(seen(moved, "images"), seen(clips, "images"), strict=True):
        assert torch.corrcoef(torch.stack(rows))[0, 1] > 0.9
    assert torch.equal(coloured.camera, moved.camera)
    assert (coloured.images - moved.images).abs().mean() > 0.02
    again = augmented(clips, np.random.default_rng(0), 1, slice(0, 1))
    assert torch.equal(again.images, moved.images)


def test_regressors_train_in_units_of_their_codes_and_are_stored_in_metres_and_radians():
    torch.manual_seed(0)
    networks = RomeNetworks(tiny_config(), REGRESSORS).eval()
    images = torch.rand(2, 3, 32, 32)
    outputs = {name: networks.part(name)(images).shape[1] for name in REGRESSORS}
    scale, middle = ({name: torch.rand(count) + 0.1 for name, count in outputs.items()} for _ in range(2))
    units, normal = Units(scale, middle), networks.state_dict()
    read = {name: units.read(networks, name, images) for name in REGRESSORS}
    networks.load_state_dict(units.own(normal))
    for name in REGRESSORS:
        torch.testing.assert_close(networks.part(name)(images), read[name])
    torch.testing.assert_close(units.normal(units.own(normal)), normal)


@pytest.mark.slow
def test_the_linear_model_is_trained_from_the_full_one_and_resumes(tmp_path, monkeypatch, start):
    options = replace(OPTIONS, stage="linear-rome", identities=6, basis_people=6, batch_size=2)
    whole = train_linear(options, tmp_path / "whole", False, start, "before")
    assert set(whole.parts) == {*CORE, *LINEAR}
    torch.testing.assert_close(whole.texture_encoder.state_dict(), start.texture_encoder.state_dict())
    write_sheet = linear_rome.write_rome_sheet

    def power_cut(path, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(linear_rome, "write_rome_sheet", power_cut)
    with pytest.raises(KeyboardInterrupt):
        train_linear(options, tmp_path / "broken", False, start, "before")
    monkeypatch.setattr(linear_rome, "write_rome_sheet", write_sheet)
    resumed = train_linear(options, tmp_path / "broken", True, start, "before")
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    stored, facts = load_weights(tmp_path / "broken" / "weights.safetensors")
    torch.testing.assert_close(stored.state_dict(), whole.state_dict())
    assert facts["trained_on"].startswith("before; synthetic heads")


def test_one_regressor_learns_from_larger_frames_and_the_other_stays(tmp_path, start):
    options = replace(
        OPTIONS, stage="linear-rome", steps=1, identities=2, batch_size=2, only="frame_regressor", frame_size=64
    )
    with pytest.raises(BadInput, match="no linear_basis yet"):
        train_linear(options, tmp_path / "early", False, start)
    torch.manual_seed(0)
    linear = RomeNetworks(start.config, (*CORE, *LINEAR))
    linear.linear_basis.basis.normal_(0, 1e-3)
    before = copy.deepcopy(linear.state_dict())
    found = train_linear(options, tmp_path / "run", False, linear)
    assert (found.config.frame_side, found.config.image_size) == (64, 32)
    after = found.state_dict()
    changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(after[name], value)}
    assert changed == {"frame_regressor"}
    assert read_frames(found, torch.rand(1, 3, 100, 100)).shape == (1, found.config.n_exp + 9)
    assert not (tmp_path / "run" / "basis.safetensors").exists()
    assert (tmp_path / "pool-rome-64").is_dir()


def test_draws_for_regressors_hold_photos_first(tmp_path):
    pool = RomePool(tmp_path, PoolSpec(32, 2, 6), photos_first=True)
    pool.fill()
    for draw_ in pool.draw(np.random.default_rng(0), 2, 4):
        assert set(draw_.frames[:3]) == {0, 1, 2}
        assert draw_.frames[3] >= 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("linear-rome --only texture_encoder", "is not one of"),
        ("bilayer --frame-size 64", "--frame-size is no option of the stage bilayer"),
        ("rome --tex-spade", "--tex-spade is no option of the stage rome"),
        ("rome --preset mobile", "no preset 'mobile'"),
        ("linear-rome", "needs --weights of the full model"),
        ("bilayer --resnet50 file", "--resnet50 is no option of the stage bilayer"),
        ("rome --data elsewhere", "data 'elsewhere'"),
    ],
)
def test_options_of_other_stages_are_refused(tmp_path, capfd, arguments, sentence):
    result = run(capfd, "train", *arguments.split(), "--run", tmp_path / "run")
    assert result.code == 2
    assert sentence in result.sentence
