"""The FLAME computation: what must hold of any head, and the official numbers."""

from dataclasses import replace

import pytest
import torch

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.camera import turn
from mobile_avatar.models.rome.head_model import region_faces
from mobile_avatar.models.rome.parametric import ParametricHead, contour_row, rotation_matrices

from .heads import EXPRESSIONS, SHAPES, golden_arrays, golden_head, random_head

RELATIVE = 1e-4


@pytest.fixture(scope="module")
def head():
    return ParametricHead(random_head())


@pytest.fixture(scope="module")
def golden(shared):
    return ParametricHead(golden_head(shared))


def rest(n: int) -> torch.Tensor:
    return torch.eye(3).expand(n, 5, 3, 3)


def random_codes(n: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, k, generator=g) * scale for k, scale in ((SHAPES, 1.0), (EXPRESSIONS, 1.0), (6, 0.4)))


def near(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def near_relative(actual, expected, tolerance=RELATIVE):
    assert (actual - expected).norm() <= tolerance * expected.norm()


def test_rotations_are_rotations():
    p = torch.tensor([[0.0, 0, 0], [0, 0, torch.pi / 2], [1.0, -2.0, 0.5], [3.1, 0, 0]])
    r = rotation_matrices(p)
    near(r @ r.transpose(1, 2), torch.eye(3).expand(4, 3, 3), 1e-6)
    near(torch.linalg.det(r), torch.ones(4), 1e-6)
    near(r[0], torch.eye(3), 0)
    near(r[1] @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), 1e-6)
    near((r[2] @ p[2]), p[2], 1e-6)  # the axis stays
    # Where the official formula divides by zero.
    assert rotation_matrices(torch.full((1, 3), -1e-8)).isfinite().all()
    zero = torch.zeros(1, 3, requires_grad=True)
    rotation_matrices(zero)[0, 2, 1].backward()
    near(zero.grad, torch.tensor([[1.0, 0, 0]]), 1e-6)


def test_rest_is_the_template(head):
    model = random_head()
    posed = head(torch.zeros(2, SHAPES), torch.zeros(2, EXPRESSIONS), torch.zeros(2, 6))
    near(posed.vertices, model.template.expand(2, -1, -1), 1e-7)
    near(posed.root[0], model.joint_regressor[0] @ model.template, 1e-7)
    near(posed.rotation, torch.eye(3).expand(2, 3, 3), 0)


def test_blending_is_linear_and_skinning_sees_the_blend(head):
    shape, expression, _ = random_codes(2)
    one, two = (head.blended(shape[i : i + 1], expression[i : i + 1]) - head.template for i in (0, 1))
    both = head.blended(3 * shape[:1] - shape[1:], 3 * expression[:1] - expression[1:]) - head.template
    near(both, 3 * one - two, 1e-6)
    _, joints = head.skinned(head.blended(shape, expression), rest(2))
    near(joints, head.joint_regressor @ head.blended(shape, expression), 1e-7)


def test_turning_the_root_turns_everything(head):
    """Root rotation inside the skinning equals turning afterwards, which is why it may stay outside."""
    shape, expression, pose = random_codes(3)
    posed = head(shape, expression, pose)
    jaw = rotation_matrices(pose[:, 3:])
    rotations = rest(3).clone()
    rotations[:, 0], rotations[:, 2] = posed.rotation, jaw
    vertices, joints = head.skinned(head.blended(shape, expression), rotations)
    near(turn(posed.vertices, posed.rotation, posed.root), vertices, 1e-6)
    near(joints[:, 0], posed.root, 1e-7)


def test_a_rigid_part_moves_rigidly():
    """Vertices that follow one joint alone keep their distances, and a child follows its parent."""
    model = random_head()
    alone = torch.zeros_like(model.skin_weights)
    alone[:24, 2], alone[24:, 1] = 1, 1
    head = ParametricHead(replace(model, skin_weights=alone, pose_basis=torch.zeros_like(model.pose_basis)))
    rotations = rest(1).clone()
    rotations[:, 1] = rotation_matrices(torch.tensor([0.3, -0.5, 0.1]))
    rotations[:, 2] = rotation_matrices(torch.tensor([0.2, 0.0, 0.0]))
    vertices, joints = head.skinned(head.template[None], rotations)
    before = torch.cdist(head.template[:24], head.template[:24])
    near(torch.cdist(vertices[0, :24], vertices[0, :24]), before, 1e-5)
    neck = head.joint_regressor[1] @ head.template
    near(vertices[0, 24:], (head.template[24:] - neck) @ rotations[0, 1].T + neck, 1e-6)
    jaw = head.joint_regressor[2] @ head.template
    near(joints[0, 2], rotations[0, 1] @ (jaw - neck) + neck, 1e-6)
    near(vertices[0, :24], (head.template[:24] - jaw) @ (rotations[0, 1] @ rotations[0, 2]).T + joints[0, 2], 1e-6)


