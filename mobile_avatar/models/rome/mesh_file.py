"""A parametric head as a rigged glTF file that any 3D program opens.

The shape is fixed, everything that moves stays movable: joints with skin weights, one morph target per expression
coefficient, and the pose blend shapes of the jaw as further morph targets. Lengths and axes are those of the head
(FLAME's metres, y up, z to the viewer), which are also glTF's. What the format cannot say is in `extras`: how the
weights of the jaw's targets follow from its rotation, and how little the joints move with the expression.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.mesh_motion import add_jaw_motion
from mobile_avatar.models.rome.parametric import JAW
from mobile_avatar.rendering.glb import TRIANGLES, VERTICES, GlbWriter
from mobile_avatar.rendering.mesh_normals import vertex_normals

INFLUENCES = 4  # joints per vertex that every viewer understands
PLAIN = (0.76, 0.60, 0.52, 1.0)  # linear-light colour of a head without texture
ROUGHNESS = 0.75
JOINT_NAMES = ("root", "neck", "jaw")
LINEAR, CLAMP = 9729, 33071
TRIANGLE_LIST = 4
FIRST_JOINT = 1  # its node; the mesh has the one before


@dataclass(frozen=True)
class MeshContents:
    """What was written, for people and tests."""

    vertices: int
    """Of the file: a vertex of the head counts once per place in the texture."""
    triangles: int
    joints: tuple[str, ...]
    expressions: tuple[str, ...]
    correctives: tuple[str, ...]
    """Morph targets that belong to the rotation of the jaw."""
    dropped_weight: float
    """The largest sum of skin weights of one vertex that did not fit into four influences; 0 for FLAME-like heads."""


@dataclass(frozen=True)
class MeshSource:
    """A head and all that a file of it needs.

    Raises:
        BadInput: arrays that do not fit the head.
    """

    model: HeadModel
    shape: Tensor
    """(s,) coefficients, which become part of the geometry."""
    offsets: Tensor
    """(v, 3) added to the rest pose: hair, neck and shoulders. The joints do not follow them."""
    expression_names: Sequence[str]
    """One per coefficient."""
    texture: np.ndarray | None = None
    """(h, w, 3) uint8 sRGB, laid out by the head's uv; None: one plain colour."""
    facts: dict[str, str] = field(default_factory=dict)
    """Into the file's metadata; `license` also becomes the copyright note."""

    def __post_init__(self) -> None:
        model = self.model
        wanted = {
            "shape coefficients": (self.shape.shape, model.shape_basis.shape[2:]),
            "offsets": (self.offsets.shape, model.template.shape),
            "expression names": ((len(self.expression_names),), model.expression_basis.shape[2:]),
        }
        for what, (found, expected) in wanted.items():
            if tuple(found) != tuple(expected):
                raise BadInput(f"{model.source} takes {what} of shape {tuple(expected)}, not {tuple(found)}")
        for what, values in (("shape coefficients", self.shape), ("offsets", self.offsets)):
            if not values.isfinite().all():
                raise BadInput(f"{what} for {model.source} hold NaN or infinity")


