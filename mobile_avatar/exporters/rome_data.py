"""What the draw call of a ROME bundle reads, once per avatar: raw little-endian arrays, described in the manifest."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.errors import CheckFailed
from mobile_avatar.files import inside
from mobile_avatar.models.rome.avatar import RomeAvatar
from mobile_avatar.models.rome.feature_image import FRONT, feature_image

MEANINGS = {
    "texture": "neural texture, RGBA16F: channels 0 to 3, then 4 to 7; first row on top",
    "corners": "index buffer of GL_TRIANGLES; a smaller number wins where depths are equal",
    "uv": "attribute a_uv: place in the texture in [-1, 1], x right, y down",
    "neutral": "head space, y up, z to the viewer: the mesh with all codes at zero",
    "vertex": "which vertex of the head model each drawn vertex is; those along seams of the texture are doubled",
}


def write_draw(folder: Path, avatar: RomeAvatar) -> dict:
    """Write the files; returns `manifest["draw"]`."""
    mesh = avatar.mesh
    number = "<u2" if len(mesh.vertex) <= 2**16 else "<u4"
    texture = avatar.texture[0].unflatten(0, (2, 4)).permute(0, 2, 3, 1)
    arrays = {
        "texture": (texture, "<f2"),
        "corners": (mesh.corners, number),
        "uv": (mesh.uv, "<f4"),
        "neutral": (mesh.neutral + mesh.offsets, "<f4"),
        "vertex": (mesh.vertex, "<u4"),
    }
    draw: dict = {"vertices": len(mesh.vertex), "triangles": len(mesh.corners), "size": avatar.size, "depth": FRONT}
    for name, (values, kind) in arrays.items():
        array = values.numpy().astype(kind)
        path = f"{name}.{kind[1]}{8 * array.dtype.itemsize}"
        array.tofile(folder / path)
        row = {"file": path, "dtype": array.dtype.name, "shape": list(array.shape), "meaning": MEANINGS[name]}
        draw[name] = row
    return draw


@dataclass(frozen=True)
class Draw:
    """The draw call of a bundle on the host, from the bundle's own files."""

    corners: Tensor
    uv: Tensor
    texture: Tensor
    """(1, 8, H, W)."""
    size: int

    def features(self, positions: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Outputs of the mesh graph (1, w, 3) -> feature image (1, 12, S, S) in the numbers of half precision."""
        arrays = (torch.from_numpy(array) for array in (positions, normals))
        return half(feature_image(*arrays, self.corners, self.uv, self.texture, self.size).numpy())


def read_draw(folder: Path, manifest: dict) -> Draw:
    """The files behind `manifest["draw"]`; CheckFailed when one is damaged."""
    draw = manifest["draw"]

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        row = draw[name]
        path = inside(folder, row["file"])
        try:
            return np.fromfile(path, np.dtype(row["dtype"]).newbyteorder("<")).reshape(shape)
        except (OSError, ValueError, TypeError) as error:
            raise CheckFailed(f"{path} is missing or damaged; export the bundle again") from error

    config = manifest["avatar"]["config"]
    high, wide = draw["texture"]["shape"][1:3]
    corners = torch.from_numpy(read("corners", (config["triangles"], 3)).astype(np.int64))
    if corners.min() < 0 or corners.max() >= config["vertices"]:
        raise CheckFailed(f"{folder}/{draw['corners']['file']} numbers vertices that are not there; export it again")
    uv = torch.from_numpy(read("uv", (config["vertices"], 2)).astype(np.float32))
    texture = torch.from_numpy(read("texture", (2, high, wide, 4)).astype(np.float32))
    texture = texture.permute(0, 3, 1, 2).flatten(0, 1)[None].contiguous()
    return Draw(corners, uv, texture, config["renderer"]["image_size"])


def half(array: np.ndarray) -> np.ndarray:
    """Rounded to the numbers of half precision, in float32."""
    return array.astype(np.float16).astype(np.float32)
