"""Datasets on disk: the layout and its units, stateless draws, damaged frames, hostile files, missing folders."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobile_avatar.data.clips import Draw
from mobile_avatar.data.voxceleb import Frame, VoxCelebClips
from mobile_avatar.errors import BadInput

SIDE = 64


def write_frame(root: Path, item: str, sequence: str, name: str, level: int) -> None:
    """A grey picture of the given level; the mask's right half is the person; points lie on a grid line."""
    for kind in ("imgs", "keypoints", "segs"):
        (root / kind / "train" / item / sequence).mkdir(parents=True, exist_ok=True)
    place = Path("train", item, sequence)
    Image.fromarray(np.full((SIDE, SIDE, 3), level, np.uint8)).save(root / "imgs" / place / f"{name}.jpg", quality=95)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, SIDE // 2 :] = 255
    Image.fromarray(mask).save(root / "segs" / place / f"{name}.png")
    # 70 rows of three: other trackers store more points and a depth, which are not read.
    points = np.full((70, 3), 1e6)
    points[:68, 0], points[:68, 1] = SIDE / 4, np.linspace(0, SIDE, 68)
    np.save(root / "keypoints" / place / f"{name}.npy", points)


@pytest.fixture
def root(tmp_path) -> Path:
    for person in ("anna", "bert", "carl"):
        for sequence in ("00000", "00001"):
            for number in range(6):
                level = 40 * ("anna", "bert", "carl").index(person) + 10 * int(sequence) + number
                write_frame(tmp_path, f"{person}/v1", sequence, f"{number:06d}", level)
    return tmp_path


def picture(root: Path, item: str, sequence: str, name: str, kind: str = "imgs") -> Path:
    suffix = {"imgs": "jpg", "keypoints": "npy", "segs": "png"}[kind]
    return root / kind / "train" / item / sequence / f"{name}.{suffix}"


def test_layout_and_units(root):
    clips = VoxCelebClips(root, "train", 32)
    assert clips.people == ["anna/v1", "bert/v1", "carl/v1"]
    frames = clips.frames_of(1)
    assert len(frames) == 12
    assert frames[0] == Frame("00000", "000000")
    assert frames[6].sequence == "00001"
    loaded = clips.load([Draw(0, (0, 7)), Draw(2, (11, 11))])
    assert loaded.images.shape == (2, 2, 3, 32, 32)
    assert loaded.masks.shape == (2, 2, 1, 32, 32)
    assert loaded.keypoints.shape == (2, 2, 136)
    assert loaded.texture_uv is None
    assert {str(t.dtype) for t in (loaded.images, loaded.masks, loaded.keypoints)} == {"torch.float32"}
    levels = (loaded.images.mean(dim=(2, 3, 4)) + 1) * 127.5
    assert np.allclose(levels, [[0, 11], [95, 95]], atol=1)
    assert loaded.masks[0, 0, 0, :, 20:].min() == 1
    assert loaded.masks[0, 0, 0, :, :12].max() == 0
    points = loaded.keypoints[0, 0].view(68, 2)
    assert np.allclose(points[:, 0], -0.5)
    assert np.allclose(points[:, 1], np.linspace(-1, 1, 68), atol=1e-6)


def test_draws_depend_on_the_generator_alone(root):
    clips, other = VoxCelebClips(root), VoxCelebClips(root)
    first = clips.draw(np.random.default_rng(5), 2, 3)
    clips.draw(np.random.default_rng(6), 3, 2)
    assert clips.draw(np.random.default_rng(5), 2, 3) == first == other.draw(np.random.default_rng(5), 2, 3)
    assert len({draw.person for draw in first}) == 2
    assert all(len(set(draw.frames)) == 3 for draw in first)


def test_frames_are_spread_and_repeat_only_when_there_are_too_few(root):
    clips = VoxCelebClips(root)
    rng = np.random.default_rng(0)
    for draw in clips.draw(rng, 60, 4):
        assert len(set(draw.frames)) == 4
        assert max(draw.frames) - min(draw.frames) >= 5
    many = clips.draw(rng, 1, 15)[0].frames
    assert set(many) == set(range(12))
    # More people than there are: everybody once before anybody comes twice.
    people = [draw.person for draw in clips.draw(rng, 7, 1)]
    assert sorted(people[:3]) == sorted(people[3:6]) == [0, 1, 2]
    counts = np.bincount([f for draw in clips.draw(rng, 3000, 2) for f in draw.frames], minlength=12)
    assert counts.min() > 0.6 * counts[1:-1].max() / 2  # the first and the last own half an interval


def test_only_complete_frames_count(root):
    picture(root, "anna/v1", "00000", "000002").unlink()
    picture(root, "anna/v1", "00000", "000003", "segs").unlink()
    picture(root, "anna/v1", "00001", "000000", "keypoints").unlink()
    picture(root, "anna/v1", "00000", "000000").with_name(".hidden.jpg").touch()
    names = [frame.name for frame in VoxCelebClips(root).frames_of(0) if frame.sequence == "00000"]
    assert names == ["000000", "000001", "000004", "000005"]
    assert len(VoxCelebClips(root).frames_of(0)) == 9


