"""8-bit CoreML programs: which tensors of a converted program become int8, and with what scales.

CoreML has 8-bit arithmetic for convolutions, linear layers and additions between `quantize` and `dequantize`
operations; everything else computes in float16. Its own calibration runs the model, which needs a Mac, so the ranges
come from the MIL evaluator (`verification/mil_torch.py`), which runs the very program that is quantised.
"""

from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch

from mobile_avatar.verification.coreml_package import Program
from mobile_avatar.verification.mil_torch import evaluate

WEIGHT_AXIS = {"conv": 0, "linear": 0, "conv_transpose": 1}
"""Operators with weights -> the axis of their output channels."""
FORMATS = {"const", "constexpr_affine_dequantize", "quantize", "dequantize", "cast"}
"""Only change how a tensor is stored, so they count neither as integer nor as float operators."""
GRID = "the sampling grid stays in float32: 8-bit coordinates would move pixels"
FIRST = "the first layer reads keypoints in float16: 8-bit keypoints would make the head move in steps"
LAST = "what follows the last layer stays in float16: the app gets more than 256 levels"
BETWEEN = "CoreML has 8-bit arithmetic for convolutions, linear layers and additions only; these compute in float16"
KEPT = "the recipe keeps these in float16"
WIDE = "CoreML has no 16-bit integers: 8-bit weights are unpacked and every operator computes in float16"

Ranges = dict[str, tuple[float, float]]


def calibrate(program: Program, keypoints: np.ndarray) -> Ranges:
    """Lowest and highest value of every float tensor of a saved program, by name.

    Args:
        keypoints: float32 (N, 136) in [-1, 1].
    """
    found: Ranges = {}

    def note(name: str, value: torch.Tensor) -> None:
        if value.is_floating_point():
            low, high = (float(edge) for edge in value.aminmax())
            before = found.get(name, (low, high))
            found[name] = min(low, before[0]), max(high, before[1])

    for row in torch.from_numpy(np.ascontiguousarray(keypoints, np.float32))[:, None]:
        evaluate(program, {program.inputs[0].name: row}, note)
    return found


@dataclass(frozen=True)
class Layers:
    """Which operators of a program belong to the layers that a recipe keeps."""

    parameters: dict[str, str]
    """Name of a constant in the program -> name of the parameter in the torch module."""
    keep: tuple[str, ...]
    """Paths in the torch module, `generator.blocks.3.conv1`; everything below counts too."""

    def kept(self, op: object) -> bool:
        return any(self._inside(op, path) for path in self.keep)

    def missing(self, block: object) -> list[str]:
        """Layers of the recipe that the converter merged into others."""
        return [path for path in self.keep if not any(self._inside(op, path) for op in block.operations)]

    def _inside(self, op: object, path: str) -> bool:
        names = [value.name.removesuffix("_quantized").removesuffix("_to_fp16") for value in _values(op)]
        if any(self.parameters.get(name, "").startswith(f"{path}.") for name in names):
            return True
        # A norm's constants are made by the converter, but it remembers module names (without the indexed lists').
        short = tuple(part for part in path.split(".") if part not in ("blocks", "mlp"))
        return not short[-1].isdigit() and _scope(op)[: len(short)] == short


def layers_of(module: torch.nn.Module, keep: tuple[str, ...]) -> Layers:
    """Layers by path inside `module.generator`; the converter writes the dots of parameter names as underscores."""
    parameters = {name.replace(".", "_"): name for name, _ in module.named_parameters()}
    return Layers(parameters, tuple(f"generator.{path}" for path in keep))


def quantize_program(program: object, layers: Layers, ranges: Ranges | None) -> dict:
    """Rewrite a float16 MIL program in place: int8 weights, and int8 tensors where `ranges` are given.

    Weights are symmetric per output channel, tensors have one scale and zero point each. A tensor is stored as int8
    for all its readers but the layers that are kept.

    Args:
        program: of `ct.convert(..., convert_to="milinternal")`, its names as they were saved.
        ranges: of `calibrate`; None keeps tensors in float16.

    Returns:
        The manifest's `operators`, `float_operators` and `float_reasons`.
    """
    block = program.functions["main"]
    operations = list(block.operations)
    layers_with_weights = [op for op in operations if op.op_type in WEIGHT_AXIS]
    with block:
        if ranges is not None:
            _Activations(layers, ranges).apply(operations)
        for op in layers_with_weights:
            if not layers.kept(op):
                _store_weight(op)
    return _count(list(block.operations), layers, ranges is not None)


class _Activations:
    """Inserts `quantize` and `dequantize` pairs."""

    def __init__(self, layers: Layers, ranges: Ranges) -> None:
        self.layers = layers
        self.ranges = ranges

    def apply(self, operations: list) -> None:
        wanted = {}
        for op in operations:
            if self.layers.kept(op):
                continue
            for value in _operands(op):
                wanted[value.name] = value
                # Copies of pixels have the range of what they copy; storing that too lets the operator before end
                # in int8, and its range costs nothing: the second rounding finds every number already rounded.
                if value.op.op_type == "upsample_nearest_neighbor" and not self.layers.kept(value.op):
                    wanted.setdefault(value.op.x.name, value.op.x)
        order = {op: i for i, op in enumerate(operations)}
        for value in wanted.values():
            self.store(value, sorted((op for op in value.child_ops if not self.layers.kept(op)), key=order.get))

    def store(self, value: object, readers: list) -> None:
        from coremltools.converters.mil.mil import Builder as mb

        scale, zero = affine(*self.ranges[value.name])
        how = {"scale": scale, "zero_point": zero, "before_op": readers[0]}
        with _as_part_of(readers[0]):
            stored = mb.quantize(input=value, output_dtype="int8", name=f"{value.name}_int8", **how)
            real = mb.dequantize(input=stored, name=f"{value.name}_of_int8", **how)
        for op in readers:
            changed = {key: real for key, read in op.inputs.items() if read is value}
            op.set_inputs(no_check_var_types=True, **changed)


