"""`mobile-avatar prepare` and `synthesize`: results as a table and as JSON, and one sentence for every mistake."""

import json
import os

import numpy as np
import pytest

from mobile_avatar.data.voxceleb import VoxCelebClips
from tests.cli.runner import run
from tests.films import shifted, write_video


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with a good film, one without a face, a text file in disguise and an empty folder."""
    data = pytest.importorskip("skimage.data")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").mkdir()
    (tmp_path / "empty").mkdir()
    head = data.astronaut()[:400, :400]
    write_video(tmp_path / "films" / "good.mp4", [shifted(head, 2 * i) for i in range(6)] + [shifted(head, 10)] * 2)
    write_video(tmp_path / "films" / "blank.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3)
    (tmp_path / "films" / "text.mp4").write_text("hello")
    (tmp_path / "list.txt").write_text("films/good.mp4\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00films")
    return tmp_path


def test_prepare_says_what_was_kept_and_why_the_rest_was_not(capfd, desk):
    done = run(capfd, "prepare", "films", "-o", "data", "--size", 64, "--workers", 1)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["videos", "3", "1", "2", "0", "0"] in lines
    assert ["frames", "11", "6", "5"] in lines
    assert "no_face          3  no face was found" in done.out
    assert "frozen           2  the same picture as before" in done.out
    assert "rejected: films/text.mp4: not a video" in done.err
    assert "preparing videos: 3/3" in done.err
    again = run(capfd, "prepare", "films", "list.txt", "-o", "data", "--size", 64, "--json")
    assert again.code == 0, again.err
    summary = json.loads(again.out)
    assert summary["videos"] == {"given": 3, "kept": 1, "rejected": 2, "failed": 0, "done_earlier": 3}
    assert summary == json.loads((desk / "data" / "records" / "summary-train.json").read_text())
    assert VoxCelebClips("data", "train", 64).people == ["good/good"]


def test_a_shard_without_videos_is_no_error(capfd, desk):
    shards = [run(capfd, "prepare", "list.txt", "-o", "data", "--shard", f"{i}/3", "--json") for i in (1, 2, 3)]
    assert [done.code for done in shards] == [0, 0, 0]
    assert sorted(json.loads(done.out)["videos"]["given"] for done in shards) == [0, 0, 1]
    assert sum("nothing to do" in done.err for done in shards) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["films/blank.mp4", "-o", "data"], "nothing was kept of 1 videos: films/blank.mp4: none of 3 frames"),
        (["films/blank.mp4", "films/text.mp4", "-o", "data"], "(and 1 more)"),
        (["none.mp4", "-o", "data"], "none.mp4: there is no such video"),
        (["empty", "-o", "data"], "empty: no videos here"),
        (["binary.txt", "-o", "data"], "binary.txt: not a text list"),
        (["films", "-o", "data", "--shard", "4/3"], "--shard 4/3"),
        (["films", "-o", "data", "--size", "9"], "9 px"),
        (["films", "-o", "data", "--fps", "0"], "0 frames per second"),
        (["films", "-o", "list.txt"], "list.txt is a file"),
        (["films", "-o", "/proc/nowhere"], "/proc/nowhere"),
        (["films", "-o", "data", "--tracker-models", "empty"], "empty"),
        (["films"], "--output"),
        (["-o", "data"], "VIDEOS"),
    ],
)
def test_bad_input(capfd, desk, arguments, words):
    done = run(capfd, "prepare", *arguments, "--workers", "1")
    assert done.code == 2, done.err
    assert words in done.sentence
    assert not list(desk.rglob("*.jpg"))
    assert not (desk / "data" / ".work").exists()


def test_synthesize_writes_a_dataset_and_goes_on(capfd, tmp_path):
    arguments = ("synthesize", "-o", tmp_path / "heads", "--frames", 3, "--size", 32)
    done = run(capfd, *arguments, "--identities", 2)
    assert done.code == 0, done.err
    assert "2 people in train, 2 of them new, 3 frames each" in done.out
    first = tmp_path / "heads" / "imgs" / "train" / "id000000" / "synthetic"
    made = first.stat().st_ino
    # A kill in the middle of moving a person leaves a part, which is made again.
    os.rename(tmp_path / "heads" / "imgs" / "train" / "id000001", tmp_path / "gone")
    done = run(capfd, *arguments, "--identities", 3, "--json")
    assert done.code == 0, done.err
    heads = str(tmp_path / "heads")
    assert json.loads(done.out) == {"output": heads, "split": "train", "people": 3, "made": 2, "frames": 3}
    assert first.stat().st_ino == made
    assert run(capfd, *arguments, "--identities", 1, "--split", "test", "--first", 7).code == 0
    assert VoxCelebClips(heads, "test", 32).people == ["id000007/synthetic"]
    assert json.loads((tmp_path / "heads" / "synthetic-train.json").read_text())["synthetic_media"] is True
    assert (tmp_path / "heads" / "synthetic-train.png").is_file()
    assert not (tmp_path / "heads" / ".work").exists()
    assert len(list((tmp_path / "heads").rglob("*.npy"))) == 12
    assert [p.read_bytes() for p in sorted((tmp_path / "gone").rglob("*.jpg"))] == [
        p.read_bytes() for p in sorted((first.parents[1] / "id000001").rglob("*.jpg"))
    ]


def test_synthetic_keypoints_survive_the_round_trip(capfd, tmp_path):
    from mobile_avatar.data.clips import Draw
    from mobile_avatar.data.synthetic import SyntheticHeads

    arguments = ("synthesize", "-o", tmp_path / "h", "--identities", 1, "--first", 5, "--frames", 2, "--size", 64)
    assert run(capfd, *arguments, "--seed", 3).code == 0
    truth = SyntheticHeads(64).sample([5], 2, frame_seed=3)
    read = VoxCelebClips(tmp_path / "h", "train", 64).load([Draw(0, (0, 1))])
    assert np.allclose(read.keypoints, truth.keypoints, atol=1e-5)
    assert np.abs(read.masks - truth.masks).max() < 1 / 255
    assert np.abs(read.images - truth.images).mean() < 0.05


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "5"], "5 px"),
        (["--frames", "0"], "0 frames"),
        (["--seed", "-1"], "seed -1"),
        (["--split", "val"], "val"),
        (["--size", "40"], "made with other options"),
        (["-o", "file"], "file is a file"),
        (["-o", "/proc/nowhere"], "/proc/nowhere"),
        (["-o", "foreign"], "holds other data"),
    ],
)
def test_synthesize_bad_input(capfd, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "foreign" / "imgs" / "train").mkdir(parents=True)
    if "40" in arguments:
        assert run(capfd, "synthesize", "-o", "heads", "--identities", 1, "--frames", 2, "--size", 32).code == 0
    done = run(capfd, "synthesize", "-o", "heads", "--identities", 1, "--frames", 2, *arguments)
    assert done.code == 2, done.err
    assert words in done.sentence