def damage(root: Path, case: str, name: str) -> None:
    item = ("anna/v1", "00000", name)
    points = picture(root, *item, "keypoints")
    match case:
        case "truncated picture":
            picture(root, *item).write_bytes(picture(root, *item).read_bytes()[:300])
        case "empty mask":
            picture(root, *item, "segs").write_bytes(b"")
        case "wide picture":
            Image.new("RGB", (SIDE, SIDE // 2)).save(picture(root, *item))
        case "gif":
            Image.new("RGB", (SIDE, SIDE)).save(picture(root, *item), format="GIF")
        case "few points":
            np.save(points, np.zeros((60, 2)))
        case "flat points":
            np.save(points, np.zeros(136))
        case "NaN":
            np.save(points, np.full((68, 2), np.nan))
        case "pickle":
            np.save(points, np.array([{}] * 68), allow_pickle=True)
        case "promises":
            content = points.read_bytes().replace(b"(70, 3), }        ", b"(70000000000, 3), }")
            points.write_bytes(content)
        case "huge":
            np.save(points, np.zeros((100_000, 2)))


CASES = (
    *("truncated picture", "empty mask", "wide picture", "gif"),
    *("few points", "flat points", "NaN", "pickle", "promises", "huge"),
)


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_frame_gives_way_to_the_next(root, capfd, case):
    damage(root, case, "000001")
    clips = VoxCelebClips(root, image_size=32)
    loaded = clips.load([Draw(0, (1, 0))])
    assert abs((loaded.images[0, 0].mean() + 1) * 127.5 - 2) < 0.7, "the next frame"
    assert clips.unreadable == 1
    said = capfd.readouterr().err
    assert "anna/v1/00000/000001" in said
    assert said.count("\n") == 1


def test_many_damaged_frames_are_counted_not_listed(root, capfd):
    for number in range(6):
        damage(root, "empty mask", f"{number:06d}")
    clips = VoxCelebClips(root)
    clips.load([Draw(0, (0, 1))] * 3)
    assert clips.unreadable == 33
    assert len(capfd.readouterr().err.splitlines()) == 2
    # The last frames fall back to the first ones.
    for number in range(6):
        picture(root, "anna/v1", "00001", f"{number:06d}").write_bytes(b"")
    write_frame(root, "anna/v1", "00000", "000003", 90)
    assert abs((VoxCelebClips(root).load([Draw(0, (8,))]).images.mean() + 1) * 127.5 - 90) < 1


def test_a_person_without_frames_is_one_sentence(root):
    for path in (root / "segs" / "train" / "bert").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(BadInput, match=r"bert/v1: none of 12 frames can be read"):
        VoxCelebClips(root).load([Draw(1, (0, 1))])
    shutil.rmtree(root / "segs" / "train" / "bert")
    with pytest.raises(BadInput, match=r"bert/v1: no frame has a picture, keypoints and a mask"):
        VoxCelebClips(root).frames_of(1)


def test_links_are_not_followed(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (root / "imgs" / "train" / "anna").rename(outside / "anna")
    (root / "imgs" / "train" / "anna").symlink_to(outside / "anna")
    assert VoxCelebClips(root).people == ["bert/v1", "carl/v1"]
    secret = picture(root, "bert/v1", "00000", "000000")
    secret.rename(outside / "secret.jpg")
    secret.symlink_to(outside / "secret.jpg")
    assert len(VoxCelebClips(root).frames_of(0)) == 11
    (root / "segs").rename(outside / "segs")
    (root / "segs").symlink_to(outside / "segs")
    with pytest.raises(BadInput, match="leads out of"):
        VoxCelebClips(root)
    # The root itself may be a link: that was the user's own choice.
    (root / "segs").unlink()
    (outside / "segs").rename(root / "segs")
    (outside / "data").symlink_to(root)
    assert len(VoxCelebClips(outside / "data").people) == 2


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("", "there is no such dataset folder"),
        ("imgs", "layout of VoxCeleb2"),
        ("segs", "needs a mask of the person; make them with `mobile-avatar prepare`"),
        ("keypoints", "needs its 68 keypoints"),
        ("imgs/train/*", "no PERSON/VIDEO folders"),
    ],
)
def test_what_is_missing_is_said(root, missing, words):
    for folder in [root] if not missing else root.glob(missing):
        shutil.rmtree(folder)
    with pytest.raises(BadInput) as caught:
        VoxCelebClips(root)
    assert words in str(caught.value)


def test_bad_options(root):
    with pytest.raises(BadInput, match="unknown split 'val'"):
        VoxCelebClips(root, "val")
    with pytest.raises(BadInput, match="this folder is missing"):
        VoxCelebClips(root, "test")
    with pytest.raises(BadInput, match="at 5000 px"):
        VoxCelebClips(root, image_size=5000)
