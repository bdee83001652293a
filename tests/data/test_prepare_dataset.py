"""Many videos: names, shards, damaged files, resuming after a kill, and nothing of anybody else's overwritten."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.data.prepare import PrepareOptions
from mobile_avatar.data.prepare_dataset import prepare_dataset
from mobile_avatar.data.prepare_jobs import find_videos, in_shard, parse_shard
from mobile_avatar.data.voxceleb import VoxCelebClips
from mobile_avatar.errors import BadInput
from tests.films import shifted, write_video

SIZE = 64
OPTIONS = PrepareOptions(fps=12)


@pytest.fixture(scope="module")
def films(tmp_path_factory, astronaut) -> Path:
    """Three good films of two people, one truncated, one foreign, one without a face."""
    folder = tmp_path_factory.mktemp("films")
    head = astronaut[:400, :400]
    for item, step in {"anna/one": 2, "anna/two": 3, "bert/one": -2}.items():
        (folder / item).parent.mkdir(exist_ok=True)
        write_video(folder / f"{item}.mp4", [shifted(head, step * i) for i in range(12)])
    whole = (folder / "anna" / "one.mp4").read_bytes()
    (folder / "bert" / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mov").write_text("not a video")
    (folder / "notes.md").write_text("not looked at")
    write_video(folder / "blank.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3)
    return folder


def contents(root: Path) -> dict[str, bytes]:
    """All files but the records, which tell times."""
    files = (path for path in root.rglob("*") if path.is_file() and "records" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def unbroken(films, models, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("unbroken") / "data"
    prepare_dataset(find_videos([films]), output, models, SIZE, options=OPTIONS)
    return output


def test_good_videos_are_kept_and_bad_ones_named(films, unbroken):
    summary = json.loads((unbroken / "records" / "summary-train.json").read_text())
    assert summary["videos"] == {"given": 6, "kept": 3, "rejected": 3, "failed": 0, "done_earlier": 0}
    assert summary["frames"] == {"seen": 20, "kept": 18}
    assert summary["rejected_frames"] == {"no_face": 2}
    assert [line.split(": ")[0] for line in summary["rejected_videos"]] == sorted(
        str(films / name) for name in ("bert/half.mp4", "blank.mp4", "text.mov")
    )
    clips = VoxCelebClips(unbroken, "train", SIZE)
    assert clips.people == ["anna/one", "anna/two", "bert/one"]
    assert len(clips.frames_of(0)) == 6
    loaded = clips.load(clips.draw(np.random.default_rng(0), 2, 3))
    assert loaded.keypoints.abs().max() < 1
    assert loaded.masks.mean() > 0.2
    record = json.loads((unbroken / "records" / "train" / "anna" / "one.json").read_text())
    assert (record["state"], record["kept"], record["source"]["path"]) == ("done", 6, "anna/one.mp4")
    assert not (unbroken / ".work").exists()


def test_a_second_run_does_nothing(films, models, unbroken):
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*") if "summary" not in path.name}
    summary = prepare_dataset(find_videos([films]), unbroken, models, SIZE, options=OPTIONS)
    assert summary["videos"]["done_earlier"] == 6
    assert summary["frames"]["kept"] == 18
    assert {path: path.stat().st_mtime_ns for path in before} == before | {
        folder: folder.stat().st_mtime_ns for folder in before if folder.is_dir()
    }


def test_other_options_need_force(films, models, tmp_path):
    film = find_videos([films / "anna" / "one.mp4"])
    prepare_dataset(film, tmp_path / "data", models, SIZE, options=OPTIONS)
    with pytest.raises(BadInput, match="prepared with other options; pass --force"):
        prepare_dataset(film, tmp_path / "data", models, 32, options=OPTIONS)
    assert len(contents(tmp_path / "data")) == 3 * 6
    prepare_dataset(film, tmp_path / "data", models, 32, options=PrepareOptions(fps=6), force=True)
    assert len(contents(tmp_path / "data")) == 3 * 3
    assert VoxCelebClips(tmp_path / "data").people == ["one/one"]


KILLED = """
import sys
from pathlib import Path
from mobile_avatar.data import prepare_files
from mobile_avatar.data.prepare import PrepareOptions
from mobile_avatar.data.prepare_dataset import prepare_dataset
from mobile_avatar.data.prepare_jobs import find_videos
from mobile_avatar.keypoints.models import tracker_models
count = 0
def slow(frames):
    global count
    for frame in frames:
        count += 1
        if count == 9:
            print("now", flush=True)
            import time; time.sleep(60)
        yield frame
