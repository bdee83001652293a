"""Mesh files: they follow the format, move as the head does, and show the person."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mobile_avatar.errors import BadInput, CheckFailed
from mobile_avatar.models.rome.avatar_mesh import render_vertices
from mobile_avatar.models.rome.camera import turn
from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.mesh_check import jaw_pose, largest_distance
from mobile_avatar.models.rome.mesh_file import save_mesh
from mobile_avatar.models.rome.mesh_motion import OPENING, STEPS
from mobile_avatar.models.rome.mesh_output import write_checked
from mobile_avatar.models.rome.mesh_rig import Rig, rig_of_head
from mobile_avatar.models.rome.mesh_sheet import _camera, draw
from mobile_avatar.models.rome.parametric import ParametricHead, rotation_matrices
from mobile_avatar.models.rome.synthetic_person import synthetic_person
from mobile_avatar.models.rome.synthetic_rig import EXPRESSION_NAMES, synthetic_head
from mobile_avatar.rendering.mesh_normals import vertex_normals
from mobile_avatar.rendering.rigged_mesh import read_glb

from .heads import EXPRESSIONS, SHAPES, random_head

PERSON = 3  # has hair


@pytest.fixture(scope="module")
def person():
    return synthetic_person(PERSON, split=1, texture_size=96)


@pytest.fixture(scope="module")
def source(person):
    facts = {"license": "Apache-2.0", "identity": str(PERSON)}
    return rig_of_head(synthetic_head(), person.shape, person.offsets, EXPRESSION_NAMES, person.texture, facts)


@pytest.fixture(scope="module")
def path(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("mesh") / "head.glb"
    save_mesh(source, path)
    return path


@pytest.fixture(scope="module")
def mesh(path):
    return read_glb(path)


def random_shape() -> torch.Tensor:
    return torch.randn(SHAPES, generator=torch.Generator().manual_seed(5))


def random_rig(model: HeadModel, **changes) -> Rig:
    given = {"shape": random_shape(), "offsets": torch.zeros_like(model.template)}
    given["expression_names"] = [f"e{i}" for i in range(EXPRESSIONS)]
    return rig_of_head(model, **given | changes)


def test_it_moves_as_the_head(tmp_path):
    """Every joint weight, corrective and expression at once, without what the package uses to check its files."""
    model, shape = random_head(), random_shape()[None]
    save_mesh(random_rig(model), tmp_path / "head.glb")
    mesh, head = read_glb(tmp_path / "head.glb"), ParametricHead(model)
    assert mesh.weights.shape[1] == 8  # its vertices follow five joints
    g = torch.Generator().manual_seed(1)
    expression, pose = torch.randn(1, EXPRESSIONS, generator=g), torch.randn(1, 6, generator=g)
    posed = head(shape, expression, pose)
    wanted = turn(posed.vertices, posed.rotation, posed.root)[0].numpy()
    rest = head.joint_regressor @ head.blended(shape, expression)[0]
    joints = head.joint_regressor @ head.blended(shape, 0 * expression)[0]
    rotations = np.tile(np.eye(3), (5, 1, 1))
    rotations[0], rotations[2] = (r.numpy() for r in rotation_matrices(pose.view(2, 3)))
    assert [name[:15] for name in mesh.targets] == ["e0", "e1", "e2", "e3", *["jaw_corrective_"] * 9]
    weights = np.concatenate((expression[0].numpy(), (rotations[2] - np.eye(3)).reshape(-1)))
    points, normals = mesh.posed(weights, rotations, (rest - joints).numpy())
    order = render_vertices(model.faces, model.uv_faces)[0].numpy()
    np.testing.assert_allclose(points, wanted[order], atol=1e-6)
    # Without expression no joint drifts, and any viewer does all of it.
    still = head(shape, 0 * expression, pose)
    weights[:EXPRESSIONS] = 0
    points, _ = mesh.posed(weights, rotations)
    np.testing.assert_allclose(points, turn(still.vertices, still.rotation, still.root)[0].numpy()[order], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)


def test_the_default_head_moves_too(mesh, source):
    followed, resting = largest_distance(mesh, source)
    assert followed < 1e-6
    assert 1e-6 < resting < 2e-4
    assert mesh.weights.shape[1] == 4
    assert mesh.joints == ("root", "neck", "jaw", "eye_right", "eye_left")
    assert mesh.parents == (-1, 0, 1, 1, 1)
    broken = {
        "places": mesh.places * 1.01,
        "inverse_bind": mesh.inverse_bind * 1.01,
        "moves": mesh.moves[::-1],
        "weights": np.roll(mesh.weights, 1, axis=0),
    }
    for name, values in broken.items():
        assert largest_distance(replace(mesh, **{name: values}), source, poses=1)[0] > 1e-4, name


def test_a_file_that_moves_otherwise_is_not_kept(tmp_path):
    rig = random_rig(random_head(), facts={"license": "none"})
    with pytest.raises(CheckFailed, match="mm away from the random head"):
        write_checked(
            replace(rig, joints=rig.joints + 0.001, source="the random head"),
            {},
            tmp_path / "a.glb",
            tmp_path / "a.png",
        )
    assert not list(tmp_path.iterdir())


def test_arrays_follow_the_format(path, mesh, person):
    from pygltflib import GLTF2

    file, size = GLTF2().load(str(path)), path.stat().st_size
    assert path.read_bytes()[:12] == b"glTF" + (2).to_bytes(4, "little") + size.to_bytes(4, "little")
    assert all(view.byteOffset % 4 == 0 for view in file.bufferViews)
    ends = [view.byteOffset + view.byteLength for view in file.bufferViews]
    assert max(ends) <= file.buffers[0].byteLength
    position = file.accessors[file.meshes[0].primitives[0].attributes.POSITION]
    np.testing.assert_array_equal(position.min, mesh.points.min(0))
    np.testing.assert_array_equal(position.max, mesh.points.max(0))
    np.testing.assert_allclose(mesh.weights.sum(1), 1, atol=1e-6)
    assert (mesh.influences[mesh.weights == 0] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-5)
    assert np.array_equal(np.unique(mesh.triangles), np.arange(len(mesh.points)))
    assert file.asset.extras == {"license": "Apache-2.0", "identity": "3", "synthetic_media": True}
    assert file.asset.copyright == "Apache-2.0"
    model = synthetic_head()
    rest = model.template + model.shape_basis @ person.shape + person.offsets
    np.testing.assert_allclose(mesh.points[mesh.triangles], rest[model.faces].numpy(), atol=1e-7)
    np.testing.assert_allclose(mesh.uv[mesh.triangles] * 2 - 1, model.uv[model.uv_faces].numpy(), atol=1e-6)
    whole = vertex_normals(rest[None], model.faces)[0]
    np.testing.assert_allclose(mesh.normals[mesh.triangles], whole[model.faces].numpy(), atol=1e-6)


def test_another_reader_sees_the_same_mesh(path, mesh, source):
    trimesh = pytest.importorskip("trimesh")
    (seen,) = trimesh.load(path, process=False).geometry.values()
    np.testing.assert_array_equal(seen.faces, mesh.triangles)
    np.testing.assert_allclose(seen.vertices, mesh.points, atol=1e-7)
    # It has the first row at the bottom.
    np.testing.assert_allclose(seen.visual.uv * [1, -1] + [0, 1], mesh.uv, atol=1e-6)
    picture = np.asarray(seen.visual.material.baseColorTexture.convert("RGB"))
    np.testing.assert_array_equal(picture, source.texture)


def test_the_animation_opens_the_mouth(path, mesh):
    from pygltflib import GLTF2

    file = GLTF2().load(str(path))
    (animation,) = file.animations
    turn_channel, weight_channel = animation.channels
    assert file.nodes[turn_channel.target.node].name == "jaw"
    assert file.nodes[weight_channel.target.node].mesh == 0

    def values(accessor):
        view = file.bufferViews[file.accessors[accessor].bufferView]
        data = file.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
        return np.frombuffer(data, np.float32).reshape(STEPS + 1, -1)

    turns, weights = (values(animation.samplers[c.sampler].output) for c in (turn_channel, weight_channel))
    np.testing.assert_allclose(turns[STEPS // 2], [np.sin(OPENING / 2), 0, 0, np.cos(OPENING / 2)], atol=1e-6)
    jaw = rotation_matrices(torch.tensor([OPENING, 0, 0])).numpy()
    expected, rotations, _ = jaw_pose(mesh, np.zeros(len(EXPRESSION_NAMES)), np.eye(3), jaw)
    np.testing.assert_allclose(weights[STEPS // 2], expected, atol=1e-6)
    assert not weights[0].any()
    opened, _ = mesh.posed(expected, rotations)
    assert (mesh.points[:, 1] - opened[:, 1]).max() > 0.01  # the chin goes down by a centimetre or more


def test_the_person_is_painted_and_has_hair(person, mesh):
    model, size = synthetic_head(), len(person.texture)
    moved = person.offsets.norm(dim=1) > 0
    assert moved.any()
    assert torch.isin(moved.nonzero()[:, 0], model.hair).all()
    outward = (person.offsets * model.template).sum(1)[moved]
    assert (outward > 0).float().mean() > 0.95
    bald = synthetic_person(0, split=1, texture_size=16)
    assert not bald.offsets.any()

    from mobile_avatar.data.synthetic.identity import draw_identities

    who = draw_identities([PERSON], 1)
    colours = torch.from_numpy(person.texture).float() / 255
    # Rows of the texture go from the crown down; columns start at the back.
    forehead = colours[int(size * 0.15), size // 2]
    crown = colours[int(size * 0.03) : int(size * 0.08), : size // 4].mean((0, 1))
    assert (forehead - who.skin[0]).abs().max() < 0.12
    assert (crown - who.hair[0]).abs().max() < 0.15
    picture = draw(mesh, mesh.points, mesh.normals, _camera(mesh.points), size=64)
    face = picture[28:36, 28:36].reshape(-1, 3).mean(0)
    assert face[0] > face[2] + 20  # skin, not background


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": torch.zeros(3)}, "takes shape coefficients of shape (6,), not (3,)"),
        ({"offsets": torch.zeros(2, 3)}, "takes offsets of shape (48, 3)"),
        ({"expression_names": ["one"]}, "takes expression names of shape (4,)"),
        ({"shape": torch.full((SHAPES,), torch.nan)}, "hold NaN"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    with pytest.raises(BadInput) as caught:
        random_rig(random_head(), **change)
    assert said in str(caught.value)
