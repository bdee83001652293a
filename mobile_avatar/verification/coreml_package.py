"""Reading a saved .mlpackage back: Manifest.json -> model.mlmodel (protobuf) -> operations, constants, weight.bin."""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.errors import BadInput, CheckFailed
from mobile_avatar.files import inside

ALIGNMENT = 64
"""Headers and data of weight.bin start at multiples of this."""
SENTINEL = 0xDEADBEEF
# Numbers of MIL's DataType enum -> torch, and of the same types in the blob headers of weight.bin.
DTYPES = {1: torch.bool, 10: torch.float16, 11: torch.float32, 21: torch.int8, 23: torch.int32, 31: torch.uint8}
BLOB_DTYPES = {1: torch.float16, 2: torch.float32, 3: torch.uint8, 4: torch.int8, 14: torch.int32}

Value = Tensor | str


@dataclass(frozen=True)
class TensorType:
    """What the program declares about a value."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One operation: each input is a list of names (into the program's values) or constants."""

    type: str
    name: str
    inputs: dict[str, list[str | Tensor]]
    outputs: tuple[TensorType, ...]


@dataclass(frozen=True)
class Program:
    """The main function of an ML program, constants decoded."""

    inputs: tuple[TensorType, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    constants: dict[str, Value]
    blobs: int
    """How many constants came from weight.bin."""


class WeightFile:
    """A weight.bin of storage version 2, read with every offset checked against the file's length."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise CheckFailed(f"{path} cannot be read ({error.strerror}); export the avatar again") from error
        self.count, storage = self._unpack("<II", 0)
        if storage != 2:
            raise _damaged(path, f"weight storage version {storage} is not 2")
        self.read: set[int] = set()

    def tensor(self, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """The blob whose 64-byte header lies at `offset`, as a tensor of the declared type and shape."""
        sentinel, kind, size, start = self._unpack("<IIQQ", offset)
        if sentinel != SENTINEL or offset % ALIGNMENT or start % ALIGNMENT:
            raise _damaged(self.path, f"there is no blob header at byte {offset}")
        if BLOB_DTYPES.get(kind) != dtype or size != math.prod(shape) * dtype.itemsize:
            raise _damaged(self.path, f"the blob at byte {offset} is not the {dtype} of shape {shape} it should be")
        if start < offset + ALIGNMENT or start + size > len(self.data):
            raise _damaged(self.path, f"the blob at byte {offset} leads out of the file")
        self.read.add(offset)
        return torch.frombuffer(bytearray(self.data[start : start + size]), dtype=dtype).reshape(shape)

    def _unpack(self, layout: str, offset: int) -> tuple:
        if offset + ALIGNMENT > len(self.data):
            raise _damaged(self.path, f"it ends before byte {offset + ALIGNMENT}")
        return struct.unpack_from(layout, self.data, offset)


def read_package(package: Path) -> Program:
    """The program that a saved .mlpackage holds.

    Raises:
        CheckFailed: something is missing, cut off, points outside the package or is of an unknown kind.
    """
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    path = _model_file(package)
    model = Model_pb2.Model()
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise _damaged(path, "it is not a CoreML model") from error
    if model.WhichOneof("Type") != "mlProgram" or "main" not in model.mlProgram.functions:
        raise _damaged(path, "it holds no ML program with a main function")
    main = model.mlProgram.functions["main"]
    if main.opset not in main.block_specializations:
        raise _damaged(path, f"its main function has no block for {main.opset!r}")
    return _Reader(path).program(main, main.block_specializations[main.opset])


def _model_file(package: Path) -> Path:
    manifest = package / "Manifest.json"
    try:
        document = json.loads(manifest.read_text())
        entry = document["itemInfoEntries"][document["rootModelIdentifier"]]["path"]
        return inside(package / "Data", entry)
    except OSError as error:
        raise CheckFailed(f"{manifest} cannot be read ({error.strerror}); export the avatar again") from error
    except (ValueError, KeyError, TypeError, BadInput) as error:
        raise _damaged(manifest, "it names no model inside the package") from error


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, WeightFile] = {}

    def program(self, main: object, block: object) -> Program:
        constants, operations = {}, []
        for source in block.operations:
            if source.blocks:
                raise _damaged(self.path, f"operation {source.type!r} has inner blocks, which are not known here")
            if source.type == "const":
                constants[source.outputs[0].name] = self.value(source.attributes["val"])
            else:
                operations.append(self.operation(source))
        inputs = tuple(self.tensor_type(value) for value in main.inputs)
        # Files are opened by the constants in them, so one that should be there and is not has failed before.
        blobs = sum(len(file.read) for file in self.files.values())
        return Program(inputs, tuple(block.outputs), tuple(operations), constants, blobs)

    def operation(self, source: object) -> Operation:
        inputs = {
            key: [a.name if a.WhichOneof("binding") == "name" else self.value(a.value) for a in argument.arguments]
            for key, argument in source.inputs.items()
        }
        # Operations on constants, such as constexpr_affine_dequantize, hold their operands as attributes.
        inputs |= {key: [self.value(value)] for key, value in source.attributes.items() if key != "name"}
        name = source.attributes["name"].immediateValue.tensor.strings.values
        outputs = tuple(self.tensor_type(value) for value in source.outputs)
        return Operation(source.type, name[0] if name else outputs[0].name, inputs, outputs)

    def tensor_type(self, value: object) -> TensorType:
        kind = value.type.tensorType
        return TensorType(value.name, self.dtype(kind.dataType), self.shape(kind))

    def dtype(self, number: int) -> torch.dtype:
        if number not in DTYPES:
            raise _damaged(self.path, f"data type {number} of the MIL format is not known here")
        return DTYPES[number]

    def shape(self, kind: object) -> tuple[int, ...]:
        if any(dimension.WhichOneof("dimension") != "constant" for dimension in kind.dimensions):
            raise _damaged(self.path, "a tensor has a dimension of unknown size")
        return tuple(dimension.constant.size for dimension in kind.dimensions)

    def value(self, source: object) -> Value:
        """A constant, stored either in place or in weight.bin."""
        kind = source.type.tensorType
        if source.WhichOneof("value") == "blobFileValue":
            blob = source.blobFileValue
            return self.weights(blob.fileName).tensor(blob.offset, self.dtype(kind.dataType), self.shape(kind))
        content = source.immediateValue.tensor
        field = content.WhichOneof("value")
        if field == "strings" and len(content.strings.values) == 1:
            return content.strings.values[0]
        if field in ("strings", None):
            raise _damaged(self.path, "a constant is empty or a list of texts, which is not known here")
        dtype, shape = self.dtype(kind.dataType), self.shape(kind)
        values = getattr(content, field).values
        if field == "bytes":
            if len(values) != math.prod(shape) * dtype.itemsize:
                raise _damaged(self.path, "a constant does not have the size of its type")
            return torch.frombuffer(bytearray(values), dtype=dtype).reshape(shape)
        array = torch.from_numpy(np.array(values)).to(dtype)
        if array.numel() != math.prod(shape):
            raise _damaged(self.path, "a constant does not have the size of its type")
        return array.reshape(shape)

    def weights(self, name: str) -> WeightFile:
        if name not in self.files:
            try:
                path = inside(self.path.parent, name.removeprefix("@model_path/"))
            except BadInput as error:
                raise _damaged(self.path, f"its weight file {name!r} lies outside the package") from error
            self.files[name] = WeightFile(path)
        return self.files[name]


def _damaged(path: Path, what: str) -> CheckFailed:
    return CheckFailed(f"{path} is damaged or of an unknown kind ({what}); export the avatar again")
