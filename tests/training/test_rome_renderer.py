"""The renderer for phones: what it is shown, what it is judged by, runs that resume exactly, its table."""

import copy
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.appearance import Appearance
from mobile_avatar.models.rome.appearance_weights import load_appearance, save_appearance
from mobile_avatar.models.rome.avatar_mesh import AvatarMesh
from mobile_avatar.models.rome.compact_renderer import CompactConfig, CompactRenderer
from mobile_avatar.models.rome.encoding import harmonic_encoding
from mobile_avatar.models.rome.feature_image import feature_image
from mobile_avatar.models.rome.model import Rome
from mobile_avatar.models.rome.networks import CORE, RomeNetworks
from mobile_avatar.models.rome.photo_texture import PhotoSurface
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.models.rome.weights import save_weights
from mobile_avatar.training import rome_renderer, rome_renderer_table
from mobile_avatar.training.rome_heads import WIDEST, unseen_clips
from mobile_avatar.training.rome_person import per_frame, photo_person
from mobile_avatar.training.rome_renderer import RENDERER_FILE, RendererObjective, train_renderer
from mobile_avatar.training.rome_renderer_options import RendererTrainOptions
from mobile_avatar.training.rome_renderer_table import FRAMES, renderer_table, unseen_frames, work
from mobile_avatar.training.rome_renderer_teacher import LARGEST_JAW, LINEAR_PARTS, Teacher, invented_codes
from tests.cli.runner import run
from tests.training.test_rome_training import losses, tiny_config

OPTIONS = RendererTrainOptions(
    width=4,
    steps=6,
    lr=8e-3,
    batch_size=2,
    targets=0,
    identities=2,
    frames=1,
    device="cpu",
    standing_batches=2,
    checkpoint_every=3,
    sheet_every=3,
    log_every=1,
)
TOLD = {"license": "of the teacher", "trained_on": "before", "teacher_sha256": "0" * 64}
SMALL = {"texture_encoder", "rendering_unet"} | LINEAR_PARTS


@pytest.fixture(scope="module")
def networks() -> RomeNetworks:
    """A linear model whose offsets move the mesh."""
    torch.manual_seed(0)
    made = RomeNetworks(tiny_config(), tuple(SMALL)).eval()
    made.linear_basis.basis.normal_(0, 1e-3)
    made.linear_basis.mean.normal_(0, 1e-3)
    # Masks in the middle tell nobody where they are.
    made.rendering_unet.to_outputs.weight.data.mul_(8)
    return made


@pytest.fixture(scope="module")
def clips():
    return unseen_clips(32, 2, 2)


@pytest.fixture(autouse=True)
def few_unseen(monkeypatch):
    monkeypatch.setattr(rome_renderer, "SHEET_PEOPLE", 1)
    monkeypatch.setattr(rome_renderer, "SHEET_FRAMES", 1)


