"""The user's own FLAME model with the data files of DECA and ROME, read into a `HeadModel`.

None of these files may be shipped: the user gets them from their authors, under their licences. Nothing in them is
executed, and everything is checked before it is believed.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.errors import BadInput, first_line
from mobile_avatar.models.rome.head_model import EXPRESSION_COUNT, SHAPE_COUNT, HeadModel, largest_uv, mask_of
from mobile_avatar.models.rome.restricted_pickle import read_bytes, read_object_array, read_pickle

MIB = 2**20
FLAME_LIMIT, FILE_LIMIT = 256 * MIB, 16 * MIB
FIRST_EXPRESSION = 300  # column of FLAME's `shapedirs`
FLAME_ARRAYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
FLAME_EXPECTED = "FLAME's generic_model.pkl, or an .npz with its arrays"
LANDMARKS, TEXTURE_MESH = "landmark_embedding.npy", "head_template.obj"
DECA, ROME = "DECA's data folder", "ROME's data folder"
BASIS_TOLERANCE = 1e-3  # of U^T U = I


@dataclass(frozen=True)
class Folders:
    """Where to look for a file, in this order."""

    folders: tuple[Path, ...]

    def find(self, name: str, owner: str) -> Path:
        """The first folder's file of that name; BadInput says whose it is."""
        for folder in self.folders:
            if (folder / name).is_file():
                return folder / name
        looked = ", ".join(str(folder) for folder in self.folders) or "no folder"
        raise BadInput(f"{name} is not in {looked}; copy it there from {owner}")


def load_head(
    flame: Path,
    folders: Sequence[Path],
    shape_count: int = SHAPE_COUNT,
    expression_count: int = EXPRESSION_COUNT,
) -> HeadModel:
    """A licensed head from the files of its authors.

    Args:
        flame: FLAME's `generic_model.pkl`, or an `.npz` with the same arrays (`v_template`, `shapedirs`, `posedirs`,
            `J_regressor`, `weights`, `kintree_table`).
        folders: where the files of DECA (`landmark_embedding.npy`, `head_template.obj`) and of ROME (`faces_v2.pth`,
            `uvfaces_v2.pth`, `vertex_uvcoords.pth`, `mean_deform.pt`, `hair_list.pkl`, ...) lie.
        shape_count, expression_count: how many coefficients to keep; the released weights need the defaults.

    Raises:
        BadInput: one sentence that names the file: missing, damaged, not trusted, or not of this head.
    """
    flame, where = Path(flame), Folders(tuple(Path(folder) for folder in folders))
    arrays = _read_flame(flame)
    columns = arrays["shapedirs"].shape[-1]
    if shape_count > FIRST_EXPRESSION or FIRST_EXPRESSION + expression_count > columns:
        wanted = FIRST_EXPRESSION + expression_count
        raise BadInput(f"{flame}: shapedirs has {columns} columns, {wanted} are needed; pass {FLAME_EXPECTED}")
    expressions = arrays["shapedirs"][..., FIRST_EXPRESSION : FIRST_EXPRESSION + expression_count]
    count = len(arrays["v_template"])
    faces, uv_faces = (_read_triangles(where.find(name, ROME)) for name in ("faces_v2.pth", "uvfaces_v2.pth"))
    uv = _read_texture_vertices(where.find(TEXTURE_MESH, DECA))
    lists = {
        name: _read_list(where.find(f"{name}_list.pkl", ROME), count)
        for name in ("hair", "hair_edge", "neck", "neck_edge")
    }
    model = HeadModel(
        template=arrays["v_template"],
        shape_basis=arrays["shapedirs"][..., :shape_count],
        expression_basis=expressions,
        pose_basis=arrays["posedirs"],
        joint_regressor=arrays["J_regressor"],
        skin_weights=arrays["weights"],
        parents=_parents(arrays["kintree_table"]),
        faces=faces,
        uv_faces=uv_faces,
        uv=uv,
        vertex_uv=_read_vertex_uv(where.find("vertex_uvcoords.pth", ROME), count),
        deforms_mask=_read_deforms_mask(where.find("mean_deform.pt", ROME), lists["hair"], lists["neck"], count),
        **_read_landmarks(where.find(LANDMARKS, DECA)),
        **lists,
        source=f"{flame} with {', '.join(str(folder) for folder in where.folders)}",
    )
    if (largest_uv(faces, uv_faces, uv, count) - model.vertex_uv).abs().max() > 1e-4:
        raise BadInput(f"{where.find(TEXTURE_MESH, DECA)} does not belong to vertex_uvcoords.pth; take DECA's own copy")
    return model


