"""The draw call of ROME avatars in OpenGL ES 3, offscreen, against the software rasteriser."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mobile_avatar.models.rome.avatar_mesh import AvatarMesh
from mobile_avatar.models.rome.feature_image import FRONT, feature_image
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.rendering.shader import mesh_shader, mesh_vertex_shader
from tests.rome_avatars import source_codes

PROGRAM = Path(__file__).with_name("gles_mesh_offscreen.py")
NO_EGL = 77
SIZE = 256

Run = Callable[..., np.ndarray]


@pytest.fixture
def run_shader(tmp_path: Path) -> Run:
    """Arguments as of `feature_image`, and other shaders -> (12, S, S); skips where there is no EGL."""

    def run(positions, normals, corners, uv, texture, size, vertex=None, fragment=None):
        arrays = {
            "positions": positions[0],
            "normals": normals[0],
            "uv": uv,
            "corners": corners.numpy().astype(np.uint16),
        }
        layers = texture[0].unflatten(0, (2, 4)).permute(0, 2, 3, 1)
        sources = {"vertex": vertex or mesh_vertex_shader(), "fragment": fragment or mesh_shader()}
        np.savez(tmp_path / "in.npz", texture=layers, size=size, **arrays, **sources)
        command = [sys.executable, str(PROGRAM), str(tmp_path / "in.npz"), str(tmp_path / "out.npy")]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if result.returncode == NO_EGL:
            pytest.skip(f"the shader cannot run on this machine: {result.stdout.strip()}")
        assert result.returncode == 0, result.stderr
        return np.load(tmp_path / "out.npy").transpose(2, 0, 1)

    return run


def scene() -> tuple:
    """The default head, turned, with open jaw: arguments of `feature_image`."""
    head = synthetic_head()
    torch.manual_seed(2)
    shape, offsets = torch.randn(1, head.shape_basis.shape[2]), torch.zeros(1, len(head.template), 3)
    mesh, codes = AvatarMesh.of(head, shape, offsets), source_codes(head)
    codes[mesh.expressions : mesh.expressions + 4] = torch.tensor([0.1, 0.6, 0.1, 0.3])
    texture = torch.nn.functional.interpolate(torch.randn(1, 8, 32, 32), (SIZE, SIZE), mode="bilinear")
    return *mesh(codes[None]), mesh.corners.long(), mesh.uv, texture.half().float(), SIZE


def test_shader_draws_what_the_software_rasteriser_draws(run_shader: Run) -> None:
    """Pixels may differ where the two decide otherwise which face covers a centre: 5 of 24,158 on Mesa, no outline."""
    arguments = scene()
    found, expected = run_shader(*arguments), feature_image(*arguments)[0].numpy()
    coverage = expected[-1]
    assert 0.2 < coverage.mean() < 0.9
    changed = int((found[-1] != coverage).sum())
    assert changed <= 8, f"{changed} pixels of the outline"
    both = (found[-1] == 1) & (coverage == 1)
    # An eighth-bit bilinear weight of a texture in [-4, 4], and half precision of the targets.
    error = np.abs(found - expected).max(0)[both]
    other_face = int((error > 0.06).sum())
    assert other_face <= 0.001 * both.sum(), f"{other_face} pixels see another face"
    assert np.median(error) < 0.01
    assert not found[:, found[-1] == 0].any()


def test_rows_run_from_the_top_of_the_picture(run_shader: Run) -> None:
    """A triangle in the upper left corner, seen from behind: both sides are drawn."""
    positions = torch.tensor([[[-1.0, -1, 0], [0, -1, 0], [-1, 0, 0]]])
    normals = torch.tensor([[[0.0, 0, 1]] * 3])
    uv = torch.tensor([[-1.0, -1], [1, -1], [-1, 1]])
    texture = torch.zeros(1, 8, 8, 8)
    texture[:, 0, :4] = 1  # its upper half
    for corners in ([[0, 1, 2]], [[0, 2, 1]]):
        arguments = positions, normals, torch.tensor(corners), uv, texture, 16
        found, expected = run_shader(*arguments), feature_image(*arguments)[0].numpy()
        assert found[-1, :4, :4].all()
        assert not found[-1, 8:].any()
        assert not found[-1, :, 8:].any()
        assert found[0, 1, 1] == expected[0, 1, 1] == 1
        assert found[0, 6, 0] == expected[0, 6, 0] == 0
        np.testing.assert_allclose(found[8:11, 1, 1], [0, 0, 1])


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_nearest_face_wins(run_shader: Run, order: list[int]) -> None:
    quad = torch.tensor([[-3.0, -3], [3, -3], [-3, 3]])
    depths = (-FRONT * 0.99, FRONT * 0.99)
    positions = torch.cat([torch.cat((quad, torch.full((3, 1), z)), dim=1) for z in depths])[None]
    normals = torch.tensor([[[1.0, 0, 0]] * 3 + [[0, 1, 0]] * 3])
    corners = torch.tensor([[0, 1, 2], [3, 4, 5]])[order]
    arguments = positions, normals, corners, torch.zeros(6, 2), torch.zeros(1, 8, 2, 2), 8
    found = run_shader(*arguments)
    np.testing.assert_array_equal(found[8, 1:4, 1:4], 1)
    np.testing.assert_allclose(found, feature_image(*arguments)[0].numpy(), atol=1e-3)


def border_scene() -> tuple:
    """A screen-filling square whose places reach far beyond a tiny texture."""
    positions = torch.tensor([[[-1.0, -1, 0], [1, -1, 0], [-1, 1, 0], [1, 1, 0]]])
    corners = torch.tensor([[0, 1, 2], [2, 1, 3]])
    torch.manual_seed(0)
    return positions, positions * 0, corners, positions[0, :, :2] * 2, torch.randn(1, 8, 4, 4).half().float(), 63


def border_error(found: np.ndarray) -> float:
    """Largest error away from the diagonal, where the software rasteriser sees neither triangle."""
    expected = feature_image(*border_scene())[0].numpy()
    return float((np.abs(found - expected) * expected[-1])[:8].max())


def test_texture_fades_to_zero_at_its_border(run_shader: Run) -> None:
    found = run_shader(*border_scene())
    assert np.abs(found[:8]).max() > 1
    assert border_error(found) < 0.03


def test_the_border_test_notices_a_shader_that_only_clamps(run_shader: Run) -> None:
    broken = mesh_shader().replace(" * fade", "")
    assert broken != mesh_shader()
    assert border_error(run_shader(*border_scene(), fragment=broken)) > 0.5


def test_constants_of_shader_and_software_agree() -> None:
    (depth,) = re.findall(r"DEPTH = ([\d.]+);", mesh_vertex_shader())
    assert float(depth) == FRONT


def test_mesh_shaders_pass_the_khronos_validator(tmp_path: Path) -> None:
    for source in (mesh_vertex_shader(), mesh_shader()):
        assert source.startswith("#version 300 es\n")
    validator = shutil.which("glslangValidator")
    if validator is None:
        pytest.skip("glslangValidator (Debian package glslang-tools) is not installed")
    (tmp_path / "mesh.vert").write_text(mesh_vertex_shader())
    (tmp_path / "mesh.frag").write_text(mesh_shader())
    command = [validator, "-l", "mesh.vert", "mesh.frag"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout
