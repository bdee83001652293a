"""What lies in a model file: its operators, and how many bytes are weights, texture and sampling grid."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mobile_avatar.errors import first_line


@dataclass(frozen=True)
class Contents:
    """Counted from the file, not from its manifest."""

    operators: dict[str, int] = field(default_factory=dict)
    """Type -> how many, the most frequent first."""
    constants: dict[str, int] = field(default_factory=dict)
    """`weights`, `texture` (where the graph itself warps), `sampling grid` -> bytes."""
    reason: str = ""
    """Why nothing was counted; empty when it was."""


Constant = tuple[int, int]
"""Number of values and bytes of one constant."""
Reader = Callable[[Path], tuple[Counter[str], list[Constant]]]


def read_contents(path: Path, target: str, size: int) -> Contents:
    """Count what a model file holds.

    Args:
        path: the model file or folder.
        target: which format it has.
        size: side of the image in pixels; tells the texture from weights.
    """
    reader = READERS.get(target)
    if reader is None:
        said = "what the converter said is among the notes of the export"
        return Contents(reason=f"files of {target} cannot be listed from outside of their runtime; {said}")
    try:
        operators, constants = reader(path)
    except Exception as error:  # whatever a third-party reader raises about a damaged file
        return Contents(reason=f"{path.name} cannot be read: {first_line(error)}")
    return Contents(dict(operators.most_common()), _shares(constants, size))


def _shares(constants: Iterable[Constant], size: int) -> dict[str, int]:
    named = {3 * size * size: "texture", 2 * size * size: "sampling grid"}
    found: Counter[str] = Counter()
    for values, count in constants:
        found[named.get(values, "weights")] += count
    return {name: found[name] for name in ("weights", "texture", "sampling grid") if found[name]}


def _tflite(path: Path) -> tuple[Counter[str], list[Constant]]:
    import math

    from mobile_avatar.graphs.tflite_graph import bytes_of, unpack
    from mobile_avatar.verification.litert import operators

    content = path.read_bytes()
    model = unpack(content)
    found: dict[int, Constant] = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            size = len(bytes_of(model.buffers[tensor.buffer]))
            if size:
                found[tensor.buffer] = (math.prod(tensor.shape), size)
    return operators(content), list(found.values())


def _snpe(path: Path) -> tuple[Counter[str], list[Constant]]:
    import math

    from mobile_avatar.verification.dlc import read_dlc

    dlc = read_dlc(path)
    constants = [(math.prod(t.shape), len(t.data)) for t in dlc.tensors.values() if t.data is not None]
    return Counter(op.type for op in dlc.operations), constants


def _onnx(path: Path) -> tuple[Counter[str], list[Constant]]:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path, load_external_data=False)  # external data may lie anywhere on this machine
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    constants = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
    arrays += [numpy_helper.to_array(tensor) for tensor in constants if tensor.ByteSize()]
    operators = Counter(node.op_type for node in model.graph.node if node.op_type != "Constant")
    return operators, [(array.size, array.nbytes) for array in arrays]


def _coreml(path: Path) -> tuple[Counter[str], list[Constant]]:
    from torch import Tensor

    from mobile_avatar.verification.coreml_package import read_package

    program = read_package(path)
    tensors = [value for value in program.constants.values() if isinstance(value, Tensor)]
    return Counter(op.type for op in program.operations), [(t.numel(), t.numel() * t.element_size()) for t in tensors]


READERS: dict[str, Reader] = {"tflite": _tflite, "snpe": _snpe, "onnx": _onnx, "coreml": _coreml}
"""Formats that can be read without running them."""