def load_linear_basis(folders: Sequence[Path], vertices: int) -> tuple[Tensor, Tensor]:
    """ROME's linear offsets: orthonormal basis (3 v, 60), row 3 * vertex + axis, and mean (v, 3).

    Raises:
        BadInput: a file is missing, damaged, or not of a head with so many vertices.
    """
    where = Folders(tuple(Path(folder) for folder in folders))
    basis_path, mean_path = where.find("u_full.pt", ROME), where.find("mean_deform.pt", ROME)
    basis = _read_tensor(basis_path, (3 * vertices, None), torch.float32)
    product = basis.T @ basis
    if (product - torch.eye(len(product))).abs().max() > BASIS_TOLERANCE:
        raise BadInput(f"{basis_path}: its columns are not orthonormal; take it again from {ROME}")
    return basis, _read_tensor(mean_path, (vertices, 3), torch.float32)


def _read_flame(path: Path) -> dict[str, Tensor]:
    """FLAME's arrays as float32, the joint tree as it is."""
    stored = _read_npz(path) if path.suffix == ".npz" else read_pickle(path, FLAME_LIMIT, FLAME_EXPECTED)
    if not isinstance(stored, dict):
        raise BadInput(f"{path} holds no named arrays; pass {FLAME_EXPECTED}")
    arrays = {}
    for name in FLAME_ARRAYS:
        if name not in stored:
            raise BadInput(f"{path}: the array {name} is missing; pass {FLAME_EXPECTED}")
        integers = name == "kintree_table"
        arrays[name] = _numbers(stored[name], path, name, "iu" if integers else "f", FLAME_EXPECTED)
    return arrays


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    data = read_bytes(path, FLAME_LIMIT, FLAME_EXPECTED)
    try:
        _check_unpacked(data, FLAME_LIMIT)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if name in FLAME_ARRAYS}
    except Exception as error:  # numpy and zipfile have no common error
        raise BadInput(f"{path} is not a readable .npz file ({first_line(error)}); pass {FLAME_EXPECTED}") from error


def _check_unpacked(data: bytes, limit: int) -> None:
    """ValueError when the archive `data` would take more than `limit` bytes of memory."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > limit:
        raise ValueError(f"it unpacks to {unpacked // MIB} MiB")


def _numbers(value: Any, path: Path, name: str, kinds: str, expected: str) -> Tensor:
    """An array of the given kinds of numbers as float32 or int64."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
        found = f"{value.dtype} numbers" if isinstance(value, np.ndarray) else type(value).__name__
        raise BadInput(f"{path}: {name} holds {found}, which it should not; pass {expected}")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and `HeadModel` refuses that
        return torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32 if kinds == "f" else np.int64))


def _parents(table: Tensor) -> tuple[int, ...]:
    """Parents of the joints; the root's is "none" in various spellings."""
    return (-1, *table.reshape(2, -1)[0, 1:].tolist()) if table.numel() % 2 == 0 and table.numel() else ()


