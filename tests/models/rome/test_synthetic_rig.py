"""The default head: it has FLAME's form, covers the synthetic people, opens its mouth and turns its neck."""

from dataclasses import replace

import pytest
import torch

from mobile_avatar.data.synthetic.expression import draw_frames, join_frames, neutral_frames
from mobile_avatar.data.synthetic.geometry import JAW_ANGLE, build_scene
from mobile_avatar.data.synthetic.identity import draw_identities
from mobile_avatar.data.synthetic.render import head_mesh
from mobile_avatar.models.rome.camera import fit_camera, project
from mobile_avatar.models.rome.head_model import region_faces
from mobile_avatar.models.rome.parametric import ParametricHead, rotation_matrices
from mobile_avatar.models.rome.synthetic_layout import rig_layout
from mobile_avatar.models.rome.synthetic_rig import (
    EXPRESSION_NAMES,
    SHAPE_NAMES,
    UNIT,
    rig_points,
    synthetic_codes,
    synthetic_head,
    to_rig,
)

PEOPLE = 24


@pytest.fixture(scope="module")
def model():
    return synthetic_head()


@pytest.fixture(scope="module")
def head(model):
    return ParametricHead(model)


@pytest.fixture(scope="module")
def parts():
    """Slices of head and bust among the vertices."""
    plan = rig_layout()
    h, b = len(plan.head_chart), len(plan.bust_chart)
    return slice(0, h), slice(h, h + b)


@pytest.fixture(scope="module")
def people():
    """Unseen people, bald, and a frame of each, with shoulders that do not shift."""
    identity = draw_identities(list(range(PEOPLE)), 1)
    frames = join_frames([draw_frames(seed, 1, 0, 1) for seed in range(PEOPLE)])
    body = frames.body * torch.tensor([1.0, 0.0])
    return replace(identity, style=torch.zeros_like(identity.style)), replace(frames, body=body)


def height(model) -> float:
    """Chin to crown, metres."""
    return float(model.template[: len(rig_layout().head_chart), 1].amax() - to_rig(torch.tensor([0.0, 2.27, 0.0]))[1])


def posed(head, shape=None, jaw=0.0, neck=0.0):
    shape = torch.zeros(1, head.shape_count) if shape is None else shape
    rotations = rotation_matrices(torch.tensor([[[0.0, 0, 0], [0, neck, 0], [jaw, 0, 0], [0, 0, 0], [0, 0, 0]]]))
    return head.skinned(head.blended(shape, torch.zeros(1, head.expression_count)), rotations)


def test_it_has_the_form_of_flame(model):
    v = len(model.template)
    assert 4500 < v < 5500
    assert model.shape_basis.shape[2] == len(SHAPE_NAMES)
    assert model.expression_basis.shape[2] == len(EXPRESSION_NAMES)
    assert model.faces.unique().numel() == v
    assert 0.15 < height(model) < 0.25
    assert model.joint_regressor.min() > -1e-3
    torch.testing.assert_close(model.joint_regressor.sum(1), torch.ones(5))
    assert not torch.isin(model.hair, model.neck).any()
    frozen = model.deforms_mask[model.neck, 0] == 0
    assert 0 < frozen.sum() < len(model.neck) / 4
    assert model.deforms_mask.sum() == len(model.hair) + len(model.neck) - frozen.sum()
    for edge in (model.hair_edge, model.neck_edge):
        assert region_faces(edge, model.faces).max() == len(edge) - 1
    with torch.inference_mode():
        again = synthetic_head.__wrapped__()
    assert not again.template.is_inference()
    assert torch.equal(again.shape_basis, model.shape_basis)
    assert torch.equal(again.pose_basis, model.pose_basis)


def test_the_surface_is_closed_but_for_shoulders_and_ears(model):
    """Every edge has two triangles that agree about its direction; the mouth is no hole."""
    corners = model.faces
    edges = torch.cat([corners[:, [i, (i + 1) % 3]] for i in range(3)])
    assert len(edges.unique(dim=0)) == len(edges)
    pairs, counts = edges.sort(1).values.unique(dim=0, return_counts=True)
    assert counts.max() == 2
    border = model.template[pairs[counts == 1].flatten()]
    bottom = border[:, 1] < model.template[:, 1].amin() + 0.02
    ears = border[:, 0].abs() > 0.05
    assert (bottom | ears).all()
    assert (counts == 1).sum() == 72 + 2 * 19


