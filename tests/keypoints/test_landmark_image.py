"""Landmark images: the official drawing to the pixel, and the torch drawing against it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mobile_avatar.images import to_uint8
from mobile_avatar.keypoints.landmark_image import STROKES, draw_landmarks, draw_landmarks_batched

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "preprocessing" / "preprocessing.npz")


def varied_faces(count: int = 48) -> np.ndarray:
    """Turned, moved and scaled versions of a real face, all inside of the crop: float32 (count, 136)."""
    random = np.random.default_rng(0)
    face = GOLDEN["keypoints"][0].reshape(68, 2)
    faces = []
    for angle in random.uniform(-0.7, 0.7, count):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        moved = (
            face @ turn * random.uniform(0.5, 1.1, 2) + random.normal(0, 0.01, (68, 2)) + random.uniform(-0.1, 0.1, 2)
        )
        faces.append(moved.clip(-0.97, 0.97).reshape(136))
    return np.array(faces, dtype=np.float32)


@pytest.mark.parametrize("size", [64, 256])
def test_every_pixel_of_the_official_images(shared, size):
    official = np.load(shared / "parity" / "bilayer" / "stickmen.npz")
    low, high = official[f"stickmen_{size}_min_max"]
    for keypoints, expected in zip(official["poses"], official[f"stickmen_{size}_uint8"], strict=True):
        image = draw_landmarks(keypoints, size)
        assert np.array_equal(to_uint8(image), expected.transpose(1, 2, 0))
        assert image.min() >= low
        assert image.max() <= high
    batch = draw_landmarks_batched(torch.from_numpy(official["poses"]), size).numpy()
    wrong = (to_uint8(batch.reshape(3, -1, size)) != to_uint8(official_signed(official, size))).any(axis=-1)
    assert wrong.mean() < 1e-3


def official_signed(official: np.lib.npyio.NpzFile, size: int) -> np.ndarray:
    return official[f"stickmen_{size}_uint8"].astype(np.float32).reshape(3, -1, size) / 127.5 - 1


def test_golden_images_and_background():
    for keypoints, expected in zip(GOLDEN["keypoints"], GOLDEN["landmark_images"], strict=True):
        image = draw_landmarks(keypoints, 64)
        assert np.array_equal(to_uint8(image), expected)
        assert image.dtype == np.float32
        assert image[0, 0, 0] == np.float32(1) / 255 * 2 - 1
    assert np.array_equal(draw_landmarks(keypoints.reshape(68, 2), 64), draw_landmarks(keypoints, 64))


@pytest.mark.parametrize("size", [64, 128, 256])
def test_torch_draws_what_opencv_draws(size):
    faces = varied_faces()
    expected = np.stack([draw_landmarks(face, size) for face in faces])
    drawn = draw_landmarks_batched(torch.from_numpy(faces), size).numpy()
    assert drawn.dtype == np.float32
    wrong = (drawn != expected).any(axis=1)
    assert wrong.mean() < 1e-4, "share of wrong pixels"


def test_torch_draws_any_segment_inside_the_image():
    faces = np.random.default_rng(1).uniform(-0.95, 0.95, (8, 136)).astype(np.float32)
    faces[0] = 0  # all segments are points
    expected = np.stack([draw_landmarks(face, 64) for face in faces])
    drawn = draw_landmarks_batched(torch.from_numpy(faces), 64).numpy()
    assert (drawn != expected).any(axis=1).mean() < 1e-3


def test_torch_draws_lines_that_leave_the_image_nearly_alike():
    faces = varied_faces(16) * 2.2
    expected = np.stack([draw_landmarks(face, 128) for face in faces])
    drawn = draw_landmarks_batched(torch.from_numpy(faces), 128).numpy()
    assert (drawn != expected).any(axis=1).mean() < 5e-3
    far = torch.full((1, 136), 4.0)
    assert torch.equal(draw_landmarks_batched(far, 64), torch.full((1, 3, 64, 64), 1 / 255 * 2 - 1))
    assert draw_landmarks_batched(torch.zeros(0, 136), 64).shape == (0, 3, 64, 64)


def test_later_strokes_cover_earlier_ones():
    """With all points on one line, only the last colour remains: the order is part of the contract."""
    face = np.tile(np.linspace(-0.5, 0.5, 68, dtype=np.float32)[:, None] * 0, (1, 2)).reshape(136)
    image = draw_landmarks_batched(torch.from_numpy(face)[None], 64)[0].numpy()
    centre = to_uint8(image)[32, 32]
    assert tuple(centre.tolist()) == STROKES[-1].colour
    assert np.array_equal(image, draw_landmarks(face, 64))


def test_the_torch_drawing_needs_no_opencv():
    code = (
        "import sys; sys.modules['cv2'] = None; import torch\n"
        "from mobile_avatar.keypoints.landmark_image import draw_landmarks_batched\n"
        "print(draw_landmarks_batched(torch.zeros(1, 136), 64).max().item())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(result.stdout) == 1.0
