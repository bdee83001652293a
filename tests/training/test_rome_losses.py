"""Losses of ROME: official values and gradients, known answers, finite differences."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import trimesh

from mobile_avatar.errors import BadInput
from mobile_avatar.rendering.rasterize import rasterize
from mobile_avatar.rendering.soft_silhouette import BLUR_RADIUS, SIGMA, near_faces
from mobile_avatar.training.rome import band_in_pixels
from mobile_avatar.training.rome_losses import (
    FORMS,
    Laplacian,
    RomeLossWeights,
    chamfer_distance,
    dice_loss,
    grown,
    keypoint_loss,
    keypoint_weights,
    laplacian_loss,
    mask_cross_entropy,
    mask_points,
    silhouette_chamfer,
    silhouette_loss,
    texture_loss,
)

NAMES = {"official": "repo", "thesis": "thesis"}
TETRAHEDRON = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])


@pytest.fixture(scope="module")
def golden(shared) -> dict[str, torch.Tensor]:
    with np.load(shared / "parity/rome/10_losses.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


@pytest.fixture(scope="module")
def faces(shared) -> torch.Tensor:
    with np.load(shared / "parity/rome/00_model.npz", allow_pickle=False) as file:
        return torch.from_numpy(file["faces"])


def near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def gradient_near(loss: torch.Tensor, leaf: torch.Tensor, expected: torch.Tensor) -> None:
    (found,) = torch.autograd.grad(loss, leaf)
    assert (found - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("counts", ["same", "all"])
def test_chamfer_equals_the_official_one(golden, counts):
    goals, n_goals = (golden[f"chamfer_{counts}/{key}"] for key in ("target_used", "n_target"))
    goals_valid = torch.arange(goals.shape[1]) < n_goals[:, None]
    points = golden["chamfer/points"].clone().requires_grad_()
    valid = golden["chamfer/visibility"] != 0
    if counts == "same":
        valid &= valid.cumsum(1) <= n_goals[:, None]
    assert valid.sum(1).tolist() == golden[f"chamfer_{counts}/n_pred"].tolist()
    for i, used in enumerate(golden[f"chamfer_{counts}/pred_used"]):
        assert torch.equal(points[i][valid[i]], used[: valid[i].sum()])
    for form in FORMS:
        loss = chamfer_distance(points, valid, goals, goals_valid, form)
        near(loss, golden[f"chamfer_{counts}/{NAMES[form]}"])
    loss = chamfer_distance(points, valid, goals, goals_valid)
    gradient_near(loss, points, golden[f"chamfer_{counts}/grad_points"])


def test_mask_points_are_the_official_ones(golden):
    points, valid = mask_points(golden["chamfer/target_segs"])
    for i in range(3):
        used = golden["chamfer_all/target_used"][i][: golden["chamfer_all/n_target"][i]]
        assert {tuple(p) for p in points[i][valid[i]].tolist()} == {tuple(p) for p in used.tolist()}
    given = [golden[f"chamfer/{key}"] for key in ("points", "visibility", "target_segs")]
    near(silhouette_chamfer(*given, equal_counts=False), golden["chamfer_all/repo"])


def test_laplacian_equals_the_official_one(golden, faces):
    offsets = golden["laplacian/offsets"].clone().requires_grad_()
    laplacian = Laplacian(faces, offsets.shape[1])
    near(laplacian(offsets)[0], golden["laplacian/per_vertex_delta_0"])
    for form in FORMS:
        near(laplacian_loss(offsets, laplacian, form), golden[f"laplacian/{NAMES[form]}"])
    gradient_near(laplacian_loss(offsets, laplacian), offsets, golden["laplacian/grad"])


def test_silhouettes_masks_and_landmarks_equal_the_official_ones(golden):
    alpha, goal = golden["silhouette_mse/pred"], golden["silhouette_mse/target"]
    for scales in (1, 2):
        near(silhouette_loss(alpha, goal, scales=scales), golden[f"silhouette_mse/repo_scales{scales}"])
    near(silhouette_loss(alpha, goal, "thesis"), golden["silhouette_mse/thesis_sum_per_item"].mean(), 1e-4)
    near(2 * silhouette_loss(alpha, goal), golden["silhouette_mse/thesis_mean"])
    logits, goal = golden["dice/logits"].clone().requires_grad_(), golden["dice/target"]
    for form in FORMS:
        near(dice_loss(logits, goal, form), golden[f"dice/{NAMES[form]}"])
    gradient_near(dice_loss(logits, goal), logits, golden["dice/grad_logits"])
    near(mask_cross_entropy(logits, goal), golden["dice/repo_bce"])
    near(keypoint_loss(golden["keypoints/pred"], golden["keypoints/target"]), golden["keypoints/repo"])


def everywhere(points: torch.Tensor) -> torch.Tensor:
    return torch.ones(points.shape[:2], dtype=torch.bool)


def test_chamfer_by_hand():
    a = torch.tensor([[[0.0, 0.0], [3.0, 0.0]]])
    b = torch.tensor([[[0.0, 4.0], [99.0, 0.0]]])
    seen = torch.tensor([[True, False]])
    # From a: 4 and 5 to the only goal; back: 4 to the nearest.
    assert chamfer_distance(a, everywhere(a), b, seen).item() == pytest.approx((16 + 25) / 2 + 16)
    assert chamfer_distance(a, everywhere(a), b, seen, "thesis").item() == pytest.approx((4 + 5) / 4 + 2)


def test_chamfer_does_not_mix_a_batch_and_forgives_empty_items():
    torch.manual_seed(0)
    points, goals = torch.randn(3, 6, 2), torch.randn(3, 9, 2)
    valid, goals_valid = everywhere(points), everywhere(goals)
    one = chamfer_distance(points[:1], valid[:1], goals[:1], goals_valid[:1])
    valid[1], goals_valid[2] = False, False
    points.requires_grad_()
    together = chamfer_distance(points, valid, goals, goals_valid)
    near(together, one / 3)
    together.backward()
    assert points.grad[0].abs().min() > 0
    assert not points.grad[1:].any()


@pytest.mark.parametrize("form", FORMS)
def test_touching_points_have_a_finite_gradient(form):
    points = torch.zeros(1, 2, 2, requires_grad=True)
    goals = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
    chamfer_distance(points, everywhere(points), goals, everywhere(goals), form).backward()
    assert points.grad.isfinite().all()
    assert points.grad.any()


def test_mask_points_by_hand():
    masks = torch.zeros(2, 1, 4, 8)
    masks[0, 0, 1, 6] = 0.3
    masks[1, 0, 2] = 1
    points, valid = mask_points(masks, torch.Generator().manual_seed(0))
    assert valid.sum(1).tolist() == [1, 8]
    assert points[0, 0].tolist() == [2 * 6 / 8 - 1, 2 * 1 / 4 - 1]
    assert sorted(points[1, :, 0].tolist()) == [x / 4 - 1 for x in range(8)]
    again, _ = mask_points(masks, torch.Generator().manual_seed(1))
    assert not torch.equal(points[1], again[1]), "which pixels are used is drawn anew"
    few, valid = mask_points(masks, most=torch.tensor([5, 3]))
    assert valid.sum(1).tolist() == [1, 3]
    assert few.shape == (2, 3, 2)


def test_equal_counts():
    """Two of four vertices are seen and three pixels covered: two of each; then the mask has only one pixel."""
    points = torch.tensor([[[0.0, 0.0], [9.0, 9.0], [0.0, 0.0], [5.0, 5.0]]])
    visible = torch.tensor([[1, 0, 1, 0]])
    masks = torch.zeros(1, 1, 4, 4)
    masks[0, 0, 2, 2] = 1
    assert silhouette_chamfer(points, visible, masks).item() == 0
    points[0, 2] = 7.0
    assert silhouette_chamfer(points, visible, masks).item() == 0, "only the first vertex is used"
    assert silhouette_chamfer(points, visible, masks, equal_counts=False).item() == pytest.approx(49)
    assert silhouette_chamfer(points, visible, torch.zeros_like(masks)).item() == 0


def test_laplacian_by_hand():
    laplacian = Laplacian(TETRAHEDRON, 5)
    values = torch.zeros(1, 5, 3)
    values[0, 0, 0], values[0, 4, 1] = 3.0, 2.0
    # Everybody neighbours everybody; the fifth vertex is alone and is compared with nothing.
    expected = [[3, 0, 0], [-1, 0, 0], [-1, 0, 0], [-1, 0, 0], [0, 2, 0]]
    near(laplacian(values)[0], torch.tensor(expected, dtype=torch.float32))
    values[0, 0, 1] = 4.0
    assert laplacian_loss(values, laplacian).item() == pytest.approx((5 + 3 * 5 / 3 + 2) / 5)
    assert laplacian_loss(values, laplacian, "thesis").item() == pytest.approx((7 + 7 + 2) / 5)
    assert laplacian_loss(torch.ones(2, 5, 3)[:, :4], Laplacian(TETRAHEDRON, 4)).item() == 0


def test_dice_by_hand():
    goal = torch.zeros(2, 1, 4, 4)
    goal[:, :, :2] = 1
    sure = (goal * 2 - 1) * 50
    assert dice_loss(sure, goal).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(-sure, goal).item() == pytest.approx(1, abs=1e-6)
    assert dice_loss(torch.zeros_like(goal), goal).item() == pytest.approx(1 - 0.5 / 0.75)
    assert dice_loss(torch.full_like(goal, -200.0), torch.zeros_like(goal)).item() == 1, "nothing there, nothing wanted"
    assert mask_cross_entropy(torch.zeros_like(goal), goal).item() == pytest.approx(math.log(2))


def test_keypoints_by_hand():
    weights = keypoint_weights()
    assert sorted(weights.unique().tolist()) == [1, 1.5, 2, 3]
    assert weights.sum().item() == 4 * 2 + 5 * 3 + 24 * 1.5 + 35
    goal, predicted = torch.zeros(2, 68, 2), torch.zeros(2, 68, 2)
    predicted[0, 30] = 1.0
    assert keypoint_loss(predicted, goal).item() == pytest.approx(3 / weights.sum().item() / 2)
    assert keypoint_loss(predicted, goal, torch.ones(68)).item() == pytest.approx(1 / 68 / 2)


def losses(form: str):
    torch.manual_seed(0)
    faces = Laplacian(TETRAHEDRON, 4)
    goals, seen = torch.rand(2, 7, 2).double(), torch.ones(2, 7, dtype=torch.bool)
    masks = (torch.rand(2, 1, 3, 4) > 0.5).double()
    seen[1, 3:] = False
    yield torch.rand(2, 5, 2), lambda x: chamfer_distance(x, seen[:, 1:6], goals, seen, form)
    yield torch.rand(2, 4, 3), lambda x: laplacian_loss(x, faces, form)
    yield torch.rand(2, 1, 3, 4), lambda x: silhouette_loss(x, masks, form)
    yield torch.randn(2, 1, 3, 4), lambda x: dice_loss(x, masks, form)
    yield torch.randn(2, 1, 3, 4), lambda x: mask_cross_entropy(x, masks)
    yield torch.randn(2, 68, 2), lambda x: keypoint_loss(x, torch.zeros(2, 68, 2).double())


@pytest.mark.parametrize("form", FORMS)
def test_finite_differences(form):
    for start, loss in losses(form):
        assert torch.autograd.gradcheck(loss, start.double().requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_computes_in_full(form):
    for start, loss in losses(form):
        rounded = start.bfloat16()
        near(loss(rounded).double(), loss(rounded.double()), 1e-5)


def test_wrong_forms_and_weights_are_refused():
    with pytest.raises(BadInput, match="'paper' is not one of official, thesis"):
        dice_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), "paper")
    with pytest.raises(BadInput, match="loss weight hair is -1"):
        RomeLossWeights(hair=-1)
    weights = RomeLossWeights()
    assert (weights.hair, weights.neck, weights.chamfer, weights.laplacian) == (10, 1, 0.01, 10)


def test_masks_grow_by_the_radius():
    y, x = torch.meshgrid(*2 * [(2 * torch.arange(256) + 1) / 256 - 1], indexing="ij")
    disc = F.avg_pool2d(((x**2 + y**2).sqrt() < 0.5).float()[None, None], 4)
    for pixels in (0, 0.5, 1.25, 3):
        area = grown(disc, pixels).sum()
        assert area == pytest.approx(math.pi * (16 + pixels) ** 2, rel=0.015)
    assert grown(torch.ones(1, 1, 8, 8), 1).min() == 1
    assert grown(torch.zeros(1, 1, 8, 8), 1).max() == 0


@pytest.mark.parametrize("size", [64, 128])
def test_a_mesh_keeps_its_size_where_masks_grow_with_the_band(size):
    ball = trimesh.creation.icosphere(4, 0.5)
    faces, vertices = torch.tensor(ball.faces), torch.tensor(ball.vertices, dtype=torch.float32)
    fine = rasterize(vertices[None] + torch.tensor([0, 0, 5.0]), faces, 4 * size).mask()
    mask, band = F.avg_pool2d(fine, 4), BLUR_RADIUS * 256 / size
    scales = torch.arange(0.90, 1.06, 0.01)

    def best(goal):
        def loss(scale):
            near = near_faces(vertices[None] * scale + torch.tensor([0, 0, 5.0]), faces, size, band)
            return silhouette_loss(near.alpha(SIGMA * 256 / size)[:, None], goal)

        return float(scales[torch.stack([loss(scale) for scale in scales]).argmin()])

    pixel = 2 / size / 0.5  # as a share of the radius
    assert abs(best(grown(mask, band_in_pixels(size))) - 1) < 0.5 * pixel
    assert best(mask) < 1 - 0.5 * pixel, "without it the mesh shrinks: see `grown`"


def test_colours_of_the_texture_count_where_the_person_is():
    goal, features = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8, 8)
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., :4] = 1
    features[:, :3, :, :4] = goal[..., :4] + 0.25
    assert texture_loss(features.half(), mask, goal) == pytest.approx(0.25, abs=1e-3)
    assert texture_loss(features, torch.zeros_like(mask), goal) == 0
    features.requires_grad_()
    (gradient,) = torch.autograd.grad(texture_loss(features, mask, goal), features)
    assert gradient[:, :3, :, :4].min() > 0
    assert gradient[:, 3:].abs().max() == gradient[..., 4:].abs().max() == 0