def test_batches_and_bits(head):
    shape, expression, pose = random_codes(5)
    whole, again = head(shape, expression, pose).vertices, head(shape, expression, pose).vertices
    assert torch.equal(whole, again)
    near(whole[3:4], head(shape[3:4], expression[3:4], pose[3:4]).vertices, 1e-7)


def test_gradients_are_those_of_finite_differences():
    head = ParametricHead(random_head()).double()
    codes = [c.double()[:1].requires_grad_() for c in random_codes(1)]
    weight = torch.randn(1, 68, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def landmarks(*given):
        posed = head(*given)
        return (head.landmarks(turn(posed.vertices, posed.rotation, posed.root), posed.rotation) * weight).sum()

    assert torch.autograd.gradcheck(landmarks, codes, eps=1e-6, atol=1e-6)


def test_contour_rows():
    degrees = torch.tensor([0.0, 4.3, 30.0, -0.3, -5.2, -15.0, -19.6, -30.0])
    rotations = rotation_matrices(torch.stack((torch.zeros(8), torch.deg2rad(degrees), torch.zeros(8)), 1))
    # The yaw counts twice; 39 degrees are the end on either side.
    assert contour_row(rotations).tolist() == [0, 9, 39, 40, 49, 69, 78, 78]


def test_exports(head):
    program = torch.export.export(head, random_codes(1))
    codes = random_codes(1, seed=8)
    for exported, plain in zip(program.module()(*codes), head(*codes), strict=True):
        near(exported, plain, 1e-7)
    assert not head.state_dict()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"faces": lambda m: m.faces + 40}, "faces has numbers outside 0..47"),
        ({"template": lambda m: m.template * torch.nan}, "template holds NaN"),
        ({"shape_basis": lambda m: m.shape_basis[:-1]}, "shape_basis is (47, 3, 6)"),
        ({"uv_faces": lambda m: m.uv_faces[:-1]}, "uv_faces is (69, 3)"),
        ({"hair": lambda m: m.hair.int()}, "hair is torch.int32"),
        ({"parents": lambda m: (-1, 0, 3, 1, 1)}, "not a tree"),
        ({"skin_weights": lambda m: m.skin_weights * 0.9}, "do not sum to 1"),
    ],
)
def test_bad_heads_are_refused(change, said):
    model = random_head()
    with pytest.raises(BadInput) as caught:
        replace(model, source="bad.npz", **{name: make(model) for name, make in change.items()})
    assert str(caught.value).startswith("bad.npz: ")
    assert said in str(caught.value)


def test_official_head_facts(shared):
    model, a = golden_head(shared), golden_arrays(shared, "00_model")
    near(model.vertex_uv, a["vertex_uv"], 1e-7)
    assert torch.equal(model.hair_edge, a["hair_edge_list"])
    assert torch.equal(model.neck_edge, a["neck_edge_list"])
    assert torch.equal(region_faces(model.hair_edge, model.faces), a["hair_faces"])
    assert torch.equal(region_faces(model.neck_edge, model.faces), a["neck_faces"])
    assert torch.equal(model.deforms_mask, a["deforms_mask"])


def test_official_meshes(shared, golden):
    case = golden_arrays(shared, "05_flame")
    shape, expression, pose = case["shape"], case["exp"], case["pose"]
    posed = golden(shape, expression, pose)
    near(rotation_matrices(pose.view(9, 2, 3)), case["rot_mats"], 1e-6)
    near(posed.vertices, case["vertices"], 1e-6)
    near(posed.root, case["root_joint"], 1e-6)
    near(posed.rotation, case["rot_mats"][:, 0], 1e-6)
    near(golden.blended(shape, 0 * expression), case["vertices_shaped"], 1e-6)

    rotations = rotation_matrices(case["all_axis_angle"])
    near(rotations, case["all_rot_mats"], 1e-6)
    vertices, joints = golden.skinned(golden.blended(shape[5:7], expression[5:7]), rotations)
    near(vertices, case["all_vertices"], 1e-6)
    near(joints[:, 0], case["all_root"], 1e-6)
    near(joints[:, 1], case["all_neck"], 1e-6)
    neutral = golden(shape[5:7], 0 * expression[5:7], 0 * pose[5:7])
    near(neutral.vertices, case["neutral_vertices"], 1e-6)


def test_official_gradients(shared, golden):
    case = golden_arrays(shared, "05_flame")
    codes = [case[name][4:6].clone().requires_grad_() for name in ("shape", "exp", "pose")]
    (golden(*codes).vertices * case["grad_weight"]).sum().backward()
    for code, name in zip(codes, ("shape", "exp", "pose"), strict=True):
        near_relative(code.grad, case[f"grad_{name}"])
    assert (codes[2].grad[:, :3] == 0).all()
