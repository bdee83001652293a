"""Reads Qualcomm's DLC container and holds it against the ONNX graph that it was made from.

A DLC is a stored zip64 archive whose CRC fields are placeholders (Python's zipfile refuses it), with the records
`model` (flatbuffer NETD: operations and tensors), `model.params` (flatbuffer NETP: where each constant lies),
`model.params.bin` (their bytes) and `dlc.metadata*` (JSON). Every offset is checked before it is followed.
"""

import json
import math
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_avatar.errors import BadInput, CheckFailed
from mobile_avatar.graphs.spec import GraphSpec
from mobile_avatar.verification.runners import Check

METADATA_RECORD = "mobile_avatar.metadata.json"
IR_BACKEND = "libQnnIr"  # DLCs of this serialiser hold every constant unchanged

_END, _END64, _LOCATOR, _ENTRY, _LOCAL = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02", b"PK\x03\x04"
_FULL = 0xFFFFFFFF
_HEADER = 8  # bytes in front of each flatbuffer
_KINDS = {0: "input", 1: "output", 3: "native", 4: "constant"}
_DTYPES = {0x0216: "float16", 0x0232: "float32", 0x0032: "int32", 0x0132: "uint32", 0x0508: "bool8", 0x0108: "uint8"}
# QNN keeps channels last: (O, I, H, W) -> HWIO, (I, O, H, W) -> HWOI of transposed convolutions, NCHW -> NHWC.
_LAYOUTS = ((2, 3, 1, 0), (2, 3, 0, 1), (0, 2, 3, 1))


@dataclass(frozen=True)
class DlcTensor:
    """A tensor of the graph; `data` holds the bytes of a constant."""

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    data: bytes | None


@dataclass(frozen=True)
class DlcOperation:
    """A node of the graph."""

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Dlc:
    """One graph, read from a DLC."""

    path: Path
    graph: str
    operations: tuple[DlcOperation, ...]
    tensors: dict[str, DlcTensor]
    metadata: dict[str, dict]
    """The JSON records by name."""

    def from_ir_backend(self) -> bool:
        """Whether Qualcomm's plain serialiser wrote it; the SDK's converter may fold and rename constants."""
        return any(IR_BACKEND in json.dumps(record) for record in self.metadata.values())


def read_dlc(path: Path) -> Dlc:
    """Read a DLC.

    Raises:
        BadInput: the file cannot be read or is no DLC.
        CheckFailed: it is damaged.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); export the avatar again") from error
    if content[:4] != _LOCAL:
        raise BadInput(f"{path} is not a DLC; export the avatar again")
    try:
        places = _places(content)
        records = {name: content[start : start + size] for name, (start, size) in places.items()}
        metadata = {name: json.loads(data) for name, data in records.items() if "metadata" in name}
        graph, operations, tensors = _graph(records["model"], records["model.params"], records["model.params.bin"])
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise CheckFailed(f"{path} is damaged ({type(error).__name__}: {error}); export the avatar again") from error
    return Dlc(Path(path), graph, operations, tensors, metadata)


def add_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Append a JSON record to a DLC; every byte in front of the archive's directory stays where it is.

    Readers look records up by name (caches of compiled graphs are added the same way), so they pass over this one.
    """
    content = Path(path).read_bytes()
    start, size, count, end64 = _directory(content)
    data = json.dumps(metadata, indent=1).encode()
    name = METADATA_RECORD.encode()
    sizes = struct.pack("<HHQQQ16x", 1, 40, len(data), len(data), start)
    local = struct.pack("<4s5H3L2H", _LOCAL, 45, 0, 0, 0, 0, 0, _FULL, _FULL, len(name), len(sizes)) + name + sizes
    fields = (45, 45, 0, 0, 0, 0, 0, _FULL, _FULL, len(name), len(sizes), 0, 0, 0, 0, _FULL)
    entry = struct.pack("<4s6H3L5H2L", _ENTRY, *fields) + name + sizes
    directory = content[start : start + size] + entry
    at = start + len(local) + len(data)
    end = bytearray(content[end64:])
    struct.pack_into("<4Q", end, 24, count + 1, count + 1, len(directory), at)
    struct.pack_into("<Q", end, end.index(_LOCATOR, 56) + 8, at + len(directory))
    struct.pack_into("<2H", end, end.rindex(_END) + 8, count + 1, count + 1)
    struct.pack_into("<L", end, end.rindex(_END) + 12, len(directory))
    Path(path).write_bytes(content[:start] + local + data + directory + bytes(end))


