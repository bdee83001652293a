"""A contact sheet of a mesh file: neutral, three expressions, jaw open, head turned; drawn from the file itself."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.models.rome.camera import DEPTH, project
from mobile_avatar.models.rome.mesh_check import jaw_pose
from mobile_avatar.models.rome.parametric import rotation_matrices
from mobile_avatar.rendering.contact_sheet import contact_sheet
from mobile_avatar.rendering.rasterize import rasterize
from mobile_avatar.rendering.rigged_mesh import RiggedMesh

SIZE, SUPERSAMPLING = 288, 2
COLUMNS = 4
MARGIN, CUT = 0.92, 0.22  # how much of the picture the mesh fills; how much of its height, shoulders, is left out
BACKGROUND = (0.24, 0.27, 0.31)
LIGHT, AMBIENT, DIFFUSE = (0.35, 0.45, 0.82), 0.45, 0.75
OPEN_JAW, TURNED, PROFILE = 0.32, 0.6, 1.4  # radians

Look = Mapping[str, float]
"""Weights of morph targets by name."""


def write_mesh_sheet(mesh: RiggedMesh, looks: Mapping[str, Look], output: Path) -> None:
    """Draw a mesh in the given looks and in fixed poses into one PNG; an existing file is replaced in one step."""
    neutral: Look = {}
    cells = [("neutral", neutral, 0.0, 0.0)]
    cells += [(name, look, 0.0, 0.0) for name, look in looks.items()]
    cells += [("jaw open", neutral, OPEN_JAW, 0.0), ("turned", neutral, 0.0, TURNED)]
    cells += [("side", neutral, 0.0, PROFILE), ("back", neutral, 0.0, np.pi)]
    camera = _camera(mesh.points)
    pictures = []
    for label, look, jaw, yaw in cells:
        expression = np.array([look.get(name, 0.0) for name in _expressions(mesh)])
        turned, opened = (
            rotation_matrices(torch.tensor(axis)).double().numpy() for axis in ((0.0, yaw, 0.0), (jaw, 0.0, 0.0))
        )
        pictures.append((label, draw(mesh, *mesh.posed(*jaw_pose(mesh, expression, turned, opened)), camera)))
    contact_sheet(pictures, COLUMNS, output)


def draw(mesh: RiggedMesh, points: np.ndarray, normals: np.ndarray, camera: Tensor, size: int = SIZE) -> np.ndarray:
    """A posed mesh seen by a camera (1, 3) under one fixed light, (size, size, 3) uint8."""
    fine = size * SUPERSAMPLING
    projected = project(torch.tensor(points, dtype=torch.float32)[None], camera, DEPTH)
    seen = rasterize(projected, torch.from_numpy(mesh.triangles), fine)
    values = torch.from_numpy(np.concatenate((normals, mesh.uv), axis=1)).float()[None]
    normal, uv = seen.interpolate(values, torch.from_numpy(mesh.triangles)).split((3, 2), dim=1)
    # Both sides are drawn, so the inner ones are lit as if they were turned.
    normal = F.normalize(normal, dim=1) * torch.where(normal[:, 2:] < 0, -1.0, 1.0)
    lit = AMBIENT + DIFFUSE * torch.einsum("nchw,c->nhw", normal, F.normalize(torch.tensor(LIGHT), dim=0)).clamp(min=0)
    colour = torch.tensor(mesh.colour).view(1, 3, 1, 1).expand(1, 3, fine, fine)
    if mesh.texture is not None:
        texture = torch.from_numpy(mesh.texture.copy()).float().permute(2, 0, 1)[None] / 255
        grid = uv.permute(0, 2, 3, 1) * 2 - 1
        colour = colour * F.grid_sample(texture, grid, padding_mode="border", align_corners=False) ** 2.2
    background = torch.tensor(BACKGROUND).view(1, 3, 1, 1)
    image = torch.where(seen.mask() > 0, (colour * lit[:, None]).clamp(0, 1) ** (1 / 2.2), background)
    small = F.avg_pool2d(image, SUPERSAMPLING)[0]
    return (small.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def _expressions(mesh: RiggedMesh) -> tuple[str, ...]:
    return mesh.targets[: len(mesh.targets) - len(mesh.extras["mesh"]["jaw_correctives"])]


def _camera(points: np.ndarray) -> Tensor:
    """(1, 3) a camera that shows head and neck."""
    low, high = float(points[:, 1].min()), float(points[:, 1].max())
    low += CUT * (high - low)
    return torch.tensor([[2 * MARGIN / (high - low), 0.0, -(low + high) / 2]])