@pytest.fixture(autouse=True, scope="module")
def frames_drawn_once():
    """Drawing people takes most of the time of a table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rome_renderer_table, "unseen_frames", lru_cache(unseen_frames))
        yield


class Perfect(nn.Module):
    """The teacher itself, from the student's inputs and with its own textures; `change` does something to what it
    shows."""

    def __init__(self, networks: RomeNetworks, size: int = 32, change=lambda image, mask: (image, mask)) -> None:
        super().__init__()
        self.renderer, self.change = SimpleNamespace(config=CompactConfig(size, 4, 1)), change
        self.networks, self.octaves = networks, networks.config.octaves

    def texture(self, photo: Tensor, matte: Tensor, seen: PhotoSurface) -> Tensor:
        return self.networks.texture_encoder(photo, matte)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        encoded = harmonic_encoding(features[:, 8:11], self.octaves, dim=1)
        shown = torch.sigmoid(self.networks.rendering_unet(torch.cat((features[:, :8], encoded), dim=1)))
        return self.change(*shown.split([3, 1], dim=1))


@torch.no_grad()
@pytest.mark.parametrize("size", [32, 48])
def test_the_student_sees_what_the_avatar_of_a_phone_draws(networks, clips, size):
    head = synthetic_head()
    teacher = Teacher(networks, head, size)
    person, codes = teacher.person(clips), clips.codes()
    lesson = teacher(per_frame(person, 2), codes)
    features = lesson.features(person.texture.repeat_interleave(2, 0))
    for number in range(2):
        mesh = AvatarMesh.of(head, person.shape[number : number + 1], person.offsets[number : number + 1])
        for frame in (2 * number, 2 * number + 1):
            row = torch.cat([part[frame : frame + 1] for part in vars(codes).values()], dim=1)
            drawn = feature_image(*mesh(row), mesh.corners.long(), mesh.uv, person.texture[number : number + 1], size)
            assert 0.1 < drawn[:, -1].mean() < 0.9
            # Where rounding decides which of two faces covers a pixel the two may differ.
            differs = (drawn - features[frame : frame + 1]).abs().amax(1) > 1e-2
            assert differs.float().mean() < 0.005
    if size == 32:
        frame = Rome(networks, head, "linear")(per_frame(person, 2), codes)
        assert torch.equal(lesson.image, frame.image)
        assert torch.equal(lesson.mask, frame.mask)


class Seen(nn.Module):
    """In place of a texture encoder: its inputs."""

    def forward(self, photo: Tensor, matte: Tensor) -> Tensor:
        return torch.cat((photo, matte, photo, matte), dim=1)


def test_encoders_see_photos_of_their_own_size(clips):
    head, networks = synthetic_head(), RomeNetworks(tiny_config(), CORE)
    networks.texture_encoder = Seen()
    sizes = {"scale_factor": 2, "mode": "bilinear"}
    finer = {
        name: nn.functional.interpolate(getattr(clips, name).flatten(0, 1), **sizes).unflatten(0, (2, 2))
        for name in ("images", "masks")
    }
    seen = Teacher(networks, head, 32).person(clips).texture
    same = Teacher(networks, head, 64).person(replace(clips, **finer)).texture
    assert seen.shape == same.shape == (2, 8, 32, 32)
    assert (same - seen).abs().mean() < 0.05 * seen.std()


def test_the_full_mode_teaches_where_linear_parts_are_missing(clips):
    torch.manual_seed(0)
    networks, head = RomeNetworks(tiny_config(), CORE).eval(), synthetic_head()
    teacher = Teacher(networks, head, 32)
    lesson = teacher(per_frame(teacher.person(clips), 2), clips.codes())
    model = Rome(networks, head)
    frame = model(per_frame(photo_person(model, clips), 2), clips.codes())
    assert torch.equal(lesson.image, frame.image)
    assert not any(parameter.requires_grad for parameter in networks.parameters())
    with pytest.raises(BadInput, match="6 channels"):
        Teacher(RomeNetworks(replace(tiny_config(), tex_outputs=6), CORE), head, 32)


def test_invented_frames_are_seen_from_everywhere_in_front_and_stay_in_the_picture(networks, clips):
    torch.manual_seed(0)
    codes = invented_codes(clips, 40)
    assert [len(part) for part in vars(codes).values()] == [80, 80, 80]
    yaw, jaw = codes.pose[:, 1], codes.pose[:, 3]
    assert 0.9 < yaw.abs().max() / WIDEST < 1.2
    assert torch.histc(yaw, 4, -WIDEST, WIDEST).min() > 5
    assert 0 <= jaw.min() < 0.1 < jaw.max() <= LARGEST_JAW
    torch.testing.assert_close(codes.expression.std(), torch.tensor(1.0), atol=0.1, rtol=0)
    assert not torch.equal(invented_codes(clips, 40).pose, codes.pose)
    model = Teacher(networks, synthetic_head(), 32)
    points = model.model.mesh(per_frame(model.person(clips), 40), codes).landmarks
    assert (points.abs() < 1).all(-1).float().mean() > 0.97


def test_a_perfect_student_is_judged_by_the_truth_alone_and_each_fault_by_its_loss(networks, clips):
    teacher = Teacher(networks, synthetic_head(), 32)

    def judged(change=lambda image, mask: (image, mask), share: float = 0.25) -> dict[str, float]:
        torch.manual_seed(1)
        found = RendererObjective(teacher, Perfect(networks, change=change), 1, share)(clips, 0)
        return {name: float(value) for name, value in found.items()}

    right = judged()
    assert right["total"] == pytest.approx(sum(right.values()) - right["total"])
    for name in ("colour", "picture", "mask", "dice"):
        assert right[name] == pytest.approx(0, abs=1e-5), name
        assert right[f"true_{name}"] > 0.02, name
    # Alone the truth is judged without the teacher's pictures and without invented frames.
    alone = judged(share=1.0)
    assert set(alone) == {"true_colour", "true_picture", "true_mask", "true_dice", "total"}
    for name in ("true_colour", "true_mask", "true_dice"):
        assert alone[name] == pytest.approx(4 * right[name], rel=1e-4), name
    darker = judged(lambda image, mask: (0.8 * image, mask))
    assert {name for name in right if darker[name] > right[name] + 0.01} >= {"colour", "picture"}
    assert [darker[name] for name in ("mask", "dice")] == [right[name] for name in ("mask", "dice")]
    thinner = judged(lambda image, mask: (image, 0.5 * mask))
    assert thinner["mask"] > 0.1
    assert thinner["dice"] > 0.1
    assert thinner["colour"] == right["colour"]


def test_colours_outside_the_mask_cost_nothing(networks, clips):
    teacher = Teacher(networks, synthetic_head(), 32)
    # A mask that is either.
    networks = copy.deepcopy(networks)
    networks.rendering_unet.to_outputs.weight.data[3].mul_(1e4)
    teacher = Teacher(networks, synthetic_head(), 32)

    def spoiled(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(mask > 0.5, image, 1 - image), mask

    torch.manual_seed(1)
    found = RendererObjective(teacher, Perfect(networks, change=spoiled), 1, 0.25)(clips, 0)
    assert float(found["colour"]) < 0.01
    assert float(found["picture"]) < 0.01


def test_textures_hold_the_colours_of_the_photo(networks, clips):
    """Seen as in the photo, the first channels are the photo, wherever it is to be trusted."""
    networks = copy.deepcopy(networks)
    networks.linear_basis.basis.zero_()  # bumps are seen from the side, and not believed
    networks.linear_basis.mean.zero_()
    networks.basis_regressor.fc.weight.data.zero_()
    clips, teacher = unseen_clips(64, 1, 1), Teacher(networks, synthetic_head(), 64)
    person = teacher.person(clips)
    sources = teacher.sources(clips, person)
    assert sources.photo.shape == (1, 3, 32, 32)
    assert sources.seen.share.shape == (1, 1, 128, 128)
    with torch.no_grad():
        texture = Appearance(networks.config, CompactConfig(64, 4, 1)).texture(*sources)
    lesson = teacher(person, clips.codes(), pictures=False)
    assert lesson.image is None
    drawn = lesson.features(texture)[:, :3]
    trusted = lesson.features(sources.seen.share.expand(-1, 8, -1, -1))[:, :1] > 0.99
    assert trusted.float().mean() > 0.1
    error = (drawn - clips.images[:, 0]).abs().mean(1, keepdim=True)[trusted]
    assert error.median() < 0.02
    assert error.mean() < 0.05


def test_a_run_goes_on_from_another_of_other_size(tmp_path, networks):
    appearance = Appearance(networks.config, CompactConfig(16, 4))
    save_appearance(appearance, tmp_path / "earlier.safetensors", {})
    options = replace(OPTIONS, steps=1, renderer=str(tmp_path / "earlier.safetensors"), lr=1e-9, ema=0.0)
    found = train_renderer(options, tmp_path / "run", False, networks, TOLD)
    assert found.renderer.config.image_size == 32
    for name, value in appearance.named_parameters():
        torch.testing.assert_close(found.state_dict()[name], value, atol=1e-6, rtol=0)
    with pytest.raises(BadInput, match="another --width"):
        train_renderer(replace(options, width=5), tmp_path / "other", False, networks, TOLD)


def test_losses_fall_and_a_resumed_run_equals_an_unbroken_one(tmp_path, monkeypatch, networks):
    before = copy.deepcopy(networks.state_dict())
    whole = train_renderer(OPTIONS, tmp_path / "whole", False, networks, TOLD)
    assert not whole.training
    torch.testing.assert_close(networks.state_dict(), before, rtol=0, atol=0)
    told = losses(tmp_path / "whole")
    assert told[-1]["true_colour"] < 0.95 * told[0]["true_colour"]
    assert told[-1]["total"] < told[0]["total"]
    write_sheet = rome_renderer.write_renderer_sheet

    def power_cut(path, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(rome_renderer, "write_renderer_sheet", power_cut)
    with pytest.raises(KeyboardInterrupt):
        train_renderer(OPTIONS, tmp_path / "broken", False, networks, TOLD)
    monkeypatch.setattr(rome_renderer, "write_renderer_sheet", write_sheet)
    with pytest.raises(BadInput, match="--resume"):
        train_renderer(OPTIONS, tmp_path / "broken", False, networks, TOLD)
    with pytest.raises(BadInput, match="does not fit"):
        train_renderer(replace(OPTIONS, width=5), tmp_path / "broken", True, networks, TOLD)
    resumed = train_renderer(OPTIONS, tmp_path / "broken", True, networks, TOLD)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert losses(tmp_path / "broken") == told
    stored, facts = load_appearance(tmp_path / "whole" / RENDERER_FILE)
    torch.testing.assert_close(stored.state_dict(), whole.state_dict(), rtol=0, atol=0)
    line = "before; synthetic heads, 2 people x 1 frames, 6 steps of 2 (rome-renderer)"
    assert facts == TOLD | {"trained_on": line}
    assert {path.name for path in (tmp_path / "whole").glob("*.png")} == {"sheet-000003.png", "sheet-000006.png"}
    # Standing statistics are those of the final weights, so they are no longer the ones of training.
    assert int(whole.renderer.stem[1].num_batches_tracked) == OPTIONS.standing_batches


def test_the_table_knows_a_perfect_student_and_a_faulty_one(networks):
    rows = renderer_table(networks, Perfect(networks).eval(), people=1, seeds=(0, 1))
    assert [row.frames for row in rows] == 3 * list(FRAMES)
    same, teacher, student = (rows[start : start + 3] for start in (0, 3, 6))
    for row in same:
        assert (row.compared, row.people, row.seeds) == ("student to teacher", 1, (0, 1))
        assert row.psnr > 90
        assert row.ssim == pytest.approx(1, abs=1e-4)
        assert row.mask_iou == pytest.approx(1, abs=1e-4)
    for one, other in zip(teacher, student, strict=True):
        assert one.psnr < 30
        assert other.psnr == pytest.approx(one.psnr, abs=1e-2)
        assert other.mask_iou == pytest.approx(one.mask_iou, abs=1e-4)
    faulty = Perfect(networks, change=lambda image, mask: (0.9 * image, mask / 2))
    row = renderer_table(networks, faulty, people=1)[0]
    assert row.mask_iou == pytest.approx(0.5, abs=1e-4)
    assert row.psnr < 40


def test_work_is_counted_from_both_graphs(networks):
    counted = work(networks, CompactRenderer(CompactConfig(32)), 256)
    assert counted["student"][1] == 2_570_059_776
    unet = networks.rendering_unet
    assert counted["teacher"][0] == sum(parameter.numel() for parameter in unet.parameters())
    assert work(networks, CompactRenderer(CompactConfig(32)), 32)["teacher"][1] * 64 == counted["teacher"][1]


def test_the_command_trains_and_the_table_reads_its_file(tmp_path, capfd, monkeypatch, networks):
    save_weights(networks, tmp_path / "w.safetensors", {"license": "Apache-2.0"})
    common = (
        "train",
        "rome-renderer",
        "--weights",
        tmp_path / "w.safetensors",
        "--run",
        tmp_path / "run",
        "--width",
        4,
    )
    plan = json.loads(run(capfd, *common, "--json", "--dry-run").out)
    assert plan["model"] == {"image_size": 32, "width": 4, "middle": 2}
    assert plan["seen"] == {"people": 8000, "frames": 24000, "pool_frames": 1920}
    few = ("--steps", 1, "--batch-size", 2, "--identities", 2, "--frames", 2, "--device", "cpu", "--json")
    done = json.loads(run(capfd, *common, *few).out)
    assert done["metrics"]["step"] == 1
    facts = load_appearance(Path(done["weights"]))[1]
    assert facts["license"] == "Apache-2.0"
    assert len(facts["teacher_sha256"]) == 64
    words = f"x --weights {tmp_path}/w.safetensors --renderer {done['weights']} --people 1 --sheet {tmp_path}/s.png"
    monkeypatch.setattr("sys.argv", [*words.split(), "--json"])
    rome_renderer_table.main()
    told = json.loads(capfd.readouterr().out)
    assert len(told["rows"]) == 9
    assert {(row["renderer"], row["size"]) for row in told["work"]} == {
        (name, size) for name in ("teacher", "student") for size in (32, 256)
    }
    assert (tmp_path / "s.png").is_file()
    monkeypatch.setattr("sys.argv", f"x --weights {done['weights']} --renderer {done['weights']}".split())
    with pytest.raises(SystemExit) as exit_:
        rome_renderer_table.main()
    assert exit_.value.code == 2
    assert "not a ROME weights file" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("rome-renderer", "needs --weights of the teacher"),
        ("rome-renderer --vgg19 file", "--vgg19 is no option of the stage rome-renderer"),
        ("rome-renderer --preset small", "--preset is no option of the stage rome-renderer"),
        ("rome-renderer --data elsewhere", "data 'elsewhere'"),
        ("rome-renderer --weights nowhere", "nowhere does not exist"),
        ("rome --true-share 0.5", "--true-share is no option of the stage rome"),
        ("rome --width 8", "--width is no option of the stage rome"),
        ("bilayer --width 8", "--width is no option of the stage bilayer"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, capfd, arguments, sentence):
    result = run(capfd, "train", *arguments.split(), "--run", tmp_path / "run")
    assert result.code == 2
    assert sentence in result.sentence