original = prepare_files.prepared_frames
prepare_files.prepared_frames = lambda *a: slow(original(*a))
films, output = map(Path, sys.argv[1:])
prepare_dataset(find_videos([films]), output, tracker_models(), 64, options=PrepareOptions(fps=12))
"""


def test_killed_in_a_video_and_resumed(films, models, unbroken, tmp_path):
    output = tmp_path / "data"
    process = subprocess.Popen([sys.executable, "-c", KILLED, films, output], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert VoxCelebClips(output).people == ["anna/one"], "whole items only"
    assert list((output / ".work").iterdir())
    first = output / "imgs" / "train" / "anna" / "one"
    before = first.stat().st_ino
    summary = prepare_dataset(find_videos([films]), output, models, SIZE, options=OPTIONS)
    assert summary["videos"] | {"failed": 0} == {"given": 6, "kept": 3, "rejected": 3, "failed": 0, "done_earlier": 3}
    assert first.stat().st_ino == before
    assert contents(output) == contents(unbroken)


@pytest.mark.parametrize("moved", [1, 2, 3])
def test_killed_between_the_moves(films, models, unbroken, tmp_path, monkeypatch, moved):
    """Whatever was moved already, readers see all of an item or nothing, and the next run completes it."""
    calls = 0
    rename = os.rename

    def die(*arguments):
        nonlocal calls
        rename(*arguments)
        calls += 1
        if calls == moved:
            raise KeyboardInterrupt

    film, output = find_videos([films / "bert" / "one.mp4"]), tmp_path / "data"
    monkeypatch.setattr("mobile_avatar.data.layout.os.rename", die)
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(film, output, models, SIZE, options=OPTIONS)
    monkeypatch.undo()
    assert not (output / ".work").exists()
    if moved == 3:
        assert len(VoxCelebClips(output).frames_of(0)) == 6
    assert prepare_dataset(film, output, models, SIZE, options=OPTIONS)["videos"]["done_earlier"] == 0
    assert len(VoxCelebClips(output).frames_of(0)) == 6


def test_shards_together_are_the_whole(films, models, unbroken, tmp_path):
    videos = find_videos([films])
    for index in (3, 1, 2):
        workers = 2 if index == 1 else 1
        summary = prepare_dataset(videos, tmp_path / "data", models, SIZE, "train", OPTIONS, workers, (index, 3))
        assert summary["shard"] == f"{index}/3"
    assert contents(tmp_path / "data") == contents(unbroken)
    summaries = [json.loads(path.read_text()) for path in (tmp_path / "data" / "records").glob("summary-*-of-3.json")]
    assert len(summaries) == 3
    assert sum(summary["videos"]["given"] for summary in summaries) == 6


def test_shards_are_disjoint_complete_and_the_same_everywhere(tmp_path):
    for number in range(40):
        folder = tmp_path / "a" / f"p{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.mp4").touch()
    videos = find_videos([tmp_path / "a"])
    assert len(videos) == 40
    for count in (1, 2, 7, 100):
        shards = [in_shard(videos, index, count) for index in range(1, count + 1)]
        assert sorted(v.key for shard in shards for v in shard) == sorted(v.key for v in videos)
    # On another machine the folder lies elsewhere, and its files are listed in another order.
    (tmp_path / "a").rename(tmp_path / "b")
    elsewhere = find_videos([tmp_path / "b"])[::-1]
    for index in (1, 2, 3):
        assert {v.key for v in in_shard(elsewhere, index, 3)} == {v.key for v in in_shard(videos, index, 3)}


@pytest.mark.parametrize("bad", ["0/4", "5/4", "3", "a/b", "-1/4", "1/0", "1/2/3", ""])
def test_bad_shards(bad):
    with pytest.raises(BadInput, match="write I/N"):
        parse_shard(bad)
    assert parse_shard("3/64") == (3, 64)


def test_names(tmp_path):
    for name in ("x.mp4", "p/x.MP4", "p/q/x.webm", "deep/p/q/x.avi", ".hidden.mp4", ".folder/y.mp4", "p/a b:ü.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    items = {video.key: video.item for video in find_videos([tmp_path])}
    assert items["x.mp4"] == "x/x"
    assert items["p/x.MP4"] == "p/x"
    assert items["p/a b:ü.mp4"] == "p/a_b_ü"
    # Two would be p/q_x, so both are told apart.
    assert items["p/q/x.webm"].startswith("p/q_x-")
    assert items["deep/p/q/x.avi"].startswith("p/q_x-")
    assert len(set(items.values())) == len(items) == 5
    (tmp_path / "list.txt").write_text(f"p/x.MP4\n\n{tmp_path / 'x.mp4'}\nmissing/z.mp4\n../{tmp_path.name}/x.mp4\n")
    listed = find_videos([tmp_path / "list.txt"])
    assert [video.item for video in listed] == ["p/x", "x/x", "missing/z"]
    assert [video.item for video in find_videos([tmp_path / "p", tmp_path / "p" / "x.MP4"])] == [
        "a_b_ü/a_b_ü",
        "x/x",
        "q/x",
    ]


def test_another_video_of_the_same_name_has_its_own_place(films, models, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "one.mp4").write_bytes((films / "anna" / "two.mp4").read_bytes())
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "one.mp4").write_bytes((films / "anna" / "one.mp4").read_bytes())
    output = tmp_path / "data"
    for place in (films / "anna", tmp_path / "new", tmp_path / "copy", tmp_path / "new"):
        summary = prepare_dataset(find_videos([place / "one.mp4"]), output, models, SIZE, options=OPTIONS)
    assert summary["videos"]["done_earlier"] == 1
    first, second = VoxCelebClips(output).people
    assert first == "one/one"
    assert second.startswith("one/one-")


def test_data_of_others_is_not_replaced(films, models, tmp_path):
    theirs = tmp_path / "imgs" / "train" / "one" / "one" / "0" / "a.jpg"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("precious")
    with pytest.raises(BadInput, match="was not made by `prepare`"):
        prepare_dataset(find_videos([films / "anna" / "one.mp4"]), tmp_path, models, SIZE)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is a file"):
        prepare_dataset(find_videos([films / "anna" / "one.mp4"]), tmp_path / "file", models, SIZE)
    assert theirs.read_text() == "precious"


def test_a_full_disk_stops_everything(films, models, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mobile_avatar.data.layout.np.save", full)
    with pytest.raises(BadInput, match="No space left on device"):
        prepare_dataset(find_videos([films]), tmp_path / "data", models, SIZE)
    assert contents(tmp_path / "data") == {}


def test_an_unexpected_failure_is_tried_again(films, models, tmp_path, monkeypatch):
    def odd(*_):
        raise ValueError("codec of the future")

    film = find_videos([films / "anna" / "one.mp4"])
    monkeypatch.setattr("mobile_avatar.data.prepare_files.Video", odd)
    summary = prepare_dataset(film, tmp_path, models, SIZE)
    assert summary["videos"]["failed"] == 1
    assert "codec of the future" in summary["rejected_videos"][0]
    monkeypatch.undo()
    assert prepare_dataset(film, tmp_path, models, SIZE)["videos"]["kept"] == 1
