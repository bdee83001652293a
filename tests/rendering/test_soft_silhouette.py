"""The soft silhouette: brute force, gradients, limits, and official values."""

from math import exp

import numpy as np
import pytest
import torch

from mobile_avatar.rendering import pixel_boxes
from mobile_avatar.rendering.rasterize import rasterize, seen_vertices
from mobile_avatar.rendering.soft_silhouette import near_faces, soft_silhouette
from tests.rendering.brute_force import layers, random_mesh

SIZE = 16


def square(side: float = 1.0, frames: int = 1):
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=torch.float64) * side / 2
    return (corners + torch.tensor([0, 0, 2])).expand(frames, 4, 3).clone(), torch.tensor([[0, 1, 2], [0, 2, 3]])


@pytest.mark.parametrize(("seed", "radius", "count"), [(0, 0.01, 10), (1, 0.1, 3), (2, 0.3, 10)])
def test_equals_brute_force(seed, radius, count):
    vertices, faces = random_mesh(seed)
    near = near_faces(vertices, faces, SIZE, radius**2, count)
    found, distance = (near.image(x, -1)[0] for x in (near.face, near.distance))
    alpha = near.alpha(radius**2)[0]
    full = 0
    for row in range(SIZE):
        for column in range(SIZE):
            every = layers(vertices[0].numpy(), faces.numpy(), column, row, SIZE, radius)
            expected = every[:count]
            full += len(every) > count
            missing = [-1] * (count - len(expected))
            assert found[row, column].tolist() == [layer.face for layer in expected] + missing
            wanted = [layer.distance for layer in expected] + missing
            np.testing.assert_allclose(distance[row, column], wanted, rtol=0, atol=1e-12)
            outside = np.prod([1 - 1 / (1 + exp(layer.distance / radius**2)) for layer in expected])
            np.testing.assert_allclose(alpha[row, column], 1 - outside, rtol=0, atol=1e-9)
    assert (found[..., 1] >= 0).sum() > 5
    assert full > 5 or count > 3


