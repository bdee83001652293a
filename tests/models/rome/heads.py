"""Heads for tests: a small random one, and the golden one."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.models.rome import head_model
from mobile_avatar.models.rome.head_model import HeadModel

PARENTS = (-1, 0, 1, 1, 1)
SHAPES, EXPRESSIONS = 6, 4


def grid_faces(rows: int, columns: int) -> Tensor:
    number = torch.arange(rows * columns).view(rows, columns)
    p, q, r, s = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    return torch.cat((torch.stack((p, r, q), -1).reshape(-1, 3), torch.stack((q, r, s), -1).reshape(-1, 3)))


def random_head(seed: int = 0) -> HeadModel:
    """A bent sheet of 8 x 6 vertices with random bases, all of metres-like size."""
    g = torch.Generator().manual_seed(seed)
    rows, columns = 8, 6
    v = rows * columns
    y, x = torch.meshgrid(torch.linspace(0.1, -0.1, rows), torch.linspace(-0.08, 0.08, columns), indexing="ij")
    template = torch.stack((x, y, 0.1 - 5 * x * x), -1).reshape(v, 3)
    faces = grid_faces(rows, columns)
    uv = torch.stack((x / 0.1, -y / 0.12), -1).reshape(v, 2)
    weights = torch.rand(v, 5, generator=g) ** 3
    regressor = torch.rand(5, v, generator=g) ** 4
    spots = torch.rand(79, 17, 3, generator=g)
    fixed = torch.rand(51, 3, generator=g)
    hair, neck = torch.arange(11, -1, -1), torch.arange(36, 48)
    return HeadModel(
        template=template,
        shape_basis=0.01 * torch.randn(v, 3, SHAPES, generator=g),
        expression_basis=0.01 * torch.randn(v, 3, EXPRESSIONS, generator=g),
        pose_basis=0.002 * torch.randn(v, 3, 36, generator=g),
        joint_regressor=regressor / regressor.sum(1, keepdim=True),
        skin_weights=weights / weights.sum(1, keepdim=True),
        parents=PARENTS,
        faces=faces,
        uv_faces=faces,
        uv=uv,
        vertex_uv=head_model.largest_uv(faces, faces, uv, v),
        landmark_faces=torch.randint(0, len(faces), (51,), generator=g),
        landmark_weights=fixed / fixed.sum(-1, keepdim=True),
        contour_faces=torch.randint(0, len(faces), (79, 17), generator=g),
        contour_weights=spots / spots.sum(-1, keepdim=True),
        hair=hair,
        hair_edge=head_model.with_ring(hair, faces),
        neck=neck,
        neck_edge=head_model.with_ring(neck, faces),
        deforms_mask=head_model.mask_of(torch.cat((hair, neck[:-3])), v),
    )


def golden_arrays(shared: Path, name: str) -> dict[str, Tensor]:
    """One golden file, integers as int64."""
    arrays = np.load(shared / "parity" / "rome" / f"{name}.npz")
    return {
        key: torch.from_numpy(value if value.dtype.kind == "f" else value.astype(np.int64))
        for key, value in arrays.items()
    }


def golden_head(shared: Path) -> HeadModel:
    """The head of the golden data, with as many coefficients as their inputs have."""
    a = golden_arrays(shared, "00_model")
    uv = a["vt"] * torch.tensor([2.0, -2.0]) + torch.tensor([-1.0, 1.0])
    v = len(a["v_template"])
    movable = torch.cat((a["hair_list"], a["neck_list"]))
    return HeadModel(
        template=a["v_template"],
        shape_basis=a["shapedirs"][:, :, :20],
        expression_basis=a["shapedirs"][:, :, 300:310],
        pose_basis=a["posedirs"],
        joint_regressor=a["J_regressor"],
        skin_weights=a["weights"],
        parents=tuple(a["parents"].tolist()),
        faces=a["faces"],
        uv_faces=a["uvfaces"],
        uv=uv,
        vertex_uv=head_model.largest_uv(a["faces"], a["uvfaces"], uv, v),
        landmark_faces=a["static_lmk_faces_idx"],
        landmark_weights=a["static_lmk_bary_coords"],
        contour_faces=a["dynamic_lmk_faces_idx"],
        contour_weights=a["dynamic_lmk_bary_coords"],
        hair=a["hair_list"],
        hair_edge=head_model.with_ring(a["hair_list"], a["faces"]),
        neck=a["neck_list"],
        neck_edge=head_model.with_ring(a["neck_list"], a["faces"]),
        deforms_mask=head_model.mask_of(movable[~torch.isin(movable, a["frozen_list"])], v),
        source="the golden head",
    )