def test_triangles_face_outwards(model, parts):
    a, b, c = model.template[model.faces].unbind(1)
    normal, centre = torch.linalg.cross(b - a, c - a), (a + b + c) / 3
    skull = (centre[:, 1] > 0) & (model.faces < parts[0].stop).all(1)
    assert ((normal * centre).sum(1)[skull] > 0).all()
    assert (a * torch.linalg.cross(b, c)).sum() / 6 > 0.001  # cubic metres enclosed


def test_texture_places_do_not_overlap(model):
    """Triangles all have one orientation in the texture and fill no more than the bands they are given."""
    a, b, c = model.uv[model.uv_faces].unbind(1)
    ab, ac = b - a, c - a
    area = (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]) / 2
    ears = a[:, 1] > 0.74
    assert (area <= 0).all()
    assert (area == 0).sum() == 2 * 17  # the fans that close the ears
    assert 0.97 < -area[~ears].sum() / (1.97 * 1.685) <= 1.001
    assert 0.999 < -area[ears].sum() / (2 * 0.685 * 0.24) < 1.001
    assert model.uv.abs().max() < 0.99
    # The crown is the first vertex and has a place in every column.
    assert torch.equal(model.vertex_uv[0], model.uv[:72].amax(0))


def test_coefficients_reach_unseen_people(model, head, people, parts):
    """Least squares over the shape basis: exact on the head, the shoulders' height is not linear."""
    identity, _ = people
    target = rig_points(identity, neutral_frames(PEOPLE))
    basis = model.shape_basis.flatten(0, 1)
    wanted = (target - model.template).flatten(1)
    coefficients = torch.linalg.lstsq(basis, wanted.T).solution.T
    distance = (head.blended(coefficients, torch.zeros(PEOPLE, head.expression_count)) - target).norm(dim=-1)
    share = distance / height(model)
    assert share[:, parts[0]].max() < 1e-5
    assert share[:, parts[1]].square().mean().sqrt() < 0.004
    true = synthetic_codes(identity, neutral_frames(PEOPLE)).shape
    torch.testing.assert_close(coefficients[:, :27], true[:, :27], atol=2e-3, rtol=0)
    assert 0.7 < true.std() < 1.3  # one standard deviation each


def test_true_codes_give_the_posed_people(model, head, people, parts):
    """Skinning against the synthetic surfaces in their frames: expression, jaw, neck and shoulders."""
    identity, frames = people
    codes = synthetic_codes(identity, frames)
    vertices, _ = head.skinned(head.blended(codes.shape, codes.expression), codes.rotations)
    share = (vertices - rig_points(identity, frames)).norm(dim=-1) / height(model)
    seen = rig_layout().fading == 1  # rows behind the chin hold on to the neck on purpose
    assert share[:, parts[0]][:, seen].square().mean().sqrt() < 0.002
    assert share[:, parts[0]][:, seen].max() < 0.04
    assert share[:, parts[1]].square().mean().sqrt() < 0.004


def test_corrections_make_skinning_the_synthetic_jaw(model, head):
    average = synthetic_codes(draw_identities([0], 0), neutral_frames(1)).shape * 0
    plain = ParametricHead(replace(model, pose_basis=torch.zeros_like(model.pose_basis)))
    identity = draw_identities([0], 0)
    bald = {name: torch.zeros_like(getattr(identity, name)) for name in ("shape", "neck", "style")}
    target = rig_points(replace(identity, **bald), replace(neutral_frames(1), jaw=torch.tensor([0.6])))
    jaws = rig_layout().head_chart[:, 1].gt(0.3) & rig_layout().fading.eq(1)
    error = [
        (posed(h, average, jaw=0.6 * JAW_ANGLE)[0] - target)[:, : len(jaws)][:, jaws].norm(dim=-1) / UNIT
        for h in (head, plain)
    ]
    assert error[0].max() < 0.02
    assert error[1].max() > 0.1