@torch.no_grad()
def save_mesh(source: MeshSource, path: Path) -> MeshContents:
    """Write a head as a binary glTF file (.glb); an existing file is replaced in one step.

    The file computes what `ParametricHead` computes, with the offsets added before the skinning: for the weight
    (R - I)[row, column] of each corrective, and with the joints moved by their `joint_offsets`. Viewers do neither by
    themselves: the latter is worth less than 0.1 mm of the default head, but without the correctives the inside of an
    open mouth stays at the lips. The animation in the file has them right.
    """
    model = source.model
    rest = model.template + model.shape_basis @ source.shape
    joints = model.joint_regressor @ rest
    vertex, uv, triangles = split_seams(model)
    surface = _Surface(rest + source.offsets, model.faces, vertex)
    influences, weights, dropped = strongest(model.skin_weights[vertex])
    names = joint_names(joints)

    writer = GlbWriter()
    correctives = _correctives(model)
    moves = [model.expression_basis[..., i] for i in range(model.expression_basis.shape[2])]
    moves += [model.pose_basis[..., column] for column in correctives.values()]
    targets = [
        {"POSITION": writer.array(move, VERTICES), "NORMAL": writer.array(bend, VERTICES)}
        for move, bend in map(surface.morph, moves)
    ]
    attributes = {
        "POSITION": writer.array(surface.points, VERTICES),
        "NORMAL": writer.array(surface.normals, VERTICES),
        "TEXCOORD_0": writer.array(uv, VERTICES),
        "JOINTS_0": writer.array(influences, VERTICES),
        "WEIGHTS_0": writer.array(weights, VERTICES),
    }
    kind = np.uint16 if len(vertex) < 2**16 else np.uint32
    indices = writer.array(triangles.reshape(-1).astype(kind), TRIANGLES)
    target_names = (*source.expression_names, *correctives)
    _add_mesh(writer, attributes, indices, targets, target_names, correctives)
    _add_skin(writer, model, joints, names)
    add_jaw_motion(writer, FIRST_JOINT + JAW, target_names, tuple(correctives))
    _add_material(writer, source.texture)
    _add_facts(writer, source.facts)
    writer.save(path)
    return MeshContents(
        len(vertex), len(triangles), names, tuple(source.expression_names), tuple(correctives), float(dropped)
    )


