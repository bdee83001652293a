"""Files in the formats of FLAME, DECA and ROME, made from any head: Python 2 pickles with chumpy and scipy objects."""

import io
import pickle
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import torch

from mobile_avatar.models.rome.head_model import HeadModel


class Ch:
    """What chumpy keeps of a leaf when it is pickled."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x
        self._dirty_vars = {"x"}
        self._itr = None
        self._depends_on_deps = {}


class Select:
    """Entries of another chumpy array."""

    def __init__(self, a: Ch, idxs: np.ndarray, preferred_shape: tuple) -> None:
        self.a, self.idxs, self.preferred_shape = a, idxs, preferred_shape


@contextmanager
def chumpy() -> Iterator[None]:
    """The two classes under their real names, for as long as something is pickled."""
    modules = {name: ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")}
    for kind, home in ((Ch, "chumpy.ch"), (Select, "chumpy.reordering")):
        kind.__module__ = home
        setattr(modules[home], kind.__name__, kind)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


class _Python2(pickle._Pickler):
    """Protocol 2 as cPickle wrote it: text and bytes are both byte strings."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        short = len(data) < 256
        size = struct.pack("<B", len(data)) if short else struct.pack("<i", len(data))
        self.write((pickle.SHORT_BINSTRING if short else pickle.BINSTRING) + size + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def python2_pickle(thing: object) -> bytes:
    """A pickle with the module names that old numpy and scipy had."""
    stream = io.BytesIO()
    with chumpy():
        _Python2(stream, protocol=2, fix_imports=True).dump(thing)
    data = stream.getvalue()
    for new, old in ((b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"), (b"sparse._csc\n", b"sparse.csc\n")):
        data = data.replace(new, old)
    return data


def flame_arrays(model: HeadModel) -> dict[str, np.ndarray]:
    """A head's arrays with FLAME's names, types and 400 blend shapes."""
    v, j = model.skin_weights.shape
    shapes = np.zeros((v, 3, 400))
    shapes[..., : model.shape_basis.shape[2]] = model.shape_basis
    shapes[..., 300 : 300 + model.expression_basis.shape[2]] = model.expression_basis
    none = np.iinfo(np.uint32).max
    return {
        "v_template": model.template.double().numpy(),
        "shapedirs": shapes,
        "posedirs": model.pose_basis.double().numpy(),
        "J_regressor": model.joint_regressor.double().numpy(),
        "weights": model.skin_weights.double().numpy(),
        "kintree_table": np.array([[none, *model.parents[1:]], range(j)], dtype=np.uint32),
        "f": model.faces.numpy().astype(np.uint32),
    }


def write_flame(path: Path, model: HeadModel) -> None:
    """The model as the official pickle has it."""
    from scipy.sparse import csc_matrix

    arrays = flame_arrays(model)
    stored = arrays | {name: Ch(arrays[name]) for name in ("v_template", "shapedirs", "weights")}
    # One array column by column, one in foreign byte order: both occur in files of that age.
    stored["posedirs"] = np.asfortranarray(arrays["posedirs"].astype(">f8"))
    stored |= {"J_regressor": csc_matrix(arrays["J_regressor"]), "bs_style": "lbs", "bs_type": "lrotmin"}
    path.write_bytes(python2_pickle(stored))


def write_data_files(folder: Path, model: HeadModel) -> None:
    """What ROME's and DECA's data folders hold, in their formats."""
    folder.mkdir(exist_ok=True)
    torch.save(model.faces[None], folder / "faces_v2.pth")
    torch.save(model.uv_faces[None], folder / "uvfaces_v2.pth")
    torch.save(model.vertex_uv[None], folder / "vertex_uvcoords.pth")
    v = len(model.template)
    torch.save(model.deforms_mask * torch.linspace(0.01, 0.1, 3), folder / "mean_deform.pt")
    basis = torch.linalg.qr(torch.randn(3 * v, 60, generator=torch.Generator().manual_seed(0)))[0]
    # The released tensors are in the older container.
    torch.save(basis, folder / "u_full.pt", _use_new_zipfile_serialization=False)
    for name in ("hair_list", "hair_edge_list", "neck_edge_list"):
        numbers = getattr(model, name.removesuffix("_list")).tolist()
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(numbers))
    (folder / "neck_list.pkl").write_bytes(pickle.dumps(list(model.neck.numpy())))
    embedding = {
        "static_lmk_faces_idx": model.landmark_faces.numpy().astype(np.uint32),
        "static_lmk_bary_coords": model.landmark_weights.double().numpy(),
        "dynamic_lmk_faces_idx": model.contour_faces,
        "dynamic_lmk_bary_coords": model.contour_weights,
    }
    np.save(folder / "landmark_embedding.npy", np.array(embedding, dtype=object), allow_pickle=True)
    lines = [f"v {x} {y} {z}" for x, y, z in model.template.tolist()]
    lines += [f"vt {(u + 1) / 2!r} {(1 - v) / 2!r}" for u, v in model.uv.tolist()]
    (folder / "head_template.obj").write_text("\n".join(["# head", *lines]) + "\n")
