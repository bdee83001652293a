"""`mobile-avatar animate`: the default avatar, played from a track, from keypoints and from a film of its own."""

import json
import os

import av
import numpy as np
import pytest
from PIL import Image

from tests.cli.runner import run


def frames_of(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_demo(capfd, tmp_path):
    done = run(capfd, "animate", "--demo", "-o", tmp_path / "demo.mp4", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["frames"] == 150
    frames = frames_of(tmp_path / "demo.mp4")
    assert len(frames) == 150
    assert frames[0].shape == (128, 128, 3)
    assert max(np.abs(frames[0].astype(int) - frame).mean() for frame in frames) > 3, "the head moves"
    assert Image.open(tmp_path / "demo.mp4.png").width > 4 * 128


def test_keypoints_to_gif(capfd, tmp_path):
    points = np.random.default_rng(0).uniform(-0.6, 0.6, (5, 68, 2)).astype(np.float32)
    np.save(tmp_path / "k.npy", points)
    done = run(capfd, "animate", "--keypoints", tmp_path / "k.npy", "-o", tmp_path / "k.gif", "--fps", 10)
    assert done.code == 0, done.err
    assert Image.open(tmp_path / "k.gif").n_frames == 5


def test_a_real_face_in_a_video(capfd, tmp_path):
    data = pytest.importorskip("skimage.data")
    photo = data.astronaut()[:400, :400]
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 400, 400, "yuv420p"
        for shift in range(6):
            frame = av.VideoFrame.from_ndarray(np.roll(photo, 3 * shift, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    done = run(capfd, "animate", "--video", tmp_path / "v.mp4", "-o", tmp_path / "out.mp4", "--landmarks", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) | {"film": "", "contact_sheet": ""} == {
        "film": "",
        "contact_sheet": "",
        "frames": 6,
        "frames_without_face": 0,
    }
    assert frames_of(tmp_path / "out.mp4")[0].shape == (128, 256, 3)


def bad_keypoints(folder) -> None:
    np.save(folder / "nan.npy", np.full((3, 136), np.nan, np.float32))
    np.save(folder / "shape.npy", np.zeros((3, 135), np.float32))
    np.save(folder / "pixels.npy", np.full((3, 136), 200, np.float32))
    np.save(folder / "objects.npy", np.array([{}]), allow_pickle=True)
    (folder / "text.npy").write_text("hello")
    (folder / "text.mp4").write_text("hello")
    (folder / "text.avatar").write_text("hello")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keypoints", "nan.npy", "-o", "x.mp4"], "nan.npy"),
        (["--keypoints", "shape.npy", "-o", "x.mp4"], "shape.npy"),
        (["--keypoints", "pixels.npy", "-o", "x.mp4"], "pixels.npy"),
        (["--keypoints", "objects.npy", "-o", "x.mp4"], "objects.npy"),
        (["--keypoints", "text.npy", "-o", "x.mp4"], "text.npy"),
        (["--keypoints", "none.npy", "-o", "x.mp4"], "none.npy"),
        (["--video", "text.mp4", "-o", "x.mp4"], "text.mp4"),
        (["--video", "none.mp4", "-o", "x.mp4"], "none.mp4"),
        (["text.avatar", "-o", "x.mp4"], "text.avatar"),
        (["--demo", "-o", "x.doc"], "x.doc"),
        (["--demo", "-o", "/proc/nowhere/x.mp4"], "/proc/nowhere/x.mp4"),
        (["--demo", "--keypoints", "nan.npy", "-o", "x.mp4"], "pass one of"),
    ],
)
def test_bad_input(capfd, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    bad_keypoints(tmp_path)
    before = sorted(os.listdir(tmp_path))
    done = run(capfd, "animate", *arguments)
    assert done.code == 2, done.err
    assert words in done.sentence
    assert sorted(os.listdir(tmp_path)) == before