def check_dlc(dlc: Dlc, model: object, spec: GraphSpec) -> list[Check]:
    """Hold a DLC against the contract and against its source.

    Args:
        dlc: what `read_dlc` returned.
        model: the onnx.ModelProto that it was made from.
        spec: names and shapes of inputs and outputs.
    """
    return [_check_interface(dlc, spec), _check_layout(dlc, spec), _check_weights(dlc, model)]


def _check_interface(dlc: Dlc, spec: GraphSpec) -> Check:
    found = {(t.kind, t.name, t.shape, t.dtype) for t in dlc.tensors.values() if t.kind in ("input", "output")}
    rows = (("input", spec.inputs), ("output", spec.outputs))
    wanted = {(kind, t.name, t.shape, t.dtype) for kind, tensors in rows for t in tensors}
    detail = ", ".join(f"{name} {'x'.join(map(str, shape))} {dtype}" for _, name, shape, dtype in sorted(found))
    return Check("DLC inputs and outputs", found == wanted, detail)


def _check_layout(dlc: Dlc, spec: GraphSpec) -> Check:
    """Transposes cost a pass over memory each; only the step from the linear layers to the first map may need one."""
    pixels = max(math.prod(tensor.shape[1:3]) for tensor in spec.outputs)
    moved = [dlc.tensors[op.outputs[0]] for op in dlc.operations if op.type == "Transpose"]
    large = [t.name for t in moved if math.prod(t.shape) >= pixels]
    counts = Counter(op.type for op in dlc.operations)
    detail = f"transposes at full resolution: {', '.join(large)}" if large else _counted(counts)
    return Check("DLC operations, channels last", not large, detail)


def _check_weights(dlc: Dlc, model: object) -> Check:
    name = "DLC weights equal the source ONNX"
    if not dlc.from_ir_backend():
        return Check(name, None, "the SDK's converter may fold weights; only execution can check this file")
    expected = _expected_constants(model)
    wrong = [key for key, array in expected.items() if not _same(dlc.tensors.get(key), array)]
    size = sum(array.nbytes for array in expected.values())
    if wrong:
        return Check(name, False, f"{len(wrong)} of {len(expected)} constants differ: {', '.join(wrong[:3])}")
    return Check(name, True, f"{len(expected)} constants, {size} bytes, byte for byte")


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _expected_constants(model: object) -> dict[str, np.ndarray]:
    """Every float constant that a node reads, slopes of LeakyRelu included (QNN writes them as PReLU tensors)."""
    from onnx import numpy_helper

    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    arrays |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    kinds = {name: array.dtype for name, array in arrays.items()}
    halves = {name for name, kind in kinds.items() if kind == np.float16}
    expected = {}
    for node in model.graph.node:
        # The other inputs of these become parameters of the operation, not tensors.
        data = node.input[:1] if node.op_type in ("Resize", "Slice", "Reshape", "Clip") else node.input
        expected |= {name: arrays[name] for name in data if name in arrays and arrays[name].dtype.kind == "f"}
        if node.op_type == "LeakyRelu":
            slope = next(attribute.f for attribute in node.attribute if attribute.name == "alpha")
            expected[f"{node.name}_alpha"] = np.array([slope], np.float16 if halves else np.float32)
    return expected


def _same(tensor: DlcTensor | None, array: np.ndarray) -> bool:
    if tensor is None or tensor.data is None or tensor.dtype != array.dtype.name:
        return False
    forms = [array, *(array.transpose(axes) for axes in _LAYOUTS if array.ndim == 4)]
    flat = [form for form in forms if form.shape == tensor.shape] or [array]
    return any(form.tobytes() == tensor.data for form in flat)


# ---- container ----


def _directory(content: bytes) -> tuple[int, int, int, int]:
    """Start, size and number of entries of the zip64 directory, and where its end record starts."""
    locator = content.rindex(_LOCATOR, max(0, len(content) - 65_600))
    (end,) = struct.unpack_from("<Q", content, locator + 8)
    signature, count, size, start = struct.unpack_from("<4s28xQQQ", content, end)
    if signature != _END64 or start + size > len(content):
        raise ValueError("the directory of its records is missing")
    return start, size, count, end


