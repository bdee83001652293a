"""Vertex normals of a mesh whose faces never change, as gathers of fixed shape: no scatter, which few runtimes have."""

import torch
from torch import Tensor, nn

from mobile_avatar.rendering.mesh_normals import SHORTEST


class IncidentFaces(nn.Module):
    """`mesh_normals.vertex_normals`, but vertices look their faces up in a table instead of faces adding to vertices.

    A table as wide as the busiest vertex would be mostly padding where one vertex, like the crown of a head, has dozens
    of faces. So faces are gathered in groups, and groups by vertices: two tables about as wide as the root of that.

    Args:
        corners: (t, 3) int64, the vertices of each face.
        same: (w,) int64: rows of equal number share one normal. Where a vertex was doubled along a seam of the texture,
            the faces of both sides count.
    """

    def __init__(self, corners: Tensor, same: Tensor) -> None:
        super().__init__()
        owner = same[corners].flatten()
        order = owner.argsort(stable=True)
        faces = torch.div(order, 3, rounding_mode="floor")
        counts = torch.bincount(owner, minlength=int(same.max()) + 1)
        busiest = int(counts.max())
        # Six faces meet at most vertices; only a mesh that goes far beyond needs the second table.
        width = busiest if busiest <= 12 else max(8, int(busiest**0.5 + 1))
        per_group = [
            part for of_vertex in faces.split(counts.tolist()) for part in (of_vertex.split(width) or (of_vertex,))
        ]
        firsts, groups = [], 0
        for count in counts.tolist():
            firsts.append(groups)
            groups += max(1, -(-count // width))
        # Face number t is a face of no area, group number g a group without faces.
        table = torch.full((groups + 1, width), len(corners))
        for row, part in enumerate(per_group):
            table[row, : len(part)] = part
        depth = -(-busiest // width)
        first, used = torch.tensor(firsts), (-(-counts // width)).clamp(min=1)
        steps = torch.arange(depth)
        members = torch.where(steps < used[:, None], first[:, None] + steps, groups)
        self.width, self.depth = width, depth
        for name, value in (("a", 0), ("b", 1), ("c", 2)):
            self.register_buffer(name, corners[:, value].to(torch.int32), persistent=False)
        if depth == 1:  # groups are vertices: one table suffices
            table = table[:-1][same]
        else:
            self.register_buffer("members", members[same].flatten().to(torch.int32), persistent=False)
        self.register_buffer("table", table.flatten().to(torch.int32), persistent=False)

    def forward(self, vertices: Tensor, scale: float = 1.0) -> Tensor:
        """Unit normals (1, w, 3) of vertices (1, w, 3).

        Args:
            scale: vertices times this are computed with; normals do not change. In half precision the areas of a mesh
                in metres would be smaller than the smallest number.
        """
        points = vertices[0] * scale
        p, q, r = (_rows(points, corner) for corner in (self.a, self.b, self.c))
        normals = _cross(q - p, r - p)
        normals = torch.cat((normals, torch.zeros_like(normals[:1])))
        total = _rows(normals, self.table).view(-1, self.width, 3).sum(1)
        if self.depth > 1:
            total = _rows(total, self.members).view(-1, self.depth, 3).sum(1)
        length = (total * total).sum(1, keepdim=True).sqrt().clamp(min=SHORTEST * scale**2)
        return (total / length)[None]


def _rows(table: Tensor, rows: Tensor) -> Tensor:
    # `embedding` lowers to one plain gather; indexing would bring a select and a transpose with it.
    return torch.nn.functional.embedding(rows, table)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    ax, ay, az = a[:, 0:1], a[:, 1:2], a[:, 2:3]
    bx, by, bz = b[:, 0:1], b[:, 1:2], b[:, 2:3]
    return torch.cat((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx), dim=1)
