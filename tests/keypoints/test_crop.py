"""The crop: golden boxes, vectors and pixels, and the official arithmetic written out."""

from pathlib import Path

import numpy as np
from PIL import Image

from mobile_avatar.keypoints.crop import CropBox, avatar_crop, crop_image, normalise_points

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "preprocessing" / "preprocessing.npz")


def test_golden_boxes_and_vectors():
    for points, box, keypoints in zip(GOLDEN["points"], GOLDEN["boxes"], GOLDEN["keypoints"], strict=True):
        found = avatar_crop(points)
        assert (found.cx, found.cy, found.half) == tuple(box.tolist())
        assert np.array_equal(normalise_points(points, found), keypoints)
        # Twice the face's larger side, so the points fill half of it.
        extent = np.ptp(keypoints.reshape(68, 2), axis=0).max()
        assert 1 <= extent < 1 + 1 / found.half


def test_rounding_is_the_official_one():
    points = np.zeros((68, 2), dtype=np.float32)
    points[1] = (25, 30.99)  # middle 12.5 and 15.495: halves go to the even number; the size is cut, not rounded
    assert avatar_crop(points) == CropBox(12, 15 - 30 // 6, 30)
    points[1] = (27, 11)
    assert avatar_crop(points) == CropBox(14, 6 - 27 // 6, 27)
    assert avatar_crop(np.full((68, 2), 5.0)).half == 1


def test_golden_crops():
    for box, expected in zip(GOLDEN["photo_boxes"], GOLDEN["photo_crops"], strict=True):
        assert np.array_equal(crop_image(GOLDEN["photo"], CropBox(*box.tolist()), 24), expected)


def test_crops_equal_the_crop_and_resize_of_pillow():
    photo = Image.fromarray(GOLDEN["photo"])
    for cx, cy, half in ((20, 24, 16), (0, 0, 30), (39, 47, 5), (-50, 10, 20), (20, 200, 40)):
        expected = photo.crop((cx - half, cy - half, cx + half, cy + half)).resize((32, 32), Image.Resampling.BICUBIC)
        assert np.array_equal(crop_image(GOLDEN["photo"], CropBox(cx, cy, half), 32), np.array(expected))


def test_normalising_maps_the_box_to_minus_one_and_one():
    box = CropBox(100, 50, 20)
    points = np.tile([[80.0, 30.0], [120.0, 70.0]], (34, 1))
    vector = normalise_points(points[None], box)
    assert vector.shape == (1, 136)
    assert vector[0, :4].tolist() == [-1, -1, 1, 1]
