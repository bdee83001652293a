"""A ROME avatar as a mesh file: it moves as the avatar's mesh graph, and shows what its renderer shows."""

import numpy as np
import pytest
import torch

from mobile_avatar.models.rome.avatar import RomeAvatar
from mobile_avatar.models.rome.avatar_colours import avatar_colours
from mobile_avatar.models.rome.avatar_mesh import AvatarMesh
from mobile_avatar.models.rome.batch_norms import fold_batch_norms
from mobile_avatar.models.rome.compact_renderer import FEATURES, CompactConfig, CompactRenderer
from mobile_avatar.models.rome.mesh_check import jaw_pose
from mobile_avatar.models.rome.mobilenet_v2 import MobileNetV2
from mobile_avatar.models.rome.parametric import rotation_matrices
from mobile_avatar.models.rome.synthetic_rig import EXPRESSION_NAMES, SHAPE_NAMES, synthetic_head
from mobile_avatar.rendering.rigged_mesh import read_glb
from tests.cli.runner import run

SIZE = 128
CONTRAST = 4.0


def window() -> CompactRenderer:
    """A compact renderer whose weights pass three channels of the texture and the coverage through."""
    network = CompactRenderer.folded(CompactConfig(image_size=SIZE, width=4, middle=1))
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    shown = (0, 1, 2, FEATURES - 1)
    with torch.no_grad():
        for channel, feature in enumerate(shown):
            network.direct.weight[channel, feature] = CONTRAST if channel < 3 else 2 * CONTRAST
            network.direct.bias[channel] = -CONTRAST / 2 if channel < 3 else -CONTRAST
    return network


@pytest.fixture(scope="module")
def avatar() -> RomeAvatar:
    """The default head with a texture of slow waves."""
    g = torch.Generator().manual_seed(0)
    head, e = synthetic_head(), len(EXPRESSION_NAMES)
    # Only where no jaw moves: in the file offsets turn with it, in ROME they do not.
    movable = head.deforms_mask * (head.skin_weights[:, 2:3] == 0)
    offsets = 0.004 * torch.randn(1, len(head.template), 3, generator=g) * movable
    mesh = AvatarMesh.of(head, torch.randn(1, len(SHAPE_NAMES), generator=g), offsets)
    v, u = torch.meshgrid(*(torch.linspace(-1, 1, SIZE),) * 2, indexing="ij")
    texture = torch.zeros(1, 8, SIZE, SIZE)
    texture[0, :3] = 0.5 + 0.4 * torch.stack((torch.sin(7 * u), torch.sin(6 * v), torch.cos(5 * u + 4 * v)))
    codes = torch.cat((torch.zeros(e + 6), torch.tensor([5.0, 0.0, 0.02])))
    encoder = fold_batch_norms(MobileNetV2(e + 9, 0.1)).eval()
    return RomeAvatar(encoder, mesh, texture, window().eval(), codes, SIZE, 0.1, {"license": "Apache-2.0"})


def test_colours_are_those_of_the_renderer(avatar):
    colours = torch.from_numpy(avatar_colours(avatar, SIZE)).float() / 255
    wanted = torch.sigmoid(CONTRAST * (avatar.texture[0, :3] - 0.5)).permute(1, 2, 0)
    error = (colours - wanted).abs().amax(-1)
    face = error[SIZE // 10 : SIZE * 6 // 10, SIZE * 3 // 10 : SIZE * 7 // 10]
    assert face.median() < 0.02
    assert face.quantile(0.95) < 0.08  # around ears, chin and nose views disagree by a pixel
    assert colours.std() > 0.1


def test_the_file_moves_as_the_mesh_graph(avatar, capfd, tmp_path):
    avatar.save(tmp_path / "rome.avatar")
    done = run(capfd, "mesh", tmp_path / "rome.avatar", "--texture-size", 64, "-o", tmp_path / "head.glb")
    assert done.code == 0, done.err
    assert "2 joints, 16 expressions" in done.out
    mesh = read_glb(tmp_path / "head.glb")
    assert mesh.joints == ("root", "jaw")
    assert mesh.extras["asset"]["license"] == "Apache-2.0"
    g = torch.Generator().manual_seed(3)
    expression, pose = torch.randn(16, generator=g), 0.3 * torch.randn(6, generator=g)
    codes = torch.cat((expression, pose, torch.tensor([1.0, 0, 0])))[None]
    positions = avatar.mesh(codes)[0][0].numpy() * [1, -1, -1]
    whole, jaw = rotation_matrices(pose.view(2, 3)).numpy()
    points, _ = mesh.posed(*jaw_pose(mesh, expression.numpy(), whole, jaw))
    np.testing.assert_allclose(points, positions, atol=2e-6)


def test_a_damaged_avatar(avatar, capfd, tmp_path):
    path = tmp_path / "rome.avatar"
    avatar.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    done = run(capfd, "mesh", path, "-o", tmp_path / "head.glb")
    assert done.code == 2
    assert "rome.avatar" in done.sentence
