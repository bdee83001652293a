"""The tracker on a real photo, turned, scaled, twice in one picture, small, and absent."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mobile_avatar.errors import BadInput
from mobile_avatar.images import to_signed, write_png
from mobile_avatar.keypoints.landmark_image import draw_landmarks
from mobile_avatar.keypoints.prepare import prepare_photo

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "preprocessing" / "preprocessing.npz")


def test_the_astronaut_is_where_the_golden_points_are(tracker, astronaut):
    faces = tracker.detect(astronaut)
    assert len(faces) == 1
    assert faces[0].score == pytest.approx(0.92, abs=0.02)
    assert tracker.landmarks(astronaut, faces[0]).presence == pytest.approx(26.9, abs=1.5)
    found = tracker.track_photo(astronaut)
    assert found.faces_found == 1
    assert found.presence > 20
    # The face is 90 pixels tall; other machines' arithmetic moves points by hundredths.
    assert np.abs(found.points - GOLDEN["points"][0]).max() < 0.5


def test_the_order_is_anatomical(tracker, astronaut):
    points = tracker.track_photo(astronaut).points
    x, y = points.T
    assert x[0] < x[16]  # jaw from the person's right, on the left of the photo
    assert y[8] == y[:17].max()
    assert x[17:22].mean() < x[22:27].mean()
    assert x[36:42].mean() < x[42:48].mean()
    assert y[17:27].mean() < y[36:48].mean() < y[30] < y[51] < y[57] < y[8]
    assert np.all(np.diff(y[27:31]) > 0)
    # Inside lips lie inside the outer ones.
    assert x[48] < x[60] < x[64] < x[54]
    assert y[51] < y[62] < y[66] < y[57]


@pytest.mark.parametrize("degrees", [-45, -30, 30, 45])
def test_a_turned_face_has_turned_points(tracker, astronaut, degrees):
    turn = cv2.getRotationMatrix2D((255.5, 255.5), degrees, 1)
    turned = cv2.warpAffine(astronaut, turn, (512, 512), borderMode=cv2.BORDER_REFLECT)
    # The matrix counts from pixel centres, points from pixel corners.
    expected = (tracker.track_photo(astronaut).points - 0.5) @ turn[:, :2].T + turn[:, 2] + 0.5
    error = np.linalg.norm(tracker.track_photo(turned).points - expected, axis=1)
    assert error.mean() < 1.5
    assert error.max() < 4


@pytest.mark.parametrize("scale", [0.5, 2, 5])
def test_size_does_not_matter(tracker, astronaut, scale):
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=method)
    error = np.linalg.norm(tracker.track_photo(scaled).points / scale - tracker.track_photo(astronaut).points, axis=1)
    assert error.mean() < 0.6


@pytest.mark.parametrize("larger_left", [True, False])
def test_of_two_faces_the_larger_is_taken_and_both_are_counted(models, tracker, astronaut, larger_left):
    large = astronaut[:300, 70:370]
    small = np.zeros_like(large)
    small[20:260, 30:270] = cv2.resize(large, (240, 240), interpolation=cv2.INTER_AREA)
    pair = np.hstack((large, small) if larger_left else (small, large))
    found = tracker.track_photo(pair)
    assert found.faces_found == 2
    assert (found.points[:, 0].mean() < 300) == larger_left
    assert prepare_photo(pair, 64, models).faces_found == 2


def test_a_small_face_in_a_large_photo_is_found_by_looking_closer(tracker, astronaut):
    photo = np.full((1500, 2400, 3), 90, dtype=np.uint8)
    photo[900:1412, 1700:2212] = astronaut
    assert not tracker.detect(photo, tiles=False)
    points = tracker.track_photo(photo).points
    assert np.abs(points - (1700, 900) - tracker.track_photo(astronaut).points).mean() < 1.5


@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket"])
def test_a_cat_a_cup_and_a_rocket_are_no_faces(tracker, name):
    from skimage import data

    with pytest.raises(BadInput, match=r"kitchen\.jpg: no face was found"):
        tracker.track_photo(getattr(data, name)(), "kitchen.jpg")


@pytest.mark.parametrize("shape", [(32, 32), (32, 4000), (4000, 40)])
def test_odd_shapes_without_a_face_are_one_sentence(tracker, shape):
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    with pytest.raises(BadInput, match="no face"):
        tracker.track_photo(noise)


@pytest.mark.parametrize("size", [64, 256])
def test_a_prepared_photo_is_all_the_models_need(tmp_path, models, astronaut, size):
    path = tmp_path / "astronaut.png"
    write_png(path, astronaut)
    prepared = prepare_photo(path, size, models)
    assert prepared.image.shape == prepared.landmark_image.shape == (3, size, size)
    assert prepared.mask.shape == (1, size, size)
    assert prepared.keypoints.shape == (136,)
    assert {array.dtype for array in (prepared.image, prepared.mask, prepared.keypoints)} == {np.dtype(np.float32)}
    assert np.abs(prepared.keypoints - GOLDEN["keypoints"][0]).max() < 0.02
    assert np.array_equal(prepared.landmark_image, draw_landmarks(prepared.keypoints, size))
    # The image is the photo at the box: the brightness inside agrees, whatever the resizing.
    box = prepared.box
    inside = astronaut[box.cy - box.half : box.cy + box.half, box.cx - box.half : box.cx + box.half]
    assert np.abs(prepared.image.mean(axis=(1, 2)) - to_signed(inside).mean(axis=(1, 2))).max() < 0.02
    # The person: all of the face (the jaw is the outline itself), none of the upper corners, about half of the crop.
    mask = prepared.mask[0]
    face = ((prepared.keypoints.reshape(68, 2)[17:] + 1) / 2 * size).astype(int)
    assert mask[face[:, 1], face[:, 0]].min() > 0.9
    assert mask[: size // 8, [0, -1]].max() < 0.1
    assert 0.4 < mask.mean() < 0.8
    assert mask.min() >= 0
    assert mask.max() <= 1


def test_preparing_a_photo_without_a_face_names_the_file(tmp_path, models):
    write_png(tmp_path / "wall.png", np.full((300, 300, 3), 128, dtype=np.uint8))
    with pytest.raises(BadInput, match=r"wall\.png: no face was found"):
        prepare_photo(tmp_path / "wall.png", 64, models)
    with pytest.raises(BadInput, match=r"door\.png: no face was found"):
        prepare_photo(np.full((300, 300, 3), 128, dtype=np.uint8), 64, models, source="door.png")