def _read_tensor(path: Path, shape: tuple[int | None, ...], dtype: torch.dtype) -> Tensor:
    """One tensor of a .pth file, on the CPU wherever it was saved; `None` is any size."""
    expected = f"{path.name} of {ROME}"
    data = read_bytes(path, FILE_LIMIT, expected)
    try:
        if data.startswith(b"PK"):
            _check_unpacked(data, FILE_LIMIT)
        value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file raises whatever its bytes happen to mean
        raise BadInput(f"{path} is not a readable tensor file ({first_line(error)}); pass {expected}") from error
    if not isinstance(value, Tensor) or value.dtype != dtype:
        found = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise BadInput(f"{path} holds {found} instead of {dtype}; pass {expected}")
    if value.dim() != len(shape) or any(n not in (None, m) for n, m in zip(shape, value.shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise BadInput(f"{path} has the shape {tuple(value.shape)}, expected ({wanted}); pass {expected}")
    if value.numel() * value.element_size() > FILE_LIMIT:  # a few numbers, repeated by strides of 0
        raise BadInput(f"{path} unfolds to more than {FILE_LIMIT // MIB} MiB; pass {expected}")
    if value.is_floating_point() and not value.isfinite().all():
        raise BadInput(f"{path} holds NaN or infinity; pass {expected}")
    return value


def _read_triangles(path: Path) -> Tensor:
    return _read_tensor(path, (1, None, 3), torch.int64)[0]


def _read_vertex_uv(path: Path, vertices: int) -> Tensor:
    return _read_tensor(path, (1, vertices, 2), torch.float32)[0]


def _read_deforms_mask(path: Path, hair: Tensor, neck: Tensor, vertices: int) -> Tensor:
    """(v, 1) the vertices that offsets may move: those that the mean offset of the linear model moves.

    The official code has them as hair and neck without a written-out list of frozen vertices; the mean's support is
    exactly that.
    """
    moved = _read_tensor(path, (vertices, 3), torch.float32).abs().amax(1).nonzero()[:, 0]
    strangers = int((~torch.isin(moved, torch.cat((hair, neck)))).sum())
    if strangers:
        raise BadInput(f"{path} moves {strangers} vertices outside hair and neck; take it again from {ROME}")
    return mask_of(moved, vertices)


def _read_list(path: Path, vertices: int) -> Tensor:
    """(k,) int64 of a pickled list of vertex numbers below `vertices`."""
    expected = f"{path.name} of {ROME}"
    numbers = read_pickle(path, FILE_LIMIT, expected)
    if not isinstance(numbers, list) or not numbers or not all(isinstance(n, int | np.integer) for n in numbers):
        raise BadInput(f"{path} does not hold a list of vertex numbers; pass {expected}")
    if not 0 <= min(numbers) <= max(numbers) < vertices:
        raise BadInput(f"{path} has numbers outside 0..{vertices - 1}; pass {expected}")
    return torch.tensor([int(n) for n in numbers])


def _read_landmarks(path: Path) -> dict[str, Tensor]:
    """The landmark embedding, with our names."""
    expected = f"{LANDMARKS} of {DECA}"
    stored = read_object_array(path, FILE_LIMIT, expected)
    names = {
        "landmark_faces": ("static_lmk_faces_idx", "iu"),
        "landmark_weights": ("static_lmk_bary_coords", "f"),
        "contour_faces": ("dynamic_lmk_faces_idx", "iu"),
        "contour_weights": ("dynamic_lmk_bary_coords", "f"),
    }
    result = {}
    for ours, (name, kinds) in names.items():
        if not isinstance(stored, dict) or name not in stored:
            raise BadInput(f"{path}: {name} is missing; pass {expected}")
        result[ours] = _numbers(stored[name], path, name, kinds, expected)
    return result


def _read_texture_vertices(path: Path) -> Tensor:
    """(w, 2) the `vt` lines of an .obj file in sampling coordinates."""
    expected = f"{TEXTURE_MESH} of {DECA}"
    text = read_bytes(path, FILE_LIMIT, expected).decode("utf-8", errors="replace")
    rows = [line.split()[1:3] for line in text.splitlines() if line.startswith("vt ")]
    try:
        uv = torch.tensor([[float(u), float(v)] for u, v in rows], dtype=torch.float64).view(-1, 2)
    except ValueError as error:
        raise BadInput(f"{path} has a damaged line of texture coordinates; pass {expected}") from error
    if not len(uv):
        raise BadInput(f"{path} has no texture coordinates; pass {expected}")
    return torch.stack((2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1]), dim=1).float()
