"""Preparing one video: what is kept, what is left out and why, and crops that keep the motion of the head."""

import cv2
import numpy as np
import pytest

from mobile_avatar.data.prepare import PrepareOptions, prepare_clip
from mobile_avatar.errors import BadInput
from tests.films import shifted, write_video

CROP = 256


@pytest.fixture(scope="module")
def head(astronaut) -> np.ndarray:
    """A face 90 pixels tall in the middle of 400x400."""
    return astronaut[:400, :400]


def moving(head: np.ndarray, count: int, step: float = 2) -> list[np.ndarray]:
    return [shifted(head, step * i, i % 3) for i in range(count)]


def test_one_crop_keeps_the_motion_of_the_head(tmp_path, models, head):
    path = write_video(tmp_path / "head.mp4", moving(head, 12, step=3))
    clip = prepare_clip(path, models, CROP)
    assert clip.images.shape == (12, CROP, CROP, 3)
    assert clip.masks.shape == (12, CROP, CROP)
    assert (clip.images.dtype, clip.masks.dtype, clip.keypoints.dtype) == (np.uint8, np.uint8, np.float32)
    assert clip.keypoints.shape == (12, 136)
    assert clip.numbers.tolist() == list(range(12))
    assert clip.sequences.tolist() == [0] * 12
    assert (clip.fps, clip.rejected) == (25, {})
    assert len(clip.box) == 1
    # 33 pixels to the right in the film are as many in the crop; a light filter lags by little.
    x = clip.keypoints.reshape(12, 68, 2)[:, :, 0].mean(axis=1) * clip.box[0].half
    assert x[-1] - x[0] == pytest.approx(33, abs=4)
    assert np.abs(clip.keypoints).max() < 0.9
    # The mask covers the face and is not everything.
    centre = ((clip.keypoints[0].reshape(68, 2)[30] + 1) * CROP / 2).astype(int)
    assert clip.masks[0][centre[1], centre[0]] > 250
    assert 0.2 < clip.masks.mean() / 255 < 0.8


def test_frames_are_left_out_for_a_reason(tmp_path, models, head):
    sharp = moving(head, 16)
    soft = [cv2.GaussianBlur(frame, (0, 0), 3) for frame in sharp]
    blank = np.full_like(head, 90)
    #       0-5 good    6-9 the last again  10-12 soft     13-15 no face  16-21 good
    film = sharp[:6] + [sharp[5]] * 4 + soft[6:9] + [blank] * 3 + sharp[10:16]
    clip = prepare_clip(write_video(tmp_path / "mixed.mp4", film), models, 128)
    assert clip.rejected == {"frozen": 4, "blurred": 3, "no_face": 3}
    assert clip.numbers.tolist() == [*range(6), *range(16, 22)]
    assert clip.sequences.tolist() == [0] * 6 + [1] * 6
    lenient = prepare_clip(tmp_path / "mixed.mp4", models, 128, PrepareOptions(min_sharpness=0))
    assert lenient.rejected == {"frozen": 4, "no_face": 3}


def test_a_cut_begins_a_sequence_with_a_crop_of_its_own(tmp_path, models, head):
    other = cv2.warpAffine(255 - head // 3, np.float64([[1, 0, 0], [0, 1, 0]]), (400, 400))
    other[60:260, 40:240] = cv2.resize(head[40:240, 120:320], (200, 200))
    clip = prepare_clip(write_video(tmp_path / "cut.mp4", moving(head, 6) + moving(other, 6)), models, 128)
    assert clip.sequences.tolist() == [0] * 6 + [1] * 6
    assert clip.box[0].cx - clip.box[1].cx > 50
    # Two frames between cuts are mostly an error of the tracker.
    film = moving(head, 6) + moving(other, 2) + moving(head, 6)
    assert prepare_clip(write_video(tmp_path / "flash.mp4", film), models, 128).rejected == {"short_sequence": 2}


def test_a_walking_head_is_split_before_it_gets_small(tmp_path, models, head):
    wide = np.concatenate([head, head[:, ::-1], head], axis=1)[:, 320:1200]
    film = [np.roll(wide, 8 * i, axis=1)[:, 200:680] for i in range(24)]
    clip = prepare_clip(write_video(tmp_path / "walk.mp4", film), models, 128)
    assert len(set(clip.sequences.tolist())) > 1
    assert np.abs(clip.keypoints).max() < 1
    faces = clip.keypoints.reshape(-1, 68, 2)
    assert np.ptp(faces[:, :, 1], axis=1).min() > 2 / 1.5 / 1.4 / 1.5


def test_a_face_at_the_edge_is_cut_off_and_black_is_no_person(tmp_path, models, head):
    close = head[:, 170:400]
    film = [np.ascontiguousarray(frame[:, :200]) for frame in moving(close, 10)]
    clip = prepare_clip(write_video(tmp_path / "edge.mp4", film), models, 128)
    box = clip.box[0]
    black = round((box.half - box.cx) / (2 * box.half) * 128)
    assert black > 10
    assert clip.images[:, :, : black - 2].max() == 0
    assert clip.masks[:, :, : black - 1].max() == 0
    assert clip.masks[:, :, black + 1].max() > 200
    leaving = [shifted(head, 6 * i) for i in range(30)]
    leaving = [np.ascontiguousarray(frame[:, :330]) for frame in leaving]
    rejected = prepare_clip(write_video(tmp_path / "leaving.mp4", leaving), models, 128).rejected
    assert rejected.get("cut_off", 0) > 0


def test_fewer_frames_per_second(tmp_path, models, head):
    path = write_video(tmp_path / "head.mp4", moving(head, 26))
    assert prepare_clip(path, models, 64, PrepareOptions(fps=5)).numbers.tolist() == [0, 5, 10, 15, 20, 25]
    assert len(prepare_clip(path, models, 64, PrepareOptions(fps=10)).numbers) == 11
    assert len(prepare_clip(path, models, 64, PrepareOptions(fps=100)).numbers) == 26


def test_progress_is_said(tmp_path, models, head, capfd):
    prepare_clip(write_video(tmp_path / "head.mp4", moving(head, 6)), models, 64, show_progress=True)
    said = capfd.readouterr()
    assert "tracking head.mp4: 6/6" in said.err
    assert "cropping head.mp4: 6/6" in said.err
    assert said.out == ""


def test_nothing_usable_is_one_sentence(tmp_path, models, head):
    path = write_video(tmp_path / "head.mp4", moving(head, 6))
    with pytest.raises(BadInput, match=r"head\.mp4: none of 6 frames can be used .* smaller than --min-face"):
        prepare_clip(path, models, 64, PrepareOptions(min_face=200))
    blank = write_video(tmp_path / "blank.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3)
    with pytest.raises(BadInput, match=r"blank\.mp4: none of 3 frames .* no face was found"):
        prepare_clip(blank, models, 64)
    with pytest.raises(BadInput, match="crops cannot be made at 8 px"):
        prepare_clip(path, models, 8)


@pytest.mark.parametrize("bad", [{"fps": 0}, {"fps": float("nan")}, {"min_face": 0}, {"min_sharpness": -1}])
def test_bad_options(bad):
    with pytest.raises(BadInput):
        PrepareOptions(**bad)


def test_real_clips(shared, models):
    clip = prepare_clip(shared / "clips" / "talking_b.mp4", models, 128)
    assert len(clip.images) == 78
    assert clip.rejected == {}
    assert set(clip.sequences.tolist()) == {0}
