"""The baselines: a warp that is affine where the points are, moves each point to its goal, and tears nothing."""

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mobile_avatar.models.bilayer.inference_generator import pixel_grid
from mobile_avatar.training.baselines import BORDER, still_source, triangulate, warp_source
from tests.training.evaluation_cases import FACE

SIZE = 96
POINTS = torch.from_numpy(FACE).float()


@pytest.fixture
def photo():
    """A smooth random photo (3, S, S) with the whole frame as its mask."""
    noise = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, SIZE, mode="bicubic")[0].clamp(0, 1) * 2 - 1, torch.ones(1, SIZE, SIZE)


def inside(points: torch.Tensor) -> np.ndarray:
    """(S, S) bool: pixels inside the convex hull of points (136,), a pixel from its edge."""
    import cv2

    hull = cv2.convexHull(((points.view(-1, 2).numpy() + 1) * SIZE / 2 - 0.5).astype(np.float32))
    filled = cv2.fillConvexPoly(np.zeros((SIZE, SIZE), np.uint8), hull.astype(np.int32), 1)
    return cv2.erode(filled, np.ones((5, 5), np.uint8)).astype(bool)


def test_points_that_stay_leave_the_photo_as_it_is(photo):
    images, masks = warp_source(*photo, POINTS, POINTS[None])
    torch.testing.assert_close(images[0], photo[0], atol=1e-5, rtol=0)
    assert (masks == 1).all()


@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_an_affine_motion_of_the_points_is_reproduced(photo, turn):
    cos, sin = np.cos(turn), np.sin(turn)
    linear = torch.tensor([[1.1 * cos, -sin], [sin, 0.9 * cos]], dtype=torch.float32)
    shift = torch.tensor([0.07, -0.04])
    moved = POINTS.view(-1, 2) @ linear.T + shift
    back = (pixel_grid(SIZE)[0].permute(1, 2, 0) - shift) @ torch.linalg.inv(linear).T
    expected = F.grid_sample(photo[0][None], back[None], "bilinear", "border", align_corners=False)[0]
    images, _ = warp_source(*photo, POINTS, moved.reshape(1, -1))
    face = inside(moved.reshape(-1))
    assert face.sum() > 1000
    np.testing.assert_allclose(images[0][:, face].numpy(), expected[:, face].numpy(), atol=2e-3)
    # Points in another order are another motion.
    wrong, _ = warp_source(*photo, POINTS, moved.flip(0).reshape(1, -1))
    assert np.abs(wrong[0][:, face].numpy() - expected[:, face].numpy()).mean() > 0.05


def test_every_point_goes_to_its_goal():
    """The photo is its own coordinates, so a warped pixel says where it came from."""
    goal = POINTS + 0.02 * torch.randn(136, generator=torch.Generator().manual_seed(3))
    places = torch.cat([pixel_grid(SIZE)[0], torch.zeros(1, SIZE, SIZE)])
    images, _ = warp_source(places, torch.ones(1, SIZE, SIZE), POINTS, goal[None])
    read = F.grid_sample(images, goal.view(1, 1, -1, 2), align_corners=False)[0, :2, 0].T
    error = (read - POINTS.view(-1, 2)).norm(dim=1) * SIZE / 2
    assert error.median() < 0.3
    assert error.max() < 2, "of a pixel, beside a sharp fold"


def test_the_mask_goes_with_the_photo(photo):
    mask = (pixel_grid(SIZE)[0, :1] < 0).float()
    images, masks = warp_source(photo[0], mask, POINTS, POINTS[None] + 0.1)
    assert masks.shape == (1, 1, SIZE, SIZE)
    assert (images[(masks == 0).expand_as(images)] > -0.9).any(), "the background is still there"
    assert masks[0, 0, SIZE // 2, SIZE // 2] == 1, "the edge of the mask has moved to the right with the face"


def test_several_goals_are_warped_one_by_one(photo):
    goals = torch.stack([POINTS, POINTS + 0.05, POINTS * 0.9])
    together, _ = warp_source(*photo, POINTS, goals)
    for i in range(3):
        torch.testing.assert_close(warp_source(*photo, POINTS, goals[i : i + 1])[0][0], together[i])


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_triangles_cover_every_pixel_once_for_any_points(scale, photo):
    """Also for points that coincide and for faces that leave the frame."""
    points = (scale * POINTS).view(-1, 2).double().numpy()
    corners, labels = triangulate(np.concatenate([points, BORDER]), SIZE)
    assert labels.max() < len(corners)
    assert (corners >= 0).all()
    assert (np.diff(np.sort(corners, axis=1), axis=1) > 0).all()
    images, _ = warp_source(*photo, POINTS, scale * POINTS[None])
    assert torch.isfinite(images).all()


def test_every_pixel_lies_in_its_triangle():
    """Up to the rounding of the filled triangles; half a pixel of shift between the two would be seen."""
    points = np.concatenate([FACE.reshape(-1, 2), BORDER])
    corners, labels = triangulate(points, SIZE)
    start = points[corners][labels]  # (S, S, 3, 2)
    edges = np.roll(start, -1, axis=2) - start
    normals = np.stack([edges[..., 1], -edges[..., 0]], axis=-1) / np.linalg.norm(edges, axis=-1, keepdims=True)
    normals *= -np.sign(((np.roll(start, -2, axis=2) - start) * normals).sum(-1, keepdims=True))
    pixels = pixel_grid(SIZE)[0].permute(1, 2, 0).numpy()
    outside = ((pixels[:, :, None] - start) * normals).sum(-1).max(axis=2) * SIZE / 2
    assert outside.max() < 0.75


def test_the_still_source_is_the_photo(photo):
    mask = torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    images, masks = still_source(photo[0], mask, 3)
    assert images.shape == (3, 3, SIZE, SIZE)
    assert masks.shape == (3, 1, SIZE, SIZE)
    assert torch.equal(images[2], photo[0])
    assert torch.equal(masks[1], mask)


def test_a_frame_takes_milliseconds(photo):
    warp_source(*photo, POINTS, POINTS[None])
    start = time.process_time()
    warp_source(*photo, POINTS, POINTS[None] + torch.linspace(0, 0.1, 20)[:, None])
    assert time.process_time() - start < 20 * 0.05
