"""Videos are read back with an independent reader; failures leave the old file."""

import signal
import subprocess
import sys
import textwrap
import time

import av
import numpy as np
import pytest
from PIL import Image

from mobile_avatar.errors import BadInput
from mobile_avatar.rendering.animate import animate
from mobile_avatar.rendering.tracks import demo_track, varied_keypoints


def picture(keypoints, size=64):
    """A stand-in for an avatar: flat colours that follow the keypoints, so that frames can be told apart."""
    image = np.full((size, size, 3), 40, np.uint8)
    image[: size // 2, :, 0] = np.uint8(np.clip(128 + 300 * keypoints[60], 0, 255))
    image[size // 2 :, :, 2] = 200
    return image


def read_video(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return frames, float(stream.average_rate), stream.codec_context, dict(container.metadata)


@pytest.mark.parametrize(("fps", "size"), [(25, 64), (29.97, 64), (12.5, 65), (60, 33)])
def test_mp4_reads_back(tmp_path, fps, size):
    track = demo_track(23, fps)
    path = tmp_path / "out.mp4"
    animate(lambda points: picture(points, size), track, path, fps, progress=False)
    frames, rate, codec, metadata = read_video(path)
    assert len(frames) == 23
    assert rate == pytest.approx(fps, rel=1e-3)
    assert frames[0].shape == (size + size % 2, size + size % 2, 3)
    assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
    assert "synthetic" in metadata["comment"]
    for points, frame in zip(track, frames, strict=True):
        difference = np.abs(frame[:size, :size].astype(int) - picture(points, size))
        assert difference.mean() < 4  # right frame, right order, right colour channels


def test_gif_loops_and_keeps_time(tmp_path):
    track = demo_track(30, 30)
    path = tmp_path / "out.GIF"
    animate(picture, track, path, 30, progress=False)
    with Image.open(path) as gif:
        assert gif.size == (64, 64)
        assert gif.info["loop"] == 0
        seconds, shown = 0.0, []
        for number in range(gif.n_frames):
            gif.seek(number)
            seconds += gif.info["duration"] / 1000
            shown.append(np.asarray(gif.convert("RGB")))
    assert seconds == pytest.approx(1.0, abs=0.011)  # equal neighbours may be stored as one longer frame
    assert np.abs(shown[0].astype(int) - picture(track[0])).max() < 8


def test_landmarks_are_put_beside_the_result(tmp_path):
    track = varied_keypoints(3, 0)
    animate(picture, track, tmp_path / "out.mp4", 10, progress=False, landmarks=True)
    frames = read_video(tmp_path / "out.mp4")[0]
    assert frames[0].shape == (64, 128, 3)
    assert frames[0][:, :64].max() > 200  # white jaw line on black
    assert np.median(frames[0][:, :64]) < 30
    assert np.abs(frames[0][:, 64:].astype(int) - picture(track[0])).mean() < 6


def test_contact_sheet_of_a_video(tmp_path):
    animate(picture, demo_track(40, 20), tmp_path / "out.mp4", 20, False, contact_sheet=tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 4 * 64
        assert sheet.height > 3 * 64
        assert sheet.width < 5 * 80


@pytest.mark.parametrize(
    ("name", "fps", "track"),
    [
        ("out.avi", 25, demo_track(3, 25)),
        ("out", 25, demo_track(3, 25)),
        ("out.gif", 60, demo_track(3, 25)),
        ("out.mp4", 0, demo_track(3, 25)),
        ("out.mp4", float("nan"), demo_track(3, 25)),
        ("out.mp4", 25, np.full((3, 136), np.nan, np.float32)),
        ("out.mp4", 25, np.zeros((3, 135), np.float32)),
    ],
)
def test_bad_requests_are_refused_before_any_work(tmp_path, name, fps, track):
    def never(_):
        raise AssertionError("rendered although the request was bad")

    with pytest.raises(BadInput):
        animate(never, track, tmp_path / name, fps, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.mp4", "out.gif"])
def test_failed_render_leaves_the_old_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"old")
    shown = []

    def failing(points):
        shown.append(points)
        if len(shown) == 4:
            raise RuntimeError("out of paint")
        return picture(points)

    with pytest.raises(RuntimeError, match="out of paint"):
        animate(failing, demo_track(9, 25), tmp_path / name, 25, False, contact_sheet=tmp_path / "sheet.png")
    assert (tmp_path / name).read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_killed_render_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    program = f"""
        import time, numpy as np
        from mobile_avatar.rendering.animate import animate
        from mobile_avatar.rendering.tracks import demo_track
        def render(points):
            print("frame", flush=True)
            time.sleep(0.05)
            return np.zeros((64, 64, 3), np.uint8)
        animate(render, demo_track(1000, 25), {str(path)!r}, 25, progress=False)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        assert process.stdout.readline() == "frame\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=20)
    process.stdout.close()
    assert path.read_bytes() == b"old"
