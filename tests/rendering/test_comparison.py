"""Films side by side and curves."""

import numpy as np

from mobile_avatar.keypoints.video import Video
from mobile_avatar.rendering.comparison import curve, side_by_side


def test_films_stand_side_by_side_under_their_labels(tmp_path):
    films = [np.full((3, 64, 64, 3), level, np.uint8) for level in (40, 200)]
    side_by_side([("photo", films[0]), ("after", films[1])], tmp_path / "a.mp4", 10)
    frames = [frame.image for frame in Video(tmp_path / "a.mp4").frames()]
    assert len(frames) == 3
    height, width, _ = frames[0].shape
    assert width == 128
    top = height - 64
    assert 10 <= top <= 30
    assert abs(frames[2][top + 8 :, 8:56].astype(int) - 40).max() < 8
    assert abs(frames[2][top + 8 :, 72:120].astype(int) - 200).max() < 8
    assert (frames[0][:top, :64] > 180).any(), "a label in light letters"
    assert (frames[0][:top, 64:] > 180).any()


def test_a_curve_rises_from_corner_to_corner():
    picture = curve([(0, 20.0), (10, 25.0), (20, 30.0)], 100).max(axis=2) > 180
    rows, columns = np.nonzero(picture)
    assert rows[columns.argmin()] > 85
    assert rows[columns.argmax()] < 15
    assert curve([(0, 1.0)], 64).shape == (64, 64, 3)
