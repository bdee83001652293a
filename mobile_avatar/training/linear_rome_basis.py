"""The linear basis of hair and shoulders: principal components of the offsets that a full model gives to many people.

Each region has its own components, of its own vertices alone, so hair and shoulders can be changed apart. The mean is
kept beside them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.linear_basis import LinearBasis

NECK_SHARE = 6  # one component in six is of neck and shoulders: 50 and 10


@dataclass(frozen=True)
class Region:
    """Vertices that are moved together."""

    name: str
    vertices: Tensor
    """(k,) int64."""
    components: int


def regions(head: HeadModel, components: int) -> tuple[Region, Region]:
    """Hair, then neck and shoulders: what may move of each, and how many components it gets."""
    movable = head.deforms_mask[:, 0] > 0
    hair, neck = head.hair[movable[head.hair]], head.neck[movable[head.neck]]
    of_neck = components // NECK_SHARE
    return Region("hair", hair, components - of_neck), Region("neck", neck, of_neck)


def fit_basis(offsets: Tensor, parts: Iterable[Region], config: RomeConfig) -> LinearBasis:
    """Orthonormal components with the largest variance first, per region in the given order, and the mean.

    Args:
        offsets: (m, v, 3) of m people.
        parts: disjoint regions with `config.n_basis` components in all.

    Raises:
        BadInput: too few people for so many components.
    """
    basis = LinearBasis(config)
    column = 0
    for part in parts:
        own = offsets[:, part.vertices].double()
        if len(own) <= part.components:
            raise BadInput(f"{len(own)} people do not give {part.components} components of {part.name}; use more")
        mean = own.mean(0)
        _, _, directions = torch.linalg.svd((own - mean).flatten(1), full_matrices=False)
        if part.components > len(directions):
            raise BadInput(f"{part.name} has {len(directions)} numbers, fewer than {part.components} components")
        rows = (3 * part.vertices[:, None] + torch.arange(3)).flatten()
        columns = torch.arange(column, column + part.components)
        basis.basis[rows[:, None], columns] = directions[: part.components].T.float()
        basis.mean[part.vertices] = mean.float()
        column += part.components
    return basis


def explained_variance(basis: LinearBasis, offsets: Tensor, parts: Iterable[Region]) -> dict[str, float]:
    """Share of the offsets' variance about the basis' mean that its components give back, by region and for `all`.

    Args:
        offsets: (m, v, 3); of people who are not behind the basis it is a fair number.
    """
    missed = (offsets - basis(basis.coefficients(offsets))).square().sum((0, 2))
    varied = (offsets - basis.mean).square().sum((0, 2))
    chosen = {part.name: part.vertices for part in parts}
    chosen["all"] = torch.cat(list(chosen.values()))
    tiny = torch.finfo(varied.dtype).tiny
    return {name: float(1 - missed[v].sum() / varied[v].sum().clamp(min=tiny)) for name, v in chosen.items()}
