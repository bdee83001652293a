"""The heads that a mesh file can be made of: a synthetic person, or the user's own licensed head."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mobile_avatar.models.rome.head_files import load_head
from mobile_avatar.models.rome.mesh_rig import Rig, rig_of_head
from mobile_avatar.models.rome.mesh_sheet import Look
from mobile_avatar.models.rome.synthetic_person import synthetic_person
from mobile_avatar.models.rome.synthetic_rig import EXPRESSION_NAMES, synthetic_head

FLAME_LICENSE = (
    "as granted with FLAME, DECA and ROME (Max Planck, Samsung): non-commercial scientific research only, and neither "
    "the head nor meshes made of it may be passed on"
)
PARTS = {
    "smile": ("smile", "cheek"),
    "pucker": ("pucker",),
    "brows up": ("brow",),
}
"""Looks of the synthetic head: the expressions whose names begin so."""
STRENGTH = 2.0  # coefficients, in standard deviations


def synthetic_mesh(number: int, texture_size: int) -> tuple[Rig, Mapping[str, Look]]:
    """A synthetic person that no training sees, and three looks."""
    person = synthetic_person(number, split=1, texture_size=texture_size)
    facts = {"license": "Apache-2.0", "head": "synthetic", "identity": str(number)}
    looks = {
        label: {name: STRENGTH for name in EXPRESSION_NAMES if name.startswith(beginnings)}
        for label, beginnings in PARTS.items()
    }
    rig = rig_of_head(synthetic_head(), person.shape, person.offsets, EXPRESSION_NAMES, person.texture, facts)
    return rig, looks


def licensed_mesh(flame: Path, folders: Sequence[Path]) -> tuple[Rig, Mapping[str, Look]]:
    """The average head of the user's FLAME files without hair or texture, and its first three expressions.

    Raises:
        BadInput: as `load_head`.
    """
    model = load_head(flame, folders)
    names = [f"expression_{i + 1:02d}" for i in range(model.expression_basis.shape[2])]
    shape = torch.zeros(model.shape_basis.shape[2])
    facts = {"license": FLAME_LICENSE, "head": "FLAME"}
    rig = rig_of_head(model, shape, torch.zeros_like(model.template), names, facts=facts)
    return rig, {name.replace("_", " "): {name: STRENGTH} for name in names[:3]}