def test_it_covers_the_meshes_that_are_drawn(model, people):
    """Points of the synthetic meshes, which are finer, lie on the rig's surface."""
    identity, _ = people
    one = identity.take(torch.tensor([5]))
    mesh, rig = head_mesh(one, neutral_frames(1)), rig_points(one, neutral_frames(1))[0]
    x, y, z = mesh.vertices[0].unbind(-1)
    outside = (x**2 + ((z + 1.3) / 0.95) ** 2 > 1.02) | (y < 1.2)  # not inside the neck
    drawn = to_rig(mesh.vertices[0][(mesh.layers == 0) & outside])[::7]
    w = torch.tensor([[4, 1, 1], [1, 4, 1], [1, 1, 4], [2, 2, 2]]) / 6
    corners = rig[model.faces]
    surface = torch.einsum("kc,tcd->tkd", w, corners).flatten(0, 1)
    nearest = torch.cat([torch.cdist(some, surface).argmin(1) for some in drawn.split(400)]) // len(w)
    a, b, c = corners[nearest].unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    distance = ((drawn - a) * normal).sum(1).abs() / height(model)
    assert distance.mean() < 0.001
    assert distance.max() < 0.01


def test_the_mouth_opens_and_the_neck_turns(head, parts):
    still, _ = posed(head)
    spots = head.landmarks(still, torch.eye(3)[None])[0]
    lips = (spots[62] - spots[66]).norm()
    assert lips < 0.03 * UNIT  # closed at rest
    opened, _ = posed(head, jaw=0.34)
    wide = head.landmarks(opened, torch.eye(3)[None])[0]
    assert 0.3 * UNIT < (wide[62] - wide[66]).norm() < 1.5 * UNIT
    assert (wide[8] - spots[8])[1] < -0.2 * UNIT  # the chin goes down
    torch.testing.assert_close(wide[27:48], spots[27:48], atol=0.05 * UNIT, rtol=0)  # nose and eyes stay
    inside = opened[0, rows_between_the_lips()]
    assert (inside[:, 2].mean() - wide[[62, 66], 2].mean()) < -0.1 * UNIT  # its inside lies behind the lips
    turned, _ = posed(head, neck=0.6)
    assert head.landmarks(turned, torch.eye(3)[None])[0, 30, 0] > 0.8 * UNIT
    bottom = slice(parts[1].stop - 72, parts[1].stop)
    torch.testing.assert_close(turned[:, bottom], still[:, bottom])  # the shoulders' edge stays


def rows_between_the_lips() -> torch.Tensor:
    chart = rig_layout().head_chart
    return ((chart[:, 0].abs() < 0.1) & (chart[:, 1] > 0.50) & (chart[:, 1] < 0.58)).nonzero()[:, 0]


def test_landmarks_are_the_keypoints(head, people):
    """Brows, nose and jaw line are spots of the surface, so the same in 3D; lids and lip heights are painted."""
    identity, frames = people
    codes = synthetic_codes(identity, frames)
    vertices, _ = head.skinned(head.blended(codes.shape, codes.expression), codes.rotations)
    found = head.landmarks(vertices, codes.rotations[:, 0] @ codes.rotations[:, 1])
    distance = (found - to_rig(build_scene(identity, frames).keypoints)).norm(dim=-1) / UNIT
    assert distance[:, :17].max() < 0.15
    assert distance[:, 27:36].max() < 0.08
    assert distance.mean() < 0.05


def test_a_camera_is_found_again(head, people):
    identity, frames = people
    mesh = head_mesh(identity, frames)
    points = to_rig(mesh.vertices[:, mesh.layers == 0])
    camera = torch.tensor([[7.0, 0.01, -0.02]]).expand(PEOPLE, 3)
    seen = project(points, camera)[..., :2]
    torch.testing.assert_close(fit_camera(points, seen), camera, atol=1e-4, rtol=0)
    # The synthetic camera is a perspective one: what is left is small against the picture.
    positions = mesh.positions[:, mesh.layers == 0]
    left = project(points, fit_camera(points, positions))[..., :2] - positions
    assert left.norm(dim=-1).mean() < 0.03