def affine(low: float, high: float) -> tuple[np.float16, np.int8]:
    """Scale and zero point with which int8 covers [low, high] and 0 exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float16((high - low) / 255)
    if scale == 0:  # a tensor that is always zero, or smaller than half precision can divide by
        return np.float16(1), np.int8(0)
    return scale, np.int8(np.clip(np.rint(-128 - low / float(scale)), -128, 127))


def _store_weight(op: object) -> None:
    from coremltools.converters.mil.mil import Builder as mb

    weight, axis = op.weight.val, WEIGHT_AXIS[op.op_type]
    if op.op_type == "conv_transpose" and op.groups.val != 1:
        return  # its output channels lie on two axes, and CoreML has scales along one only
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = (np.abs(weight.astype(np.float32)).max(others) / 127).astype(np.float16)
    scale[scale == 0] = 1
    column = scale.astype(np.float32).reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    with _as_part_of(op):
        stored = mb.constexpr_affine_dequantize(
            quantized_data=np.clip(np.rint(weight / column), -127, 127).astype(np.int8),
            zero_point=np.int8(0),
            scale=scale,
            axis=np.int32(axis),
            before_op=op,
            name=f"{op.weight.name}_quantized",
        )
    before = op.weight
    op.set_inputs(no_check_var_types=True, weight=stored)
    if not before.child_ops:
        op.enclosing_block.remove_ops([before.op])


def _as_part_of(op: object) -> AbstractContextManager:
    """New operations say that they come from the torch module of `op`; the converter refuses homeless ones."""
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource

    sources = (ScopeSource.TORCHSCRIPT_MODULE_NAME, ScopeSource.TORCHSCRIPT_MODULE_TYPE)
    return mb.scope(*(ScopeInfo(source=source, data=list(op.scopes[source])) for source in sources))


def _operands(op: object) -> list:
    """The tensors that an operator with 8-bit arithmetic reads; none for other operators."""
    if op.op_type in WEIGHT_AXIS:
        return [op.x] if _after_weights(op.x) else []
    if op.op_type == "add" and _feeds_weights(op) and _after_weights(op.x) and _after_weights(op.y):
        return [op.x, op.y]
    return []


def _values(op: object) -> list:
    return [value for value in op.inputs.values() if value is not None and not isinstance(value, list | tuple)]


def _producers(value: object) -> list:
    values = [one for each in value.op.inputs.values() for one in (each if isinstance(each, list | tuple) else [each])]
    return [one for one in values if one is not None]


def _after_weights(value: object) -> bool:
    """Whether a tensor is computed by or after a layer."""
    if value.op is None:
        return False
    return value.op.op_type in WEIGHT_AXIS or any(map(_after_weights, _producers(value)))


def _feeds_weights(op: object) -> bool:
    """Whether a layer comes after an operator."""
    children = [child for value in op.outputs for child in value.child_ops]
    return any(child.op_type in WEIGHT_AXIS or _feeds_weights(child) for child in children)


def _scope(op: object) -> tuple[str, ...]:
    from coremltools.converters.mil.mil.scope import ScopeSource

    return tuple(op.scopes.get(ScopeSource.TORCHSCRIPT_MODULE_NAME, ()))


def _count(operations: list, layers: Layers, activations: bool) -> dict:
    """Every operator that computes, and why some of them do so in float."""
    computing = [op for op in operations if op.op_type not in FORMATS]
    floats, reasons = Counter(), {}
    for op in computing:
        if not _is_integer(op):
            floats[op.op_type] += 1
            reasons.setdefault(_reason(op, layers) if activations else WIDE, Counter())[op.op_type] += 1
    return {
        "operators": len(computing),
        "float_operators": dict(sorted(floats.items())),
        "float_reasons": [f"{_listed(types)}: {why}" for why, types in reasons.items()],
    }


def _is_integer(op: object) -> bool:
    if op.op_type == "add":
        return all(value.op is not None and value.op.op_type == "dequantize" for value in (op.x, op.y))
    if op.op_type not in WEIGHT_AXIS or op.x.op is None or op.weight.op is None:
        return False
    return (op.x.op.op_type, op.weight.op.op_type) == ("dequantize", "constexpr_affine_dequantize")


def _reason(op: object, layers: Layers) -> str:
    from coremltools.converters.mil.mil import types

    if layers.kept(op):
        return KEPT
    if op.outputs[0].dtype == types.fp32:
        return GRID
    if not _feeds_weights(op) and op.op_type not in WEIGHT_AXIS:
        return LAST
    if not any(map(_after_weights, _values(op))):
        return FIRST
    return BETWEEN


def _listed(types: Counter) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(types.items()))
