"""What a mesh file can be made of: a synthetic person, the user's own licensed head, or a ROME avatar."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mobile_avatar.avatar import UNKNOWN_LICENSE, Avatar
from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.avatar import RomeAvatar, is_rome_avatar
from mobile_avatar.models.rome.avatar_colours import avatar_colours
from mobile_avatar.models.rome.head_files import load_head
from mobile_avatar.models.rome.mesh_rig import Rig, rig_of_avatar, rig_of_head
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
    rig = rig_of_head(synthetic_head(), person.shape, person.offsets, EXPRESSION_NAMES, person.texture, facts)
    return rig, looks(EXPRESSION_NAMES)


def licensed_mesh(flame: Path, folders: Sequence[Path]) -> tuple[Rig, Mapping[str, Look]]:
    """The average head of the user's FLAME files without hair or texture, and its first three expressions.

    Raises:
        BadInput: as `load_head`.
    """
    model = load_head(flame, folders)
    names = expression_names(model.expression_basis.shape[2])
    shape = torch.zeros(model.shape_basis.shape[2])
    facts = {"license": FLAME_LICENSE, "head": "FLAME"}
    rig = rig_of_head(model, shape, torch.zeros_like(model.template), names, facts=facts)
    return rig, looks(names)


def avatar_mesh(path: Path, texture_size: int) -> tuple[Rig, Mapping[str, Look]]:
    """The person of a ROME avatar, coloured by what the avatar's renderings show, and three looks.

    Raises:
        BadInput: a damaged file, or an avatar without a mesh.
    """
    if not is_rome_avatar(path):
        Avatar.load(path)
        raise BadInput(
            f"{path} is a bi-layer avatar, a picture that a network warps, and has no mesh; leave it out and choose a "
            "head with --identity or --flame"
        )
    avatar = RomeAvatar.load(path)
    avatar.facts.setdefault("license", UNKNOWN_LICENSE)
    names = expression_names(avatar.mesh.expressions)
    return rig_of_avatar(avatar, names, avatar_colours(avatar, texture_size), str(path)), looks(names)


def expression_names(count: int) -> Sequence[str]:
    """Names of expressions: those of the default head by their number, which FLAME's never have, else numbers."""
    return EXPRESSION_NAMES if count == len(EXPRESSION_NAMES) else [f"expression_{i + 1:02d}" for i in range(count)]


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Three expressions to show: compositions of the default head's, else the first three."""
    if names is not EXPRESSION_NAMES:
        return {name.replace("_", " "): {name: STRENGTH} for name in names[:3]}
    return {
        label: {name: STRENGTH for name in names if name.startswith(beginnings)} for label, beginnings in PARTS.items()
    }
