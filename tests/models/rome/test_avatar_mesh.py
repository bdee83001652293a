"""The folded mesh of one person against the full computation, and its pieces against plain ones."""

import pytest
import torch

from mobile_avatar.models.rome.avatar_mesh import AvatarMesh, render_vertices, rotation_series
from mobile_avatar.models.rome.camera import project, turn
from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.parametric import ParametricHead, rotation_matrices
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.rendering.incident_faces import IncidentFaces
from mobile_avatar.rendering.mesh_normals import vertex_normals
from tests.models.rome.heads import golden_head, random_head


def codes_of(head: HeadModel, n: int, seed: int = 0) -> torch.Tensor:
    """Random codes (n, e + 9) of everyday sizes, the first at rest."""
    g = torch.Generator().manual_seed(seed)
    expression = torch.randn(n, head.expression_basis.shape[2], generator=g)
    pose = 0.4 * torch.randn(n, 6, generator=g)
    expression[0], pose[0] = 0, 0
    camera = torch.tensor([6.0, 0.01, -0.02]) * (1 + 0.1 * torch.randn(n, 3, generator=g))
    return torch.cat((expression, pose, camera), dim=1)


def check_equal(head: HeadModel) -> None:
    """The folded mesh and the full computation of one person agree."""
    g = torch.Generator().manual_seed(5)
    shape = torch.randn(1, head.shape_basis.shape[2], generator=g)
    offsets = 0.01 * torch.randn(1, len(head.template), 3, generator=g) * head.deforms_mask
    mesh, full = AvatarMesh.of(head, shape, offsets), ParametricHead(head)
    rows = mesh.vertex.long()
    for codes in codes_of(head, 3)[:, None]:
        expression, pose, camera = codes.split((mesh.expressions, 6, 3), dim=1)
        posed = full(shape, expression, pose)
        vertices = posed.vertices + offsets
        positions, normals = mesh(codes)
        expected = project(turn(vertices, posed.rotation, posed.root), camera)[:, rows]
        torch.testing.assert_close(positions, expected, atol=2e-5, rtol=0)
        torch.testing.assert_close(normals, vertex_normals(vertices, head.faces)[:, rows], atol=1e-4, rtol=0)


def test_folded_mesh_equals_the_full_computation() -> None:
    check_equal(random_head())


def test_folded_mesh_of_the_default_head() -> None:
    check_equal(synthetic_head())


def test_folded_mesh_of_the_golden_head(shared) -> None:
    check_equal(golden_head(shared))


def test_children_of_the_jaw_follow_it() -> None:
    head = random_head()
    object.__setattr__(head, "parents", (-1, 0, 1, 2, 1))
    check_equal(head)


@pytest.mark.parametrize("angle", [0.0, 1e-8, 1e-3, 1.0, 3.1, 4.0])
def test_rotation_series_is_rodrigues_formula(angle: float) -> None:
    axis = torch.tensor([[0.36, -0.48, 0.8]])
    expected = rotation_matrices(angle * axis) - torch.eye(3)
    torch.testing.assert_close(rotation_series(angle * axis), expected, atol=2e-6, rtol=0)


def test_drawn_vertices_are_split_along_seams_only() -> None:
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 1, 0]])
    places = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 4, 5]])
    vertex, place, corners = render_vertices(faces, places)
    assert vertex.tolist() == [0, 0, 1, 1, 2, 3]
    assert torch.equal(vertex[corners], faces)
    assert torch.equal(place[corners], places)


@pytest.mark.parametrize("spokes", [5, 40])
def test_normals_by_look_up_equal_summed_ones(spokes: int) -> None:
    """A wheel whose hub has few or many faces; one vertex is doubled, one has no face."""
    g = torch.Generator().manual_seed(1)
    rim = 1 + torch.arange(spokes)
    faces = torch.stack((torch.zeros_like(rim), rim, rim.roll(-1)), dim=1)
    vertices = torch.randn(1, spokes + 2, 3, generator=g)
    same = torch.cat((torch.arange(spokes + 2), torch.tensor([1])))
    doubled = torch.where(faces[:1] == 1, spokes + 2, faces[:1])
    corners = torch.cat((doubled, faces[1:]))
    expected = vertex_normals(vertices, faces)[:, same]
    assert not expected[0, spokes + 1].any()
    found = IncidentFaces(corners, same)(vertices[:, same], 4.0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
