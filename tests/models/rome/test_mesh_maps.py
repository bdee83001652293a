"""What the networks see of the mesh: official maps and features, and their behaviour on a made-up head."""

import pytest
import torch

from mobile_avatar.models.rome.camera import DEPTH
from mobile_avatar.models.rome.mesh_maps import POSITION_SCALE, geometry_features, image_features, mesh_maps
from mobile_avatar.rendering.mesh_normals import vertex_normals
from mobile_avatar.rendering.surface_map import SurfaceMap
from tests.models.rome.heads import golden_arrays, golden_head, random_head


def near(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def relative(actual, expected):
    return float((actual - expected).norm() / expected.norm())


def draw(head, projected, vertices, size):
    return mesh_maps(projected, vertices, head.faces, head.uv, head.uv_faces, size)


@pytest.fixture(scope="module")
def golden(shared):
    return golden_arrays(shared, "07_raster_hard")


@pytest.mark.parametrize("pose", ["a", "b", "c"])
def test_maps_are_the_official_ones(shared, golden, pose):
    head = golden_head(shared)
    want = {key.removeprefix(f"{pose}/"): value for key, value in golden.items() if key.startswith(f"{pose}/")}
    vertices, projected = want["vertices"][None], want["vertices_proj"][None] + torch.tensor([0, 0, DEPTH])
    maps = draw(head, projected, vertices, 128)
    assert torch.equal(maps.mask[0, 0].long(), want["hard_mask"])
    near(maps.uv[0].permute(1, 2, 0), want["uv"], 2e-5)
    near(maps.normals[0].permute(1, 2, 0), want["normals"], 2e-5)
    near(maps.fragments.interpolate(vertices, head.faces)[0, :, ::4, ::4].permute(1, 2, 0), want["coords"], 1e-5)
    near(vertex_normals(vertices, head.faces)[0], want["vertex_normals"], 2e-6)
    near(vertex_normals(projected, head.faces)[0], want["vertex_normals_rotated_image_space"], 5e-6)
    for number, edge in enumerate((head.hair_edge, head.neck_edge)):
        region = torch.zeros(1, vertices.shape[1], 1)
        region[0, edge] = 1
        seen = maps.fragments.interpolate(region, head.faces)[0, 0] > 0
        assert torch.equal(seen.long(), want["area_masks"][number])


def test_gradients_are_the_official_ones(shared, golden):
    head = golden_head(shared)
    vertices, projected = (golden[f"a/{key}"][None].requires_grad_() for key in ("vertices", "vertices_proj"))
    maps = draw(head, projected + torch.tensor([0, 0, DEPTH]), vertices, 128)
    uv, normals = maps.uv[0].permute(1, 2, 0), maps.normals[0].permute(1, 2, 0)
    ((uv * golden["a/grad_w_uv"]).sum() + (normals * golden["a/grad_w_normals"]).sum()).backward()
    assert relative(vertices.grad[0], golden["a/grad_vertices"]) < 1e-4
    assert relative(projected.grad[0], golden["a/grad_vertices_proj"]) < 1e-4


def test_the_texture_space_map_is_the_official_one(shared):
    head, want, deform = golden_head(shared), golden_arrays(shared, "04_encoding"), golden_arrays(shared, "03_deformer")
    unfold = SurfaceMap(head.faces, head.uv, head.uv_faces, 64)
    covered = want["uv_pix_to_face"] >= 0
    assert torch.equal(unfold.mask()[0, 0] > 0, covered)
    assert torch.equal(unfold.corners.view(64, 64, 3)[covered], head.faces[want["uv_pix_to_face"][covered]])
    near(unfold.weights.view(64, 64, 3)[covered], want["uv_bary"][covered], 1e-5)
    positions = unfold(deform["deform/vertices"])
    near(positions * POSITION_SCALE, want["position_map_x5"], 1e-5)
    features = geometry_features(deform["deform/texture"], positions)
    near(features[:, :, ::2, ::2], want["unet_input_every_2nd"], 1e-4)


@pytest.mark.parametrize(
    ("mode", "texture", "normals"), [("full", 1e-2, 1e-3), ("linear", 1e-3, 1e-4), ("linear_mobile", 1e-3, 1e-4)]
)
def test_features_of_the_whole_path_are_the_official_ones(shared, mode, texture, normals):
    head, want = golden_head(shared), golden_arrays(shared, "11_linear_path")
    projected = want[f"{mode}/vertices_proj"] + torch.tensor([0, 0, 2 * DEPTH])
    maps = draw(head, projected, want[f"{mode}/vertices"], 64)
    assert torch.equal(maps.mask.long(), want[f"{mode}/hard_mask"])
    near(maps.normals, want[f"{mode}/normals"], normals)
    features = image_features(want["texture"], maps.uv, maps.normals, maps.mask)
    near(features[:, :8], want[f"{mode}/rendered_texture_masked"], texture)
    if mode == "linear":
        near(features[:, :, ::2, ::2], want["linear/unet_input_every_2nd"], 3e-3)


def test_features_of_the_background():
    """Off the mesh the texture is 0 whatever its centre holds, and so are the normals: their cosines are 1."""
    head = random_head()
    vertices = head.template[None]
    projected = vertices * torch.tensor([8.0, -8.0, -1.0]) + torch.tensor([0, 0, DEPTH])
    maps = draw(head, projected, vertices, 32)
    features = image_features(torch.full((1, 8, 16, 16), 3.0), maps.uv, maps.normals, maps.mask)
    assert features.shape == (1, 47, 32, 32)
    off = (maps.mask == 0).expand(-1, 47, -1, -1)
    assert 100 < (maps.mask == 0).sum() < 900
    expected = torch.cat((torch.zeros(11), torch.tensor([0.0, 0, 0, 1, 1, 1]).repeat(6))).view(1, 47, 1, 1)
    assert torch.equal(features[off], expected.expand_as(features)[off])
    assert (features[:, :8][maps.mask.expand(-1, 8, -1, -1) > 0] > 0).all()


def test_normals_of_a_known_surface():
    """Two faces of different size: where both meet the normal is the sum of their cross products."""
    vertices = torch.tensor([[[0.0, 0, 1], [2, 0, 0], [0, 3, 0], [-1, 0, 0], [9, 9, 9]]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    normals = vertex_normals(vertices, faces)
    first, second = torch.tensor([3.0, 2, 6]).double(), torch.tensor([-3.0, 1, 3]).double()
    near(normals[0, 0], (first + second) / (first + second).norm(), 1e-12)
    near(normals[0, 1], first / first.norm(), 1e-12)
    assert (normals[0, 4] == 0).all()
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, faces), vertices[:, :4].clone().requires_grad_())


def test_the_texture_space_map_shows_values_where_vertices_lie():
    head = random_head()
    unfold = SurfaceMap(head.faces, head.uv, head.uv_faces, 32)
    maps = unfold(torch.stack((head.uv, head.uv + 1)))
    centres = (2 * torch.arange(32) + 1) / 32 - 1
    inside = unfold.mask()[0, 0] > 0
    assert inside.sum() > 400
    near(maps[0, 0][inside], centres.expand(32, 32)[inside], 1e-5)
    near(maps[0, 1][inside], centres[:, None].expand(32, 32)[inside], 1e-5)
    near(maps[1], (maps[0] + 1) * inside, 1e-5)
    assert not unfold.state_dict()
