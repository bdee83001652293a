"""The arrays of one parametric head, whoever made it, and what follows from them by counting."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from mobile_avatar.errors import BadInput

# How many of FLAME's coefficients the released ROME uses.
SHAPE_COUNT, EXPRESSION_COUNT = 100, 50
FIXED_LANDMARKS, CONTOUR_LANDMARKS = 51, 17
# Rows of the contour embedding: 0..39 degrees to one side, then 1..39 to the other.
CONTOUR_ROWS = 79
# Arrays and their shapes; equal letters are equal numbers: v vertices, s shape, e expression, j joints, t triangles,
# w texture vertices. `9(j-1)` is one rotation matrix per joint but the root.
SHAPES = {
    "template": ("v", 3),
    "shape_basis": ("v", 3, "s"),
    "expression_basis": ("v", 3, "e"),
    "pose_basis": ("v", 3, "9(j-1)"),
    "joint_regressor": ("j", "v"),
    "skin_weights": ("v", "j"),
    "faces": ("t", 3),
    "uv_faces": ("t", 3),
    "uv": ("w", 2),
    "vertex_uv": ("v", 2),
    "landmark_faces": (FIXED_LANDMARKS,),
    "landmark_weights": (FIXED_LANDMARKS, 3),
    "contour_faces": (CONTOUR_ROWS, CONTOUR_LANDMARKS),
    "contour_weights": (CONTOUR_ROWS, CONTOUR_LANDMARKS, 3),
    "hair": ("h",),
    "hair_edge": ("he",),
    "neck": ("n",),
    "neck_edge": ("ne",),
    "deforms_mask": ("v", 1),
}
# What the entries of an index array number.
NUMBERS = {
    "faces": "v",
    "uv_faces": "w",
    "landmark_faces": "t",
    "contour_faces": "t",
    "hair": "v",
    "hair_edge": "v",
    "neck": "v",
    "neck_edge": "v",
}


@dataclass(frozen=True)
class HeadModel:
    """One parametric head with v vertices in FLAME's axes: x to the right of a frontal picture, y up, z to the viewer.

    Floats are float32, indices int64. Lengths are in the model's own unit (FLAME: metres).

    Raises:
        BadInput: an array has another shape or type, is not finite, or numbers something that is not there.
    """

    template: Tensor
    """(v, 3) the neutral head."""
    shape_basis: Tensor
    """(v, 3, s) displacement per unit of each shape coefficient."""
    expression_basis: Tensor
    """(v, 3, e) the same for expressions."""
    pose_basis: Tensor
    """(v, 3, 9(j-1)) displacement per entry of R - I of joints 1.., row by row."""
    joint_regressor: Tensor
    """(j, v) joints from the mesh with shape and expression."""
    skin_weights: Tensor
    """(v, j) how much a vertex follows each joint; rows sum to 1."""
    parents: tuple[int, ...]
    """Of each joint, -1 for the root; a parent comes before its children."""
    faces: Tensor
    """(t, 3) vertex numbers, counter-clockwise from outside."""
    uv_faces: Tensor
    """(t, 3) the same triangles as numbers of texture vertices."""
    uv: Tensor
    """(w, 2) texture vertices in sampling coordinates: [-1, 1], y down."""
    vertex_uv: Tensor
    """(v, 2) one place per vertex, see `largest_uv`."""
    landmark_faces: Tensor
    """(51,) triangles of the landmarks 17..67 ..."""
    landmark_weights: Tensor
    """(51, 3) ... and where in them."""
    contour_faces: Tensor
    """(79, 17) triangles of the landmarks 0..16, a row per degree of yaw ..."""
    contour_weights: Tensor
    """(79, 17, 3) ... and where in them."""
    hair: Tensor
    """(h,) vertices that hair may move, in the order of their file."""
    hair_edge: Tensor
    """(he,) these and their neighbours, ascending."""
    neck: Tensor
    """(n,) vertices of neck and shoulders."""
    neck_edge: Tensor
    """(ne,) these and their neighbours, ascending."""
    deforms_mask: Tensor
    """(v, 1) 1 where offsets may move a vertex: hair and neck without the frozen ones."""
    source: str = "the head model"
    """How messages call it."""

    def __post_init__(self) -> None:
        tree = self.parents[:1] == (-1,) and all(0 <= p < i for i, p in enumerate(self.parents) if i)
        if not tree or len(self.parents) < 3:
            raise BadInput(f"{self.source}: joints {self.parents} are not a tree of root, neck, jaw and others")
        sizes = {"v": self.template.shape[0], "j": len(self.parents)}
        sizes["9(j-1)"] = 9 * (sizes["j"] - 1)
        for name, dims in SHAPES.items():
            value = getattr(self, name)
            kind = torch.int64 if name in NUMBERS else torch.float32
            if value.dtype != kind or value.dim() != len(dims):
                shape = tuple(value.shape)
                raise BadInput(f"{self.source}: {name} is {value.dtype} {shape}, expected {kind} ({_spell(dims)})")
            for dim, size in zip(dims, value.shape, strict=True):
                wanted = dim if isinstance(dim, int) else sizes.setdefault(dim, size)
                if size != wanted:
                    shape = tuple(value.shape)
                    raise BadInput(f"{self.source}: {name} is {shape}, but the other arrays ask for {wanted} ({dim})")
            if kind is torch.float32 and not value.isfinite().all():
                raise BadInput(f"{self.source}: {name} holds NaN or infinity; the file is damaged, get it again")
        for name, counted in NUMBERS.items():
            value, limit = getattr(self, name), sizes[counted]
            if value.numel() and not (value.min() >= 0 and value.max() < limit):
                raise BadInput(f"{self.source}: {name} has numbers outside 0..{limit - 1}; it belongs to another head")
        if (self.skin_weights.sum(1) - 1).abs().max() > 1e-3:
            raise BadInput(f"{self.source}: skin_weights do not sum to 1 over the joints")

    def to(self, device: str | torch.device) -> "HeadModel":
        """The same head on another device."""
        tensors = {name: getattr(self, name).to(device) for name in SHAPES}
        return dataclasses.replace(self, **tensors)


def _spell(dims: tuple) -> str:
    return ", ".join(str(dim) for dim in dims)


def largest_uv(faces: Tensor, uv_faces: Tensor, uv: Tensor, vertices: int) -> Tensor:
    """(v, 2) the element-wise largest of the places a vertex has in the texture, as in ROME's `vertex_uvcoords`.

    Where the texture is cut open this is a place of the one side or of none; networks were trained with it.
    """
    largest = uv.new_full((vertices, 2), -torch.inf)
    owner = faces.flatten()[:, None].expand(-1, 2)
    return largest.scatter_reduce(0, owner, uv[uv_faces.flatten()], "amax")


def with_ring(vertices: Tensor, faces: Tensor) -> Tensor:
    """The vertices (k,) and all that share a triangle with them, ascending."""
    touching = torch.isin(faces, vertices).any(1)
    return torch.cat((vertices, faces[touching].flatten())).unique()


def region_faces(edge: Tensor, faces: Tensor) -> Tensor:
    """(k, 3) the triangles wholly inside `edge` (ascending vertex numbers), as positions in `edge`."""
    inside = faces[torch.isin(faces, edge).all(1)]
    return torch.searchsorted(edge.contiguous(), inside.contiguous())


def mask_of(vertices: Tensor, count: int) -> Tensor:
    """(count, 1) float32: 1 at the given vertex numbers."""
    mask = torch.zeros(count, 1, device=vertices.device)
    mask[vertices] = 1.0
    return mask
