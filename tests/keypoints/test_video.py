"""Videos: real decoding, rotation marks, gaps, and every bad file."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from mobile_avatar.errors import BadInput
from mobile_avatar.keypoints.contract import check_keypoints
from mobile_avatar.keypoints.one_euro import OneEuro
from mobile_avatar.keypoints.video import Video, track_video
from tests.films import FPS, shifted, write_video

QUARTER_CLOCKWISE = (0, 1, 0, -1, 0, 0, 0, 0, 1)


def mark_rotation(path: Path, matrix: tuple[int, ...]) -> None:
    """Put a display matrix into the track header of an mp4, as phones do."""
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd") + 4
    scales = (16, 16, 30) * 3
    fixed = [value << scale for value, scale in zip(matrix, scales, strict=True)]
    content[header + 40 : header + 76] = struct.pack(">9i", *fixed)
    path.write_bytes(content)


def test_a_moving_head_is_followed_in_one_crop(tmp_path, models, tracker, astronaut, capfd):
    offsets = [3 * i for i in range(20)]
    path = write_video(tmp_path / "head.mp4", [shifted(astronaut, x) for x in offsets])
    track = track_video(path, models, show_progress=True)
    assert track.fps == FPS
    assert track.missing == ()
    assert "tracking head.mp4: 20/20" in capfd.readouterr().err
    check_keypoints(track.keypoints, "track")
    # The crop stands still, so the head's 57 pixels are in the keypoints; a light filter lags by little.
    still = tracker.track_photo(astronaut).points
    found = track.keypoints.reshape(-1, 68, 2) * track.box.half + (track.box.cx, track.box.cy)
    error = found - still - np.array([[[x, 0]] for x in offsets])
    assert np.abs(error.mean(axis=1)).max() < 4


def test_frames_without_a_face_hold_the_last_one_and_are_named(tmp_path, models, astronaut):
    blank = np.full_like(astronaut, 90)
    path = write_video(tmp_path / "gap.mp4", [blank] * 2 + [astronaut] * 4 + [blank] * 3 + [shifted(astronaut, 40)] * 3)
    track = track_video(path, models)
    assert track.missing == (0, 1, 6, 7, 8)
    assert np.array_equal(track.keypoints[0], track.keypoints[2])
    assert np.array_equal(track.keypoints[8], track.keypoints[5])
    # The face that returns is where it is at once, not dragged there by the filter.
    moved = (track.keypoints[9] - track.keypoints[5]).reshape(68, 2) * track.box.half
    assert np.abs(moved.mean(axis=0) - (40, 0)).max() < 2


def test_rotation_marked_by_a_phone_is_applied(tmp_path, astronaut):
    path = write_video(tmp_path / "phone.mp4", [np.rot90(astronaut[:480])] * 3)
    mark_rotation(path, QUARTER_CLOCKWISE)
    upright = next(Video(path).frames()).image
    assert upright.shape == (480, 512, 3)
    assert np.abs(upright.astype(int) - astronaut[:480]).mean() < 6


def test_real_clips_have_a_face_in_every_frame(shared, models):
    track = track_video(shared / "clips" / "talking_b.mp4", models)
    assert track.keypoints.shape == (78, 136)
    assert track.missing == ()
    # The talking mouth opens and closes.
    opening = track.keypoints[:, 2 * 66 + 1] - track.keypoints[:, 2 * 62 + 1]
    assert opening.max() > 5 * max(opening.min(), 0.01)


def bad_videos(folder: Path, astronaut: np.ndarray) -> dict[str, str]:
    whole = write_video(folder / "whole.mp4", [astronaut] * 5).read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("not a video")
    (folder / "empty.mp4").touch()
    write_video(folder / "blank.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3)
    write_video(folder / "tiny.mp4", [np.zeros((16, 16, 3), np.uint8)] * 3)
    with av.open(str(folder / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    return {
        "missing.mp4": "there is no such video",
        "text.mp4": "not a video",
        "empty.mp4": "not a video",
        "truncated.mp4": "not a video",
        "sound.wav": "only sound",
        "blank.mp4": "no face was found in any of its 3 frames",
        "tiny.mp4": "16x16",
    }


def test_every_bad_video_is_one_sentence(tmp_path, models, astronaut):
    for name, part in bad_videos(tmp_path, astronaut).items():
        with pytest.raises(BadInput) as caught:
            track_video(tmp_path / name, models)
        assert part in str(caught.value), name
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_one_euro_calms_noise_and_follows_steps():
    noise = np.random.default_rng(0).normal(0, 0.001, 500)
    still = OneEuro(3, 40)
    calm = np.array([still(np.array(value), 1 / 30) for value in noise])
    assert calm[50:].std() < 0.6 * noise.std()
    step = OneEuro(3, 40)
    jump = [float(step(np.array(float(i >= 5)), 1 / 30)) for i in range(10)]
    assert jump[4] == 0
    assert jump[5] > 0.8
