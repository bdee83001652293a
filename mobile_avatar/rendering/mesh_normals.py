"""Normals of a mesh at its vertices."""

import torch
import torch.nn.functional as F
from torch import Tensor

SHORTEST = 1e-6
"""Sums of normals that are shorter are divided by this instead of their length, as officially."""


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals of vertices: the sum over their faces, each weighted by its area.

    Args:
        vertices: (n, v, 3) float.
        faces: (f, 3) int64; seen from where the normal points, the corners run counter-clockwise if the axes are
            right-handed.

    Returns:
        (n, v, 3), differentiable; zero for vertices without faces.
    """
    p, q, r = (vertices.index_select(1, corner) for corner in faces.unbind(1))
    normals = torch.linalg.cross(q - p, r - p)  # twice the area long
    total = torch.zeros_like(vertices).index_add(1, faces.t().reshape(-1), normals.repeat(1, 3, 1))
    return F.normalize(total, dim=-1, eps=SHORTEST)
