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
from mobile_avatar.graphs.spec import GraphSpec, TensorSpec
from mobile_avatar.verification.runners import Check

METADATA_RECORD = "mobile_avatar.metadata.json"
IR_BACKEND = "libQnnIr"  # DLCs of this serialiser hold every constant unchanged

_END, _END64, _LOCATOR, _ENTRY, _LOCAL = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02", b"PK\x03\x04"
_FULL = 0xFFFFFFFF
_HEADER = 8  # bytes in front of each flatbuffer
_KINDS = {0: "input", 1: "output", 3: "native", 4: "constant"}
_DTYPES = {0x0216: "float16", 0x0232: "float32", 0x0032: "int32", 0x0132: "uint32", 0x0508: "bool8", 0x0108: "uint8"}
_DTYPES |= {0x0308: "int8", 0x0332: "int32", 0x0408: "uint8", 0x0416: "uint16"}  # fixed point, with a scale
_PER_TENSOR, _PER_CHANNEL = 0, 1
_CASTS = ("Quantize", "Dequantize", "Convert")
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
    scales: tuple[float, ...] = ()
    """Of fixed-point numbers, one or one per channel: real = scale * (stored - zero point)."""
    zeros: tuple[int, ...] = ()


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


def float_operations(dlc: Dlc) -> tuple[int, dict[str, int]]:
    """How many operations a DLC has, casts left out, and by type how many of them write floating-point numbers."""
    operations = [op for op in dlc.operations if op.type not in _CASTS]
    floats = [op.type for op in operations if any(dlc.tensors[name].dtype.startswith("float") for name in op.outputs)]
    return len(operations), dict(Counter(floats))


def check_integers(dlc: Dlc) -> Check:
    """Whether an integer DLC computes in integers from end to end; a float island costs casts and runs slower."""
    count, floats = float_operations(dlc)
    detail = f"in float: {_counted(Counter(floats))}" if floats else f"all {count} operations"
    return Check("DLC operations in integers", not floats, detail)


def _check_interface(dlc: Dlc, spec: GraphSpec) -> Check:
    ends = [t for t in dlc.tensors.values() if t.kind in ("input", "output")]
    found = {(t.kind, t.name, t.shape, t.dtype, t.scales, t.zeros) for t in ends}
    rows = (("input", spec.inputs), ("output", spec.outputs))
    wanted = {(kind, t.name, t.shape, t.dtype, *_stored(t)) for kind, tensors in rows for t in tensors}
    detail = ", ".join(f"{name} {'x'.join(map(str, shape))} {dtype}" for _, name, shape, dtype, *_ in sorted(found))
    return Check("DLC inputs and outputs", found == wanted, detail)


def _stored(tensor: TensorSpec) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Scales and zero points as a DLC tensor has them."""
    if tensor.quantization is None:
        return (), ()
    scale, zero = tensor.quantization
    return (float(np.float32(scale)),), (zero,)


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
    wrong = [key for key, constant in expected.items() if not constant.equals(dlc.tensors.get(key))]
    size = sum(constant.values.nbytes for constant in expected.values())
    if wrong:
        return Check(name, False, f"{len(wrong)} of {len(expected)} constants differ: {', '.join(wrong[:3])}")
    return Check(name, True, f"{len(expected)} constants, {size} bytes, byte for byte")


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


@dataclass(frozen=True)
class _Constant:
    """What the source says about a constant of the DLC."""

    values: np.ndarray
    scales: tuple[float, ...] = ()
    zeros: tuple[int, ...] = ()

    def equals(self, tensor: DlcTensor | None) -> bool:
        if tensor is None or tensor.data is None or tensor.dtype != self.values.dtype.name:
            return False
        if (tensor.scales, tensor.zeros) != (self.scales, self.zeros):
            return False
        forms = [self.values]
        if self.values.ndim == 4:
            forms += [self.values.transpose(axes) for axes in _LAYOUTS]
        flat = [form for form in forms if form.shape == tensor.shape] or forms[:1]
        return any(form.tobytes() == tensor.data for form in flat)


@dataclass(frozen=True)
class _Slope(_Constant):
    """The slope of an activation in a quantised graph, for which QNN chooses a scale: `values` is the real number."""

    def equals(self, tensor: DlcTensor | None) -> bool:
        if tensor is None or tensor.dtype not in ("uint8", "uint16") or len(tensor.scales) != 1:
            return False
        stored = np.frombuffer(tensor.data or b"", tensor.dtype)
        found = tensor.scales[0] * (stored.astype(np.float64) - tensor.zeros[0])
        return found.shape == self.values.shape and np.allclose(found, self.values, rtol=1e-3)


def _expected_constants(model: object) -> dict[str, _Constant]:
    """Every constant that a node reads as data, slopes of LeakyRelu included (QNN writes them as PReLU tensors)."""
    from onnx import numpy_helper

    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    arrays |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    halves = any(array.dtype == np.float16 for array in arrays.values())
    quantised = {
        node.output[0]: node.input
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in arrays
    }
    expected: dict[str, _Constant] = {}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue  # their scales belong to the tensors
        # The other inputs of these become parameters of the operation, not tensors.
        data = node.input[:1] if node.op_type in ("Resize", "Slice", "Reshape", "Clip") else node.input
        expected |= {
            name: _Constant(arrays[name]) for name in data if name in arrays and arrays[name].dtype.kind == "f"
        }
        for values, scale, zero in (quantised[name] for name in data if name in quantised):
            scales, zeros = (tuple(arrays[name].reshape(-1).tolist()) for name in (scale, zero))
            expected[values] = _Constant(arrays[values], scales, zeros)
        if node.op_type == "LeakyRelu":
            slope = next(attribute.f for attribute in node.attribute if attribute.name == "alpha")
            kind = _Slope if quantised else _Constant
            expected[f"{node.name}_alpha"] = kind(np.array([slope], np.float16 if halves else np.float32))
    return expected


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
        scales, zeros = _quantization(_Table(row.data, row.target(5)))
        tensors[name] = DlcTensor(name, kind, tuple(row.vector(3, int)), dtype, places.get(name), scales, zeros)
    operations = tuple(
        DlcOperation(row.text(0), row.text(1), tuple(row.vector(2, str)), tuple(row.vector(3, str)))
        for row in graphs[0].vector(1, _Table)
    )
    return graphs[0].text(0), operations, tensors


def _quantization(row: "_Table") -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Scales and zero points; a DLC stores offsets, which are negative zero points."""
    encoding = row.number(0, "<I")
    if encoding == _PER_TENSOR:
        steps = [_Table(row.data, row.target(2))]
    elif encoding == _PER_CHANNEL:
        steps = _Table(row.data, row.target(3)).vector(1, _Table)
    else:
        return (), ()
    return tuple(step.number(3, "<f") for step in steps), tuple(-step.number(4, "<i") for step in steps)


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
