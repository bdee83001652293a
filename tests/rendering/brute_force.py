"""A rasteriser that asks every pixel about every face, in numpy and float64: slow, plain, and written on its own."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """A face at a pixel: how far it is, and how far the centre is from its outline, squared, negative inside."""

    depth: float
    face: int
    distance: float
    weights: np.ndarray


def layers(vertices: np.ndarray, faces: np.ndarray, column: int, row: int, size: int, radius: float) -> list[Layer]:
    """All faces (f, 3) of vertices (v, 3) that cover a pixel's centre or pass within `radius` of it, near to far."""
    point = np.array([(2 * column + 1) / size - 1, (2 * row + 1) / size - 1])
    found = []
    for number, face in enumerate(faces):
        corners, flat = vertices[face], vertices[face][:, :2]
        if (flat.min(0) > point + radius).any() or (flat.max(0) < point - radius).any():
            continue
        (ax, ay), (bx, by), (cx, cy) = flat
        if abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) <= 1e-8 or corners[:, 2].min() < 1e-8:
            continue
        # Weights that sum to one and put the corners' mean at the point.
        weights = np.linalg.solve(np.stack([[ax, bx, cx], [ay, by, cy], [1, 1, 1]]), [*point, 1])
        outline = min(segment_distance(point, flat[i], flat[i - 1]) for i in range(3))
        inside = bool((weights > 0).all())
        depth = float(weights @ corners[:, 2])
        if (inside or outline < radius) and depth >= 0:
            found.append(Layer(depth, number, -(outline**2) if inside else outline**2, weights))
    return sorted(found, key=lambda layer: (layer.depth, layer.face))


def segment_distance(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """Distance of a point from a segment, by cases: beyond an end, or beside it."""
    along = end - start
    if (point - start) @ along <= 0:
        return float(np.linalg.norm(point - start))
    if (point - end) @ along >= 0:
        return float(np.linalg.norm(point - end))
    (x, y), (dx, dy) = point - start, along
    return float(abs(dx * y - dy * x) / np.linalg.norm(along))


def random_mesh(
    seed: int, faces: int = 40, frames: int = 1, kind: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Triangles of all sizes, some partly or wholly outside, in front of and through each other.

    Returns vertices (frames, 3 * faces, 3) and faces (faces, 3); no two faces share a vertex.
    """
    g = torch.Generator().manual_seed(seed)
    centres = torch.rand(frames, faces, 1, 3, generator=g, dtype=kind) * torch.tensor([2.4, 2.4, 3])
    reach = 0.1 + 2 * torch.rand(faces, 1, 1, generator=g, dtype=kind)
    corners = centres + (torch.rand(frames, faces, 3, 3, generator=g, dtype=kind) - 0.5) * reach
    return corners.view(frames, -1, 3) + torch.tensor([-1.2, -1.2, 1]), torch.arange(3 * faces).view(faces, 3)