def test_gradients_are_those_of_finite_differences():
    vertices, faces = random_mesh(3, faces=12)
    weight = torch.rand(10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(v):
        return (near_faces(v, faces, 10, 0.3**2).alpha(0.1) * weight).sum()

    assert torch.autograd.gradcheck(loss, vertices.requires_grad_())
    (gradient,) = torch.autograd.grad(loss(vertices), vertices)
    assert (gradient[..., 2] == 0).all()
    assert (gradient[..., :2] != 0).float().mean() > 0.3


def test_the_mask_across_a_straight_edge():
    """A logistic of the squared distance that jumps to 0 at the blur radius; a half of it on the outline itself."""
    edge = 0.1
    vertices = torch.tensor([[[-4.0, edge, 2], [4, edge, 2], [0, 9, 2]]], dtype=torch.float64)
    column = soft_silhouette(vertices, torch.tensor([[0, 1, 2]]), 256)[0, :, 128]
    depth = (2 * torch.arange(256, dtype=torch.float64) + 1) / 256 - 1 - edge
    expected = torch.where(depth > -0.01, torch.sigmoid(depth.sign() * depth**2 / 1e-4), 0)
    torch.testing.assert_close(column, expected, atol=1e-9, rtol=0)
    assert ((column > 0) & (column < 0.5)).sum() == 1
    assert (column[depth > 0.05] > 1 - 1e-9).all()


def test_two_faces_cover_their_common_edge_to_three_quarters():
    vertices, faces = square(1.0)
    alpha = soft_silhouette(vertices, faces, 64)[0]
    torch.testing.assert_close(alpha[24, 24], torch.tensor(0.75, dtype=torch.float64))
    assert alpha[24, 36] > 1 - 1e-9


def test_fitting_a_square_to_a_larger_one():
    """The gradient pulls the outline outwards until the masks agree."""
    vertices, faces = square(0.8)
    target = soft_silhouette(square(1.0)[0], faces, 32)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([scale], lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        drawn = soft_silhouette(vertices * torch.stack((scale, scale, torch.ones_like(scale))), faces, 32)
        (drawn - target).square().mean().backward()
        optimizer.step()
    assert abs(0.8 * scale.item() - 1.0) < 0.02


def test_equal_depths_are_in_the_order_of_the_faces():
    vertices, _ = square()
    faces = torch.tensor([[0, 1, 2]]).repeat(14, 1)
    near = near_faces(vertices, faces, SIZE)
    found = near.image(near.face, -1)[0]
    assert found[6, 9].tolist() == list(range(10))


def test_a_batch_is_its_frames_and_pieces_are_the_whole(monkeypatch):
    vertices, faces = random_mesh(5, faces=60, frames=2, kind=torch.float32)
    together = near_faces(vertices, faces, 24, layers=3)
    alpha = together.alpha()
    for number, one in enumerate(vertices):
        assert torch.equal(near_faces(one[None], faces, 24, layers=3).alpha()[0], alpha[number])
    monkeypatch.setattr(pixel_boxes, "PIECE", 100)
    again = near_faces(vertices, faces, 24, layers=3)
    assert all(torch.equal(getattr(again, k), getattr(together, k)) for k in ("pixel", "layer", "face", "distance"))


def test_the_first_layer_without_blur_is_what_the_hard_pass_sees():
    vertices, faces = random_mesh(6, faces=60, frames=2)
    hard, near = rasterize(vertices, faces, SIZE), near_faces(vertices, faces, SIZE, blur_radius=0.0)
    assert torch.equal(hard.image(hard.face, -1), near.image(near.face, -1)[..., 0])
    seen = near.visibility(faces, vertices.shape[1])
    assert torch.equal(seen, seen_vertices(hard.frame, hard.face, faces, tuple(vertices.shape[:2])))
    assert 0 < seen.sum() < seen.numel()


@pytest.mark.parametrize(("frames", "faces"), [(2, 0), (0, 2)])
def test_nothing_to_draw(frames, faces):
    table = torch.zeros(faces, 3, dtype=torch.int64)
    near = near_faces(torch.zeros(frames, 4, 3), table, 5)
    assert torch.equal(near.alpha(), torch.zeros(frames, 5, 5))
    assert not near.visibility(table, 4).any()


def test_hopeless_faces_leave_no_nan():
    vertices, faces = square()
    nan = float("nan")
    bad = torch.tensor([[nan, 0, 1], [0.5, 0, 1], [0, 0.5, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]], dtype=torch.float64)
    mesh = torch.cat((vertices, bad[None]), dim=1).requires_grad_()
    alpha = soft_silhouette(mesh, torch.cat((faces, torch.arange(4, 10).view(2, 3))), 32)
    assert torch.equal(alpha, soft_silhouette(vertices, faces, 32))
    alpha.sum().backward()
    assert mesh.grad.isfinite().all()


def relative(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def test_official_edge_cases(shared):
    golden = np.load(shared / "parity/rome/07_raster_edge_cases.npz", allow_pickle=False)
    vertices, faces = torch.from_numpy(golden["vertices"])[None].requires_grad_(), torch.from_numpy(golden["faces"])
    near = near_faces(vertices, faces.long(), 16)
    np.testing.assert_array_equal(near.image(near.face, -1)[0], golden["soft_pix_to_face"])
    distance = near.image(near.distance, -1)[0].detach()
    np.testing.assert_allclose(distance, golden["soft_signed_sq_dist"], atol=1e-7, rtol=0)
    alpha = near.alpha()[0]
    np.testing.assert_allclose(alpha.detach(), golden["soft_alpha"], atol=1e-5, rtol=0)
    np.testing.assert_array_equal(near.visibility(faces.long(), 75)[0], golden["vertex_visibility"])
    (alpha * torch.from_numpy(golden["soft_grad_weight"])).sum().backward()
    assert relative(vertices.grad[0].numpy(), golden["soft_grad_vertices"]) < 1e-4


@pytest.mark.parametrize("name", ["mse", "weighted_sum"])
def test_official_silhouette(shared, name):
    golden = np.load(shared / "parity/rome/08_soft_silhouette.npz", allow_pickle=False)
    faces = torch.from_numpy(np.load(shared / "parity/rome/00_model.npz", allow_pickle=False)["faces"]).long()
    vertices = torch.from_numpy(golden["vertices_proj"])[None].requires_grad_()
    near = near_faces(vertices + torch.tensor([0, 0, 10]), faces, 64)
    alpha = near.alpha()[0]
    np.testing.assert_allclose(alpha.detach(), golden["alpha"], atol=2e-5, rtol=0)
    np.testing.assert_array_equal(near.visibility(faces, vertices.shape[1])[0], golden["vertex_visibility"])
    target, weight = torch.from_numpy(golden["target"]).float(), torch.from_numpy(golden["weight"])
    loss = 0.5 * (alpha - target).square().mean() if name == "mse" else (alpha * weight).sum()
    assert abs(loss.item() - golden[f"loss_{name}"]) < {"mse": 1e-6, "weighted_sum": 1e-3}[name]
    loss.backward()
    assert relative(vertices.grad[0].numpy(), golden[f"grad_{name}"]) < 1e-4
    assert (vertices.grad[..., 2] == 0).all()


@pytest.mark.parametrize("pose", ["a", "b", "c"])
def test_official_visibility(shared, pose):
    golden = np.load(shared / "parity/rome/07_raster_hard.npz", allow_pickle=False)
    faces = torch.from_numpy(np.load(shared / "parity/rome/00_model.npz", allow_pickle=False)["faces"]).long()
    vertices = torch.from_numpy(golden[f"{pose}/vertices_proj"])[None] + torch.tensor([0, 0, 10])
    seen = near_faces(vertices, faces, 128).visibility(faces, vertices.shape[1])
    np.testing.assert_array_equal(seen[0], golden[f"{pose}/vertex_visibility"])