def split_seams(model: HeadModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The head with one place in the texture per vertex, as graphics cards want it.

    Returns:
        (k,) int64 which vertex of the head each is, (k, 2) float32 its place with (0, 0) at the top left of the
        picture, and (t, 3) int64 triangles.
    """
    pairs = torch.stack((model.faces.reshape(-1), model.uv_faces.reshape(-1)), dim=1)
    unique, corner = pairs.unique(dim=0, return_inverse=True)
    return unique[:, 0].numpy(), ((model.uv[unique[:, 1]] + 1) / 2).numpy(), corner.view(-1, 3).numpy()


def strongest(weights: Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """Skin weights (k, j) as the strongest joints (k, 4) uint8, their weights (k, 4) with sum 1, and the largest sum
    that a vertex lost."""
    count = min(INFLUENCES, weights.shape[1])
    kept, joint = weights.double().clamp(min=0).topk(count, dim=1)
    total = weights.double().clamp(min=0).sum(1, keepdim=True)
    dropped = float((1 - kept.sum(1, keepdim=True) / total).max())
    kept = torch.nn.functional.pad(kept / kept.sum(1, keepdim=True), (0, INFLUENCES - count)).float()
    # Unused influences must name a joint all the same: the first.
    joint = torch.nn.functional.pad(joint, (0, INFLUENCES - count)) * (kept > 0)
    return joint.to(torch.uint8).numpy(), kept.numpy(), max(dropped, 0.0)


def joint_names(joints: Tensor) -> tuple[str, ...]:
    """Names for joints (j, 3): root, neck, jaw, and the eyes by the person's own side."""
    rest = [f"eye_{'left' if x > 0 else 'right'}" for x in joints[len(JOINT_NAMES) :, 0].tolist()]
    unique = len(set(rest)) == len(rest)
    return (*JOINT_NAMES, *(rest if unique else (f"joint_{i}" for i in range(len(JOINT_NAMES), len(joints)))))


class _Surface:
    """The mesh at rest with split seams, and what a displacement does to it."""

    def __init__(self, points: Tensor, faces: Tensor, vertex: np.ndarray) -> None:
        self._whole, self._faces, self._vertex = points, faces, vertex
        self._normals = vertex_normals(points[None], faces)[0]
        self.points, self.normals = self._split(points), self._split(self._normals)

    def morph(self, move: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Displacements (v, 3) and what they add to the normals at weight 1, (k, 3) each."""
        bent = vertex_normals((self._whole + move)[None], self._faces)[0]
        return self._split(move), self._split(bent - self._normals)

    def _split(self, values: Tensor) -> np.ndarray:
        return np.ascontiguousarray(values.numpy()[self._vertex])


def _correctives(model: HeadModel) -> dict[str, int]:
    """Name -> column of the pose basis, of the jaw's columns that move anything."""
    first = 9 * (JAW - 1)
    moving = model.pose_basis.abs().amax((0, 1))
    names = {f"jaw_corrective_r{i // 3}{i % 3}": first + i for i in range(9)}
    return {name: column for name, column in names.items() if moving[column] > 0}


def _add_mesh(
    writer: GlbWriter,
    attributes: dict[str, int],
    indices: int,
    targets: list[dict[str, int]],
    names: Sequence[str],
    correctives: dict[str, int],
) -> None:
    from pygltflib import Attributes, Mesh, Node, Primitive, Scene

    rules = {name: {"joint": "jaw", "row": int(name[-2]), "column": int(name[-1])} for name in correctives}
    primitive = Primitive(
        attributes=Attributes(**attributes), indices=indices, material=0, mode=TRIANGLE_LIST, targets=targets
    )
    extras = {
        "targetNames": list(names),  # where viewers look for them
        "jaw_correctives": rules,
        "jaw_corrective_weight": "entry [row, column] of the joint's rotation matrix minus the identity",
    }
    document = writer.document
    document.meshes.append(Mesh(name="head", primitives=[primitive], weights=[0.0] * len(names), extras=extras))
    document.nodes.append(Node(name="head", mesh=0, skin=0))
    document.scenes.append(Scene(nodes=[0, FIRST_JOINT]))
    document.scene = 0


def _add_skin(writer: GlbWriter, model: HeadModel, joints: Tensor, names: Sequence[str]) -> None:
    """Joints as nodes, each placed relative to its parent, without rotation in the rest pose."""
    from pygltflib import Node, Skin

    document = writer.document
    for number, (name, parent) in enumerate(zip(names, model.parents, strict=True)):
        place = joints[number] - (joints[parent] if number else 0)
        children = [FIRST_JOINT + child for child, its in enumerate(model.parents) if its == number]
        document.nodes.append(Node(name=name, translation=place.tolist(), children=children))
    inverse = np.tile(np.eye(4, dtype=np.float32), (len(joints), 1, 1))
    inverse[:, :3, 3] = -joints.numpy()
    drift = torch.einsum("jv,vce->jec", model.joint_regressor, model.expression_basis)
    extras = {
        "joint_offsets": [[[round(x, 9) for x in row] for row in joint] for joint in drift.tolist()],
        "joint_offsets_meaning": "[joint][expression][axis]: movement of the rest joint per unit of the expression",
    }
    document.skins.append(
        Skin(
            name="head",
            joints=list(range(FIRST_JOINT, FIRST_JOINT + len(joints))),
            skeleton=FIRST_JOINT,
            inverseBindMatrices=writer.array(inverse),
            extras=extras,
        )
    )


def _add_material(writer: GlbWriter, texture: np.ndarray | None) -> None:
    from PIL import Image
    from pygltflib import Material, PbrMetallicRoughness, Sampler, Texture, TextureInfo

    document = writer.document
    look = PbrMetallicRoughness(metallicFactor=0.0, roughnessFactor=ROUGHNESS)
    if texture is None:
        look.baseColorFactor = list(PLAIN)
    else:
        stream = io.BytesIO()
        Image.fromarray(texture).save(stream, format="PNG")
        image = writer.png(stream.getvalue(), "texture")
        document.samplers.append(Sampler(magFilter=LINEAR, minFilter=LINEAR, wrapS=CLAMP, wrapT=CLAMP))
        document.textures.append(Texture(source=image, sampler=0))
        look.baseColorTexture = TextureInfo(index=0)
    # The shoulders end open, and so do the ears.
    document.materials.append(Material(name="head", pbrMetallicRoughness=look, doubleSided=True))


def _add_facts(writer: GlbWriter, facts: dict[str, str]) -> None:
    asset = writer.document.asset
    asset.generator = "mobile-avatar"
    asset.copyright = facts.get("license")
    asset.extras = facts | {"synthetic_media": True}
