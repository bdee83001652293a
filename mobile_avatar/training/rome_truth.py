"""How far a mesh is from the true head of a synthetic person: both seen from all around, in rest pose.

A synthetic head is made of sheets, and much of them is never seen: skin under hair, hair that a bald person keeps
inside the skull. So both meshes are looked at from several sides, and what is seen is compared as clouds of points.
Only metrics use this: no loss sees a true mesh.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from mobile_avatar.data.synthetic import head_mesh
from mobile_avatar.data.synthetic.expression import neutral_frames
from mobile_avatar.data.synthetic.heads import SPLITS
from mobile_avatar.data.synthetic.identity import draw_identities
from mobile_avatar.data.synthetic.render import LAYERS
from mobile_avatar.models.rome.parametric import rotation_matrices
from mobile_avatar.models.rome.synthetic_layout import LOWEST
from mobile_avatar.models.rome.synthetic_rig import to_rig
from mobile_avatar.rendering.rasterize import rasterize

VIEWS = (*((2 * pi * turn / 8, 0.0) for turn in range(8)), (0.0, pi / 2))
"""Turn about the vertical axis, then towards the viewer: eight sides and from above, in radians."""
VIEW_SIZE = 128
REACH = 0.26  # metres from the middle of the skull to the edge of a view: shoulders and all
POINTS, ASKED = 12000, 1500
"""Points of a surface, and how many of them ask for the nearest of the other; what lies between points is a floor."""
GLASSES = ("left_rim", "right_rim", "left_temple", "right_temple", "bridge")
MILLIMETRES = 1000.0


@dataclass(frozen=True)
class Surface:
    """What is seen of a mesh."""

    points: Tensor
    """(k, 3) in the rig's metres."""
    faces: Tensor
    """(k,) int64, the face that each lies on."""


@dataclass(frozen=True)
class TrueHead:
    """A synthetic person in rest pose, without glasses: they are no part of any head model."""

    surface: Surface
    hair: Tensor
    """(k,) bool, which points are hair."""


@torch.no_grad()
def seen_surface(vertices: Tensor, faces: Tensor, most: int = POINTS) -> Surface:
    """Points of a mesh's outer surface, those that the rig reaches down to.

    Args:
        vertices: (v, 3) in the rig's metres and axes. faces: (f, 3).
        most: points to keep, chosen alike every time.
    """
    turns = torch.tensor([[tilt, 0.0, 0.0] for _, tilt in VIEWS]), torch.tensor([[0.0, yaw, 0.0] for yaw, _ in VIEWS])
    rotations = (rotation_matrices(turns[0]) @ rotation_matrices(turns[1])).to(vertices)
    looked_at = vertices @ rotations.mT / REACH
    # The picture's y goes down, and the nearest has the smallest z.
    projected = torch.stack((looked_at[..., 0], -looked_at[..., 1], 4 - looked_at[..., 2]), dim=-1)
    seen = rasterize(projected, faces, VIEW_SIZE)
    corners = vertices[faces.index_select(0, seen.face)]
    points = (corners * seen.barycentrics[..., None]).sum(1)
    kept = (points[:, 1] > lowest()).nonzero()[:, 0]
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(0)).to(kept.device)[:most]
    return Surface(points[kept[order]], seen.face[kept[order]])


def lowest() -> float:
    """y in metres below which nothing is compared: a little above the end of the rig's shoulders."""
    return float(to_rig(torch.tensor([0.0, LOWEST - 0.3, 0.0]))[1])


@torch.no_grad()
def true_heads(numbers: Sequence[int], split: str = "test") -> list[TrueHead]:
    """The people with these numbers, in rest pose."""
    mesh = head_mesh(draw_identities(list(numbers), SPLITS[split]), neutral_frames(len(numbers)))
    names = list(LAYERS)
    glasses = torch.tensor([names.index(name) for name in GLASSES])
    layer = mesh.layers[mesh.triangles[:, 0]]
    kept = ~torch.isin(layer, glasses)
    triangles, layer = mesh.triangles[kept], layer[kept]
    surfaces = [seen_surface(vertices, triangles) for vertices in to_rig(mesh.vertices)]
    return [TrueHead(surface, layer[surface.faces] == names.index("hair")) for surface in surfaces]


@dataclass(frozen=True)
class HeadErrors:
    """Distances to a true head in millimetres."""

    chamfer: float
    """Half the mean distance from each surface to the other, summed (thesis)."""
    hair: float
    """Mean distance from what is seen of the true hair to the mesh; NaN for bald people."""


@torch.no_grad()
def head_errors(vertices: Tensor, faces: Tensor, truth: TrueHead) -> HeadErrors:
    """How far a mesh (v, 3), (f, 3) in rest pose is from a true head."""
    ours, theirs = seen_surface(vertices, faces).points, truth.surface.points
    there, back = _to_nearest(ours[:ASKED], theirs), _to_nearest(theirs[:ASKED], ours)
    chamfer, hair = (there.mean() + back.mean()) / 2, back[truth.hair[:ASKED]].mean()
    return HeadErrors(float(chamfer) * MILLIMETRES, float(hair) * MILLIMETRES)


def _to_nearest(points: Tensor, others: Tensor) -> Tensor:
    """Distance (k,) from each point (k, 3) to the nearest of the others (m, 3)."""
    # The faster form of the distances is off by tenths of a millimetre.
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