def _places(content: bytes) -> dict[str, tuple[int, int]]:
    """Record name -> (offset of its data, size)."""
    position, _, count, end = _directory(content)
    places: dict[str, tuple[int, int]] = {}
    for _ in range(count):
        entry = struct.unpack_from("<4s6H3L5H2L", content, position)
        method, name_size, extra_size, comment_size = entry[4], entry[10], entry[11], entry[12]
        name = content[position + 46 : position + 46 + name_size].decode()
        kind, _, size, stored, offset = struct.unpack_from("<HHQQQ", content, position + 46 + name_size)
        if entry[0] != _ENTRY or kind != 1 or method != 0 or size != stored or name in places:
            raise ValueError(f"the directory entry of record {name!r} is wrong")
        local = struct.unpack_from("<4s22x2H", content, offset)
        start = offset + 30 + local[1] + local[2]
        if local[0] != _LOCAL or content[offset + 30 : offset + 30 + local[1]].decode() != name or start + size > end:
            raise ValueError(f"record {name!r} is not where the directory says")
        places[name] = (start, size)
        position += 46 + name_size + extra_size + comment_size
    return places


def _graph(model: bytes, params: bytes, weights: bytes) -> tuple[str, tuple[DlcOperation, ...], dict[str, DlcTensor]]:
    graphs = _Table.root(model, b"NETD").vector(0, _Table)
    places = {}
    for row in _Table.root(params, b"NETP").vector(0, _Table)[0].vector(1, _Table):
        place = _Table(row.data, row.target(3))
        offset, size = place.number(0, "<Q"), place.number(1, "<Q")
        if offset + size > len(weights):
            raise ValueError(f"the bytes of {row.text(0)} lie behind the end")
        places[row.text(0)] = weights[offset : offset + size]
    if len(graphs) != 1:
        raise ValueError(f"it holds {len(graphs)} graphs instead of one")
    tensors = {}
    for row in graphs[0].vector(2, _Table):
        name, kind = row.text(1), _KINDS.get(row.number(2, "<I"), "other")
        number = row.number(6, "<I")
        dtype = _DTYPES.get(number, f"{number:#x}")
        tensors[name] = DlcTensor(name, kind, tuple(row.vector(3, int)), dtype, places.get(name))
    operations = tuple(
        DlcOperation(row.text(0), row.text(1), tuple(row.vector(2, str)), tuple(row.vector(3, str)))
        for row in graphs[0].vector(1, _Table)
    )
    return graphs[0].text(0), operations, tensors


class _Table:
    """A table of a flatbuffer; struct.error or IndexError where the bytes lead outside."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position
        self.fields = position - self._read("<i", position)
        if not 0 <= self.fields < len(data):
            raise IndexError(f"no table at {position}")

    @classmethod
    def root(cls, record: bytes, identifier: bytes) -> "_Table":
        data = record[_HEADER:]
        if data[4:8] != identifier:
            raise ValueError(f"a record is not a {identifier.decode()} flatbuffer")
        return cls(data, struct.unpack_from("<I", data)[0])

    def number(self, field: int, layout: str) -> int:
        """A number; 0, the default, where it was left out."""
        place = self._place(field)
        return self._read(layout, place) if place else 0

    def target(self, field: int) -> int:
        """Where an offset field points."""
        place = self._place(field)
        if not place:
            raise IndexError(f"field {field} of the table at {self.position} is missing")
        return place + self._read("<I", place)

    def text(self, field: int) -> str:
        return self._text(self.target(field))

    def vector(self, field: int, item: Callable) -> list:
        """Elements of a vector: numbers (`int`), strings (`str`) or tables; empty where it was left out."""
        if not self._place(field):
            return []
        start = self.target(field)
        count = self._read("<I", start)
        if start + 4 + 4 * count > len(self.data):
            raise IndexError(f"a vector at {start} leads outside")
        slots = range(start + 4, start + 4 + 4 * count, 4)
        if item is int:
            return [self._read("<I", slot) for slot in slots]
        targets = [slot + self._read("<I", slot) for slot in slots]
        return [self._text(t) if item is str else _Table(self.data, t) for t in targets]

    def _place(self, field: int) -> int:
        if 4 + 2 * field >= self._read("<H", self.fields):
            return 0
        offset = self._read("<H", self.fields + 4 + 2 * field)
        return self.position + offset if offset else 0

    def _text(self, start: int) -> str:
        size = self._read("<I", start)
        if start + 4 + size > len(self.data):
            raise IndexError(f"a string at {start} leads outside")
        return self.data[start + 4 : start + 4 + size].decode()

    def _read(self, layout: str, position: int) -> int:
        if position < 0:
            raise IndexError("an offset leads outside")
        return struct.unpack_from(layout, self.data, position)[0]
