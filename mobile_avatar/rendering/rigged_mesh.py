"""A rigged glTF file read back and moved, with the format's own rules and nothing of the model that wrote it."""

import io
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

import numpy as np

from mobile_avatar.rendering.glb import COMPONENT, TYPE

NUMBERS = {code: np.dtype(name) for name, code in COMPONENT.items()}
SHAPES = {kind: shape for shape, kind in TYPE.items()}


@dataclass(frozen=True)
class RiggedMesh:
    """One mesh with k vertices, m morph targets and j joints; floats are float32."""

    points: np.ndarray
    """(k, 3) at rest."""
    normals: np.ndarray
    """(k, 3)."""
    uv: np.ndarray
    """(k, 2), (0, 0) at the top left of the texture."""
    triangles: np.ndarray
    """(t, 3) int64."""
    influences: np.ndarray
    """(k, 4 or a multiple) numbers of joints."""
    weights: np.ndarray
    """Theirs."""
    moves: np.ndarray
    """(m, k, 3) of the points at weight 1."""
    bends: np.ndarray
    """(m, k, 3) of the normals."""
    targets: tuple[str, ...]
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    """Of each joint, -1 for the root."""
    places: np.ndarray
    """(j, 3) relative to the parent."""
    inverse_bind: np.ndarray
    """(j, 4, 4) rows first."""
    texture: np.ndarray | None
    """(h, w, 3) uint8."""
    colour: tuple[float, ...]
    """Factor of the texture, or the colour without one: linear RGB."""
    extras: dict
    """Of the file, the mesh and the skin, under `asset`, `mesh` and `skin`."""

    def posed(
        self, weights: np.ndarray, rotations: np.ndarray, drift: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Points and unit normals (k, 3) in a pose.

        Args:
            weights: (m,) of the morph targets.
            rotations: (j, 3, 3), relative to the parent joint.
            drift: (j, 3) by which the rest joints have moved; viewers know of no such thing.
        """
        points = self.points + np.tensordot(weights, self.moves, 1)
        normals = self.normals + np.tensordot(weights, self.bends, 1)
        drift = np.zeros_like(self.places) if drift is None else drift
        placed: list[np.ndarray] = []
        for joint, parent in enumerate(self.parents):
            local = np.eye(4)
            local[:3, :3] = rotations[joint]
            local[:3, 3] = self.places[joint] + drift[joint] - (drift[parent] if parent >= 0 else 0)
            placed.append(placed[parent] @ local if parent >= 0 else local)
        inverse = self.inverse_bind.astype(np.float64)
        inverse[:, :3, 3] -= drift
        blended = np.einsum("ki,kiab->kab", self.weights, (np.stack(placed) @ inverse)[self.influences])
        turned = np.einsum("kab,kb->ka", blended[:, :3, :3], normals)
        length = np.linalg.norm(turned, axis=1, keepdims=True).clip(min=1e-12)
        return np.einsum("kab,kb->ka", blended[:, :3, :3], points) + blended[:, :3, 3], turned / length


def read_glb(path: Path) -> RiggedMesh:
    """The first mesh and skin of a binary glTF file whose arrays all lie in it."""
    from PIL import Image
    from pygltflib import GLTF2

    file = GLTF2().load(str(path))
    data = file.binary_blob()

    def view(number: int) -> bytes:
        place = file.bufferViews[number]
        return data[place.byteOffset : place.byteOffset + place.byteLength]

    def array(number: int) -> np.ndarray:
        accessor = file.accessors[number]
        shape = SHAPES[accessor.type]
        values = np.frombuffer(view(accessor.bufferView), NUMBERS[accessor.componentType])
        values = values[: accessor.count * int(np.prod(shape))].reshape(accessor.count, *shape)
        return values.transpose(0, 2, 1) if len(shape) == 2 else values

    mesh, skin = file.meshes[0], file.skins[0]
    primitive = mesh.primitives[0]
    own = primitive.attributes

    def joined(name: str) -> np.ndarray:
        numbers = (getattr(own, f"{name}_{place}", None) for place in count())
        return np.concatenate([array(number) for number in takewhile(lambda n: n is not None, numbers)], axis=1)

    nodes = [file.nodes[number] for number in skin.joints]
    owner = {child: place for place, node in enumerate(nodes) for child in node.children or []}
    look = file.materials[primitive.material].pbrMetallicRoughness
    texture = None
    if look.baseColorTexture is not None:
        image = file.images[file.textures[look.baseColorTexture.index].source]
        texture = np.asarray(Image.open(io.BytesIO(view(image.bufferView))).convert("RGB"))
    return RiggedMesh(
        points=array(own.POSITION),
        normals=array(own.NORMAL),
        uv=array(own.TEXCOORD_0),
        triangles=array(primitive.indices).astype(np.int64).reshape(-1, 3),
        influences=joined("JOINTS").astype(np.int64),
        weights=joined("WEIGHTS"),
        moves=np.stack([array(target["POSITION"]) for target in primitive.targets]),
        bends=np.stack([array(target["NORMAL"]) for target in primitive.targets]),
        targets=tuple(mesh.extras["targetNames"]),
        joints=tuple(node.name for node in nodes),
        parents=tuple(owner.get(number, -1) for number in skin.joints),
        places=np.array([node.translation for node in nodes]),
        inverse_bind=array(skin.inverseBindMatrices),
        texture=texture,
        colour=tuple((look.baseColorFactor or (1.0,) * 4)[:3]),
        extras={"asset": file.asset.extras, "mesh": mesh.extras, "skin": skin.extras},
    )
