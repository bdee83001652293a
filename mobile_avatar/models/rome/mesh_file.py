"""A parametric head as a rigged glTF file that any 3D program opens.

The shape is fixed, everything that moves stays movable: joints with skin weights, one morph target per expression
coefficient, and the pose blend shapes of the jaw as further morph targets. Lengths and axes are those of the head
(FLAME's metres, y up, z to the viewer), which are also glTF's. What the format cannot say is in `extras`: how the
weights of the jaw's targets follow from its rotation, and how little the joints move with the expression.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.models.rome.mesh_motion import add_jaw_motion
from mobile_avatar.models.rome.mesh_rig import Rig
from mobile_avatar.rendering.glb import TRIANGLES, VERTICES, GlbWriter
from mobile_avatar.rendering.mesh_normals import vertex_normals

INFLUENCES = 4  # joints per vertex in a set
PLAIN = (0.76, 0.60, 0.52, 1.0)  # linear-light colour of a head without texture
ROUGHNESS = 0.75
CORRECTIVE = "jaw_corrective_r"  # and row and column
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
    influence_sets: int
    """Of four joints per vertex; viewers that read the first set only lose the weakest influences of more."""


@torch.no_grad()
def save_mesh(rig: Rig, path: Path) -> MeshContents:
    """Write a rig as a binary glTF file (.glb); an existing file is replaced in one step.

    The file computes what `ParametricHead` computes, with the offsets added before the skinning: for the weight
    (R - I)[row, column] of each corrective, and with the joints moved by their `joint_offsets`. Viewers do neither by
    themselves: the latter is worth less than 0.1 mm of the default head, but without the correctives the inside of an
    open mouth stays at the lips. The animation in the file has them right.
    """
    surface = _Surface(rig.rest + rig.offsets, rig.corners, rig.vertex)
    writer = GlbWriter()
    correctives = _correctives(rig.correctives)
    moves = [*rig.blend, *(rig.correctives[number] for number in correctives.values())]
    targets = [
        {"POSITION": writer.array(move, VERTICES), "NORMAL": writer.array(bend, VERTICES)}
        for move, bend in map(surface.morph, moves)
    ]
    attributes = {
        "POSITION": writer.array(surface.points.numpy(), VERTICES),
        "NORMAL": writer.array(surface.normals.numpy(), VERTICES),
        "TEXCOORD_0": writer.array(((rig.uv + 1) / 2).numpy(), VERTICES),
    }
    sets = influence_sets(rig.skin)
    for number, (influences, weights) in enumerate(sets):
        attributes[f"JOINTS_{number}"] = writer.array(np.ascontiguousarray(influences), VERTICES)
        attributes[f"WEIGHTS_{number}"] = writer.array(np.ascontiguousarray(weights), VERTICES)
    kind = np.uint16 if len(rig.vertex) < 2**16 else np.uint32
    indices = writer.array(rig.corners.reshape(-1).numpy().astype(kind), TRIANGLES)
    target_names = (*rig.expression_names, *correctives)
    _add_mesh(writer, attributes, indices, targets, target_names, correctives)
    _add_skin(writer, rig)
    add_jaw_motion(writer, FIRST_JOINT + rig.jaw, target_names, tuple(correctives))
    _add_material(writer, rig.texture)
    _add_facts(writer, rig.facts)
    writer.save(path)
    return MeshContents(
        len(rig.vertex), len(rig.corners), rig.joint_names, rig.expression_names, tuple(correctives), len(sets)
    )


def influence_sets(weights: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Skin weights (w, j) as joints (w, 4) uint8 and weights (w, 4), strongest first, in as many sets as needed.

    One set is what every viewer understands. All sets together sum to 1.
    """
    exact = weights.double().clamp(min=0)
    exact = exact / exact.sum(1, keepdim=True)
    sets = -(-int((exact > 0).sum(1).max()) // INFLUENCES)
    padding = (0, max(0, sets * INFLUENCES - exact.shape[1]))
    kept, joint = torch.nn.functional.pad(exact, padding).topk(sets * INFLUENCES, dim=1)
    # Unused influences must name a joint all the same: the first.
    joint = (joint * (kept > 0)).to(torch.uint8)
    return [(j.numpy(), k.float().numpy()) for j, k in zip(joint.split(4, 1), kept.split(4, 1), strict=True)]


class _Surface:
    """The mesh at rest, and what a displacement does to it."""

    def __init__(self, points: Tensor, corners: Tensor, vertex: Tensor) -> None:
        self.points, self._vertex = points, vertex
        self._faces = vertex[corners]
        self.normals = self._normals(points)

    def morph(self, move: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Displacements (w, 3) and what they add to the normals at weight 1, (w, 3) each."""
        return move.contiguous().numpy(), (self._normals(self.points + move) - self.normals).numpy()

    def _normals(self, points: Tensor) -> Tensor:
        """(w, 3), across the seams of the texture."""
        whole = points.new_zeros(int(self._vertex.max()) + 1, 3)
        whole[self._vertex] = points
        return vertex_normals(whole[None], self._faces)[0][self._vertex]


def _correctives(moves: Tensor) -> dict[str, int]:
    """Name -> number of the jaw's correctives (9, w, 3) that move anything."""
    moving = moves.abs().amax((1, 2)) > 0
    return {f"{CORRECTIVE}{i // 3}{i % 3}": i for i in range(len(moves)) if moving[i]}


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


def _add_skin(writer: GlbWriter, rig: Rig) -> None:
    """Joints as nodes, each placed relative to its parent, without rotation in the rest pose."""
    from pygltflib import Node, Skin

    document = writer.document
    for number, (name, parent) in enumerate(zip(rig.joint_names, rig.parents, strict=True)):
        place = rig.joints[number] - (rig.joints[parent] if number else 0)
        children = [FIRST_JOINT + child for child, its in enumerate(rig.parents) if its == number]
        document.nodes.append(Node(name=name, translation=place.tolist(), children=children))
    inverse = np.tile(np.eye(4, dtype=np.float32), (len(rig.joints), 1, 1))
    inverse[:, :3, 3] = -rig.joints.numpy()
    extras = {
        "joint_offsets": [[[round(x, 9) for x in joint] for joint in row] for row in rig.drift.tolist()],
        "joint_offsets_meaning": "[expression][joint][axis]: movement of the rest joint per unit of the expression",
    }
    document.skins.append(
        Skin(
            name="head",
            joints=list(range(FIRST_JOINT, FIRST_JOINT + len(rig.joints))),
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
