"""What a mesh file holds, whatever it is made of: a parametric head with coefficients, or the avatar of one person."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.avatar import CODES, RomeAvatar
from mobile_avatar.models.rome.avatar_mesh import TURN, render_vertices
from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.parametric import JAW, ParametricHead, PosedHead, rotation_matrices

JOINT_NAMES = ("root", "neck", "jaw")
STILL_CAMERA = (1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Rig:
    """A mesh of w drawn vertices (one per vertex and place in the texture), its joints and what moves it.

    Lengths in metres, x to the right of a frontal picture, y up, z to the viewer.
    """

    vertex: Tensor
    """(w,) int64: drawn vertices of equal number are one vertex and share a normal."""
    corners: Tensor
    """(t, 3) int64 triangles."""
    uv: Tensor
    """(w, 2) in [-1, 1], y down."""
    rest: Tensor
    """(w, 3) the person without expression, without offsets."""
    offsets: Tensor
    """(w, 3) of hair, neck and shoulders; the joints do not follow them."""
    blend: Tensor
    """(e, w, 3) movement per unit of each expression."""
    expression_names: tuple[str, ...]
    correctives: Tensor
    """(9, w, 3) movement per entry of the jaw's rotation minus the identity, row by row."""
    skin: Tensor
    """(w, j)."""
    joints: Tensor
    """(j, 3)."""
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    drift: Tensor
    """(e, j, 3) movement of the joints per unit of each expression."""
    posed: Callable[[Tensor, Tensor], PosedHead]
    """Expression (n, e) and pose (n, 6) -> drawn vertices without offsets: what the file has to equal."""
    source: str
    """How messages call it."""
    texture: np.ndarray | None = None
    """(h, w, 3) uint8 sRGB; None: one plain colour."""
    facts: dict[str, str] = field(default_factory=dict)
    """Into the file's metadata; `license` also becomes the copyright note."""

    @property
    def jaw(self) -> int:
        """Number of the jaw's joint."""
        return self.joint_names.index("jaw")

    @property
    def jaw_share(self) -> Tensor:
        """(w,) how much a vertex follows the jaw, itself or by a joint below it."""
        below = [joint for joint in range(len(self.parents)) if self.jaw in _chain(self.parents, joint)]
        return self.skin[:, below].sum(1)


def _chain(parents: Sequence[int], joint: int) -> list[int]:
    """A joint and all above it."""
    return [] if joint < 0 else [joint, *_chain(parents, parents[joint])]


@torch.no_grad()
def rig_of_head(
    model: HeadModel,
    shape: Tensor,
    offsets: Tensor,
    expression_names: Sequence[str],
    texture: np.ndarray | None = None,
    facts: dict[str, str] | None = None,
) -> Rig:
    """A head with fixed shape.

    Args:
        shape: (s,) coefficients. offsets: (v, 3). expression_names: one per coefficient.
        texture: (h, w, 3) uint8 sRGB, laid out by the head's uv. facts: for the metadata.

    Raises:
        BadInput: arrays that do not fit the head or are not finite.
    """
    wanted = {
        "shape coefficients": (shape.shape, model.shape_basis.shape[2:]),
        "offsets": (offsets.shape, model.template.shape),
        "expression names": ((len(expression_names),), model.expression_basis.shape[2:]),
    }
    for what, (found, expected) in wanted.items():
        if tuple(found) != tuple(expected):
            raise BadInput(f"{model.source} takes {what} of shape {tuple(expected)}, not {tuple(found)}")
    for what, values in (("shape coefficients", shape), ("offsets", offsets)):
        if not values.isfinite().all():
            raise BadInput(f"{what} for {model.source} hold NaN or infinity")
    vertex, place, corners = render_vertices(model.faces, model.uv_faces)
    neutral = model.template + model.shape_basis @ shape
    joints = model.joint_regressor @ neutral
    first = TURN * (JAW - 1)
    head = ParametricHead(model)

    def posed(expression: Tensor, pose: Tensor) -> PosedHead:
        whole = head(shape.expand(len(expression), -1), expression, pose)
        return whole._replace(vertices=whole.vertices[:, vertex])

    return Rig(
        vertex=vertex,
        corners=corners,
        uv=model.uv[place],
        rest=neutral[vertex],
        offsets=offsets[vertex],
        blend=model.expression_basis[vertex].permute(2, 0, 1),
        expression_names=tuple(expression_names),
        correctives=model.pose_basis[vertex, :, first : first + TURN].permute(2, 0, 1),
        skin=model.skin_weights[vertex],
        joints=joints,
        joint_names=_joint_names(joints),
        parents=model.parents,
        drift=torch.einsum("jv,vce->ejc", model.joint_regressor, model.expression_basis),
        posed=posed,
        source=model.source,
        texture=texture,
        facts=facts or {},
    )


@torch.no_grad()
def rig_of_avatar(avatar: RomeAvatar, expression_names: Sequence[str], texture: np.ndarray, source: str) -> Rig:
    """The mesh of a ROME avatar, which has two joints: the root, that everything follows, and the jaw.

    Args:
        expression_names: one per coefficient. texture: (h, w, 3) uint8 sRGB by the avatar's uv. source: for messages.
    """
    mesh = avatar.mesh
    w, e = len(mesh.vertex), mesh.expressions
    blend = mesh.blend.view(w, 3, e + TURN).permute(2, 0, 1)
    drift = mesh.joint_blend.T.reshape(e, 2, 3)

    def posed(expression: Tensor, pose: Tensor) -> PosedHead:
        # Head space is what a camera sees that neither turns nor moves; its y and z run the other way.
        still = expression.new_zeros(len(expression), CODES)
        still[:, 3:6], still[:, 6:] = pose[:, 3:], expression.new_tensor(STILL_CAMERA)
        codes = torch.cat((expression, still), dim=1)
        seen = torch.cat([mesh(one[None])[0] for one in codes]) * expression.new_tensor([1.0, -1.0, -1.0])
        root = mesh.joints[0] + expression @ drift[:, 0]
        return PosedHead(seen - mesh.offsets, root, rotation_matrices(pose[:, :3]))

    return Rig(
        vertex=mesh.vertex.long(),
        corners=mesh.corners.long(),
        uv=mesh.uv,
        rest=mesh.neutral,
        offsets=mesh.offsets,
        blend=blend[:e],
        expression_names=tuple(expression_names),
        correctives=blend[e:],
        skin=torch.cat((1 - mesh.jaw_weight, mesh.jaw_weight), dim=1),
        joints=mesh.joints,
        joint_names=("root", "jaw"),
        parents=(-1, 0),
        drift=drift,
        posed=posed,
        source=source,
        texture=texture,
        facts={name: value for name, value in avatar.facts.items() if isinstance(value, str)},
    )


def _joint_names(joints: Tensor) -> tuple[str, ...]:
    """Names for joints (j, 3): root, neck, jaw, and the eyes by the person's own side."""
    rest = [f"eye_{'left' if x > 0 else 'right'}" for x in joints[len(JOINT_NAMES) :, 0].tolist()]
    if len(set(rest)) < len(rest):
        rest = [f"joint_{number}" for number in range(len(JOINT_NAMES), len(joints))]
    return (*JOINT_NAMES, *rest)
