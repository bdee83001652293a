"""Drawing a mesh of a head's size, one thread: pytest benchmarks/test_rasterize.py"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mobile_avatar.models.rome.camera import DEPTH
from mobile_avatar.models.rome.mesh_maps import mesh_maps
from mobile_avatar.rendering.mesh_normals import vertex_normals
from mobile_avatar.rendering.rasterize import rasterize
from mobile_avatar.rendering.soft_silhouette import soft_silhouette
from mobile_avatar.rendering.surface_map import SurfaceMap

SIZE = 256
ROWS, COLUMNS = 72, 71


def egg() -> tuple[Tensor, Tensor, Tensor]:
    """5,112 vertices (1, v, 3) in the picture, 9,940 faces as close together as a parametric head's, and their uv."""
    down, around = torch.meshgrid(torch.linspace(-1, 1, ROWS), torch.linspace(-1, 1, COLUMNS), indexing="ij")
    polar, turn = (down * 0.98 + 1) * torch.pi / 2, around * torch.pi
    x, z = (0.62 * f(turn) * torch.sin(polar) for f in (torch.sin, torch.cos))
    bumps = 0.005 * torch.rand(ROWS, COLUMNS, 3, generator=torch.Generator().manual_seed(0))
    vertices = torch.stack((x, -0.85 * torch.cos(polar), DEPTH - z), dim=-1) + bumps
    number = torch.arange(ROWS * COLUMNS).view(ROWS, COLUMNS)
    p, q, r, s = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    faces = torch.stack((torch.stack((p, q, r), -1), torch.stack((q, s, r), -1)), dim=2).view(-1, 3)
    return vertices.view(1, -1, 3), faces, torch.stack((around, down), dim=-1).view(-1, 2)


VERTICES, FACES, UV = egg()
UNFOLD = SurfaceMap(FACES, UV, FACES, SIZE)


def with_gradient(draw: Callable[[Tensor], Tensor]) -> None:
    vertices = VERTICES.clone().requires_grad_()
    draw(vertices).sum().backward()


CASES: dict[str, Callable[[], object]] = {
    "hard pass": lambda: rasterize(VERTICES, FACES, SIZE),
    "hard pass, gradient": lambda: with_gradient(lambda v: rasterize(v, FACES, SIZE).barycentrics.square()),
    "hard pass, batch of 4": lambda: rasterize(VERTICES.expand(4, -1, -1), FACES, SIZE),
    "maps of uv, normals and mask": lambda: mesh_maps(VERTICES, VERTICES, FACES, UV, FACES, SIZE),
    "soft silhouette": lambda: soft_silhouette(VERTICES, FACES, SIZE),
    "soft silhouette, gradient": lambda: with_gradient(lambda v: soft_silhouette(v, FACES, SIZE)),
    "vertex normals": lambda: vertex_normals(VERTICES, FACES),
    "texture-space map": lambda: UNFOLD(VERTICES),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.benchmark(group="rasterising, 256 px, about 10,000 faces, one thread")
def test_rasterising(benchmark, name: str) -> None:
    torch.set_num_threads(1)
    benchmark.pedantic(CASES[name], rounds=20, warmup_rounds=2)
