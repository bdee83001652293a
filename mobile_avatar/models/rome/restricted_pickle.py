"""Reading arrays out of foreign pickles without running anything that they ask for.

FLAME's model is a Python 2 pickle of chumpy and scipy objects, DECA's landmark file holds torch tensors in a pickled
numpy object. Every name in such a file is looked up in one short table of stand-ins, which only carry numbers; a file
that asks for anything else is refused. So neither chumpy nor scipy is needed, and nothing of the file is executed.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mobile_avatar.errors import BadInput, first_line

LARGEST_DENSE = 50_000_000  # entries of a matrix or tensor that the file holds in a shorter form
_DTYPE = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1|O8?)")


class _Refused(Exception):
    """The file asks for something that arrays do not need."""


class _StandIn:
    """What a pickled object becomes: it takes the object's state as data and knows the value that it stood for."""

    value: Any = None

    def take(self, state: Any) -> None:
        raise _Refused(f"gives a state to {type(self).__name__.strip('_')}")


class _DType(_StandIn):
    def __init__(self, name: str, *_: Any) -> None:
        if not isinstance(name, str) or not _DTYPE.fullmatch(name):
            raise _Refused(f"holds an array of the type {name!r:.40}")
        self.value = np.dtype(name)

    def take(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array(_StandIn):
    def __init__(self, *_: Any) -> None:
        pass

    def take(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        size = math.prod(shape)
        kind = _value(dtype)
        if any(n < 0 for n in shape) or size < 0:
            raise _Refused("holds an array of negative size")
        if kind.hasobject:
            if type(raw) is not list or len(raw) != size:
                raise _Refused("holds a damaged array of objects")
            self.value = raw[0] if shape == () else raw
            return
        raw = _bytes(raw)
        if len(raw) != size * kind.itemsize:
            raise _Refused(f"holds an array {tuple(shape)} of {len(raw)} bytes")
        # A copy, since the bytes are read-only.
        self.value = np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C").copy()


class _Chumpy(_StandIn):
    """chumpy.ch.Ch: a leaf keeps its numbers in `x`."""

    def take(self, state: Any) -> None:
        if "x" not in state:
            raise _Refused("holds a chumpy expression instead of numbers")
        self.value = np.asarray(_value(state["x"]))


class _Selection(_StandIn):
    """chumpy.reordering.Select: some entries of another array."""

    def take(self, state: Any) -> None:
        self.value = np.asarray(_value(state["a"])).ravel()[_value(state["idxs"])].reshape(state["preferred_shape"])


class _SparseColumns(_StandIn):
    """scipy's csc_matrix, written out."""

    def take(self, state: Any) -> None:
        rows, columns = (int(n) for n in state.get("_shape", state.get("shape")))
        data, indices, starts = (_value(state[name]) for name in ("data", "indices", "indptr"))
        if not 0 < rows * columns <= LARGEST_DENSE or rows < 0:
            raise _Refused(f"holds a sparse matrix of {rows} x {columns}")
        if len(starts) != columns + 1 or starts[0] != 0 or starts[-1] != len(data) or (np.diff(starts) < 0).any():
            raise _Refused("holds a damaged sparse matrix")
        dense = np.zeros((rows, columns), dtype=data.dtype)
        if len(indices) != len(data) or (len(data) and not 0 <= indices.min() <= indices.max() < rows):
            raise _Refused("holds a damaged sparse matrix")
        np.add.at(dense, (indices, np.repeat(np.arange(columns), np.diff(starts))), data)
        self.value = dense


class _Tensor(_StandIn):
    """A torch tensor on a storage that `_storage` read."""

    def __init__(self, storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any) -> None:
        reach = sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if math.prod(size) else -1
        if offset < 0 or any(n < 0 for n in (*size, *stride)) or offset + reach >= len(storage):
            raise _Refused("holds a torch tensor beyond its storage")
        if math.prod(size) > LARGEST_DENSE:
            raise _Refused("holds a torch tensor that is too large")
        steps = tuple(s * storage.itemsize for s in stride)
        self.value = np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


def _storage(raw: Any) -> np.ndarray:
    import torch

    data = _bytes(raw)
    if data.startswith(b"PK"):
        raise _Refused(
            "holds a torch tensor in an archive"
        )  # tensors inside pickles never are, and archives can inflate
    storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    tensor = torch.empty(0, dtype=storage.dtype).set_(storage)
    return tensor.numpy()


def _bytes(raw: Any) -> bytes:
    """Bytes, which Python 2's strings have become text of."""
    if isinstance(raw, str):
        return raw.encode("latin1")
    if not isinstance(raw, bytes):
        raise _Refused("holds an array without its bytes")
    return raw


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise _Refused(f"holds text in {encoding!r:.20}")
    return text.encode(encoding)


def _no_bytes() -> bytes:
    """How Python 3 writes empty bytes for Python 2; with an argument `bytes` would allocate what the file says."""
    return b""


def _scalar(dtype: _DType, raw: Any) -> Any:
    return np.frombuffer(_bytes(raw), _value(dtype))[0]


def _reconstructor(kind: type, *_: Any) -> _StandIn:
    if not (isinstance(kind, type) and issubclass(kind, _StandIn)):
        raise _Refused("builds an object that it does not name")
    return kind()


def _value(thing: Any) -> Any:
    return thing.value if isinstance(thing, _StandIn) else thing


# All names that such files may use, in the spellings of both Pythons and of old and new libraries.
_NAMES = {
    "numpy ndarray": _Array,
    "numpy dtype": _DType,
    "numpy.core.multiarray _reconstruct": _Array,
    "numpy._core.multiarray _reconstruct": _Array,
    "numpy.core.multiarray scalar": _scalar,
    "numpy._core.multiarray scalar": _scalar,
    "chumpy.ch Ch": _Chumpy,
    "chumpy Ch": _Chumpy,
    "chumpy.reordering Select": _Selection,
    "scipy.sparse.csc csc_matrix": _SparseColumns,
    "scipy.sparse._csc csc_matrix": _SparseColumns,
    "torch._utils _rebuild_tensor": _Tensor,
    "torch._utils _rebuild_tensor_v2": _Tensor,
    "torch.storage _load_from_bytes": _storage,
    "copy_reg _reconstructor": _reconstructor,
    "copyreg _reconstructor": _reconstructor,
    "__builtin__ object": object,
    "builtins object": object,
    "__builtin__ set": set,
    "builtins set": set,
    "__builtin__ bytes": _no_bytes,
    "collections OrderedDict": OrderedDict,
    "_codecs encode": _encode,
}
# Opcodes that no such file has: registered extensions, old ways to build objects, buffers of a size told in advance.
_UNUSED = {
    code[0]
    for code in (
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.PERSID),
        *(pickle.BINPERSID, pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
    )
}


class _Unpickler(pickle._Unpickler):
    """The Python unpickler: its steps can be replaced, and it does not allocate what a number in the file says."""

    dispatch: ClassVar = {code: step for code, step in pickle._Unpickler.dispatch.items() if code not in _UNUSED}

    def find_class(self, module: str, name: str) -> Any:
        known = _NAMES.get(f"{module} {name}")
        if known is None:
            raise _Refused(f"asks for {module}.{name}")
        return known

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, _StandIn):
            raise _Refused("gives a state to something that is no array")
        target.take(state)

    dispatch[pickle.BUILD[0]] = build


def read_pickle(path: Path, limit: int, expected: str) -> Any:
    """What a pickle of numbers, lists and arrays holds; nothing in the file is executed.

    Args:
        path: a file of Python 2 or 3.
        limit: largest size of the file in bytes.
        expected: what the file should have been, for messages.

    Returns:
        The top object; arrays in it, and directly in its list or dict, are numpy arrays.

    Raises:
        BadInput: the file is missing, too large, damaged, or asks for anything but numbers.
    """
    return _read(path, read_bytes(path, limit, expected), expected)


def read_object_array(path: Path, limit: int, expected: str) -> Any:
    """The one object in a .npy file of Python objects, under the rules of `read_pickle`."""
    data = read_bytes(path, limit, expected)
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
    except Exception as error:  # damaged headers raise whatever numpy's parser stumbles over
        raise BadInput(f"{path} is not a readable .npy file ({first_line(error)}); pass {expected}") from error
    if shape != () or not dtype.hasobject:
        raise BadInput(f"{path} holds {dtype} {shape} instead of one object; pass {expected}")
    return _read(path, data[stream.tell() :], expected)


def read_bytes(path: Path, limit: int, expected: str) -> bytes:
    """A file of at most `limit` bytes; BadInput otherwise."""
    if not path.is_file():
        raise BadInput(f"{path}: there is no such file; pass {expected}")
    if path.stat().st_size > limit:
        raise BadInput(f"{path} has more than {limit // 2**20} MiB, too many for what it should be; pass {expected}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); pass {expected}") from error


def _read(path: Path, data: bytes, expected: str) -> Any:
    try:
        top = _value(_Unpickler(io.BytesIO(data), encoding="latin1").load())
        if isinstance(top, dict):
            return {key: _value(item) for key, item in top.items()}
        return [_value(item) for item in top] if isinstance(top, list) else top
    except _Refused as error:
        raise BadInput(f"{path} {error}, which is not trusted; pass {expected} as its authors publish it") from error
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        raise BadInput(f"{path} is not a readable pickle ({first_line(error)}); pass {expected}") from error
