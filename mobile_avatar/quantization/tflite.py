"""Integer .tflite files: calibrate a float file once, then make any number of quantised variants of it."""

import re
import warnings
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from mobile_avatar.errors import CheckFailed
from mobile_avatar.graphs.tflite_graph import code_index, kind_of, kinds, pack, unpack
from mobile_avatar.quantization.tflite_plan import CONVERSIONS, Node, layers_of, plan, read_nodes

ACTIVATION_BITS = {"w8a8": 8, "mixed": 8, "w8a16": 16}
STAND_INS = {"LEAKY_RELU": ("LeakyReluOptions", "RELU"), "DEPTH_TO_SPACE": ("DepthToSpaceOptions", "SPACE_TO_DEPTH")}
"""Operators that the runtime computes with integers but the quantiser does not know: the options that they are
known by, and a relative with the same inputs and demands on scales, whose code they carry while the quantiser works."""
HALF_WEIGHTS = {"FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "EMBEDDING_LOOKUP"}
"""Operators whose weights are stored in half precision where they stay float."""
QUANTISER_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}


@dataclass(frozen=True)
class Calibrated:
    """A float file and the ranges of its tensors."""

    model: bytes
    limits: dict[int, tuple[float, float]]
    """Smallest and largest value per tensor index."""


@dataclass(frozen=True)
class Quantized:
    """One quantised variant."""

    model: bytes
    integers: dict[str, tuple[str, float, int]]
    """Inputs and outputs that are integers, by signature name: (dtype, scale, zero point)."""
    facts: dict
    """`operators`, `float_operators`, `float_reasons` of the manifest."""


def calibrate(model: bytes, keypoints: np.ndarray) -> Calibrated:
    """Run a float file on keypoints (N, 136) and note the ranges of all tensors. Takes seconds."""
    from ai_edge_litert.interpreter import Interpreter

    content = unpack(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # keeping all tensors is "for debugging"; here it is the purpose
        interpreter = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    made = [int(i) for op in content.subgraphs[0].operators for i in op.outputs]
    types = {row["index"]: row["dtype"] for row in interpreter.get_tensor_details()}
    limits = {source: (float(keypoints.min()), float(keypoints.max()))}
    for row in keypoints.astype(np.float32):
        interpreter.set_tensor(source, row[None])
        interpreter.invoke()
        for index in made:
            if types[index] == np.float32:
                values = interpreter.get_tensor(index)
                low, high = limits.get(index, (np.inf, -np.inf))
                limits[index] = min(low, float(values.min())), max(high, float(values.max()))
    return Calibrated(model, limits)


def layers(model: bytes) -> list[str]:
    """Paths of the layers in a float file that can be quantised, in order of execution."""
    return layers_of(read_nodes(unpack(model)))


def quantize(
    calibrated: Calibrated,
    precision: str,
    keep: Collection[str] = (),
    only: Collection[str] | None = None,
    quantize_io: bool = False,
) -> Quantized:
    """A quantised variant of a float file: 8-bit weights per channel, 8- or 16-bit activations.

    Args:
        precision: `w8a8`, `w8a16` or `mixed` (w8a8 with kept layers).
        keep: Layers, or prefixes of them, that compute in float with half-precision weights.
        only: Layers that become integer while all others stay float32, for looking at them one at a time.
        quantize_io: Inputs and outputs are integers too.

    Raises:
        CheckFailed: an operator stayed float that should not.
    """
    content = unpack(calibrated.model)
    nodes = read_nodes(content)
    bits = ACTIVATION_BITS[precision]
    reasons = plan(nodes, precision, _known(bits), keep, only)
    names = [tensor.name for tensor in content.subgraphs[0].tensors]
    _rename_operators(content, {options: stand_in for options, stand_in in STAND_INS.values()})
    for index, tensor in enumerate(content.subgraphs[0].tensors):
        tensor.name = f"t{index}".encode()
    halves = [
        node
        for node, reason in zip(nodes, reasons, strict=True)
        if reason and node.kind in HALF_WEIGHTS and only is None
    ]
    integers = [node for node, reason in zip(nodes, reasons, strict=True) if reason is None]
    done = _run_quantiser(pack(content), calibrated.limits, bits, integers, halves, quantize_io)
    content = unpack(done)
    _rename_operators(content, {options: kind for kind, (options, _) in STAND_INS.items()})
    facts = _account(content, nodes, reasons)
    for tensor in content.subgraphs[0].tensors:
        index, rest = re.fullmatch(r"t(\d+)(.*)", tensor.name.decode()).groups()
        tensor.name = names[int(index)] + rest.encode()
    return Quantized(pack(content), _integers(content), facts)


def half_weights(model: bytes) -> bytes:
    """A float file with its weights in half precision."""
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import Quantizer

    tool = Quantizer(bytearray(model))
    tool.update_quantization_recipe(".*", TFLOperationName.ALL_SUPPORTED, _half(), AlgorithmName.FLOAT_CASTING)
    return bytes(tool.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model)


def _half() -> object:
    """Weights in half precision, arithmetic in float.

    An explicit DEQUANTIZE per constant is what GPU delegates recognise as a half-precision model.
    """
    from ai_edge_quantizer.qtyping import (
        ComputePrecision,
        OpQuantizationConfig,
        TensorDataType,
        TensorQuantizationConfig,
    )

    weights = TensorQuantizationConfig(num_bits=16, dtype=TensorDataType.FLOAT)
    return OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=ComputePrecision.FLOAT, explicit_dequantize=True
    )


def _known(bits: int) -> set[str]:
    """Operators that the quantiser computes with integers, stand-ins included."""
    import json

    from ai_edge_quantizer.default_policy import DEFAULT_JSON_POLICY

    known = set(json.loads(DEFAULT_JSON_POLICY)["ops_per_config"][f"static_wi8_ai{bits}"])
    known |= {kind for kind, (_, stand_in) in STAND_INS.items() if stand_in in known}
    return known | {kind for kind, name in QUANTISER_NAMES.items() if name in known}


def _run_quantiser(
    model: bytes,
    limits: dict[int, tuple[float, float]],
    bits: int,
    integers: list[Node],
    halves: list[Node],
    quantize_io: bool,
) -> bytes:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import (
        ComputePrecision,
        OpQuantizationConfig,
        QuantGranularity,
        TensorQuantizationConfig,
        TFLOperationName,
    )
    from ai_edge_quantizer.quantizer import Quantizer

    static = OpQuantizationConfig(
        activation_tensor_config=TensorQuantizationConfig(num_bits=bits, symmetric=bits == 16),
        weight_tensor_config=TensorQuantizationConfig(num_bits=8, granularity=QuantGranularity.CHANNELWISE),
        compute_precision=ComputePrecision.INTEGER,
    )

    class Tool(Quantizer):
        """Leaves out a check that loads the float file, which the runtime refuses while stand-ins are in it."""

        def _ensure_model_qsv_sufficient(self, calibration_result: object) -> None:
            del calibration_result  # every tensor was watched

    tool = Tool(bytearray(model))
    every = TFLOperationName.ALL_SUPPORTED
    if integers:
        tool.update_quantization_recipe(_scopes(integers), every, static)
    if halves:
        tool.update_quantization_recipe(_scopes(halves), every, _half(), AlgorithmName.FLOAT_CASTING)
    # Inputs and outputs count as operators with the names of their tensors, so that what was said above reaches them.
    for place in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        if quantize_io:
            tool.update_quantization_recipe(".*", place, static)
        else:
            tool.update_quantization_recipe(".*", place, None, AlgorithmName.NO_QUANTIZE)
    values = {f"t{index}": {"min": np.array([low]), "max": np.array([high])} for index, (low, high) in limits.items()}
    return bytes(tool.quantize(values, enable_progress_bar=False, enable_progress_report=False).quantized_model)


def _scopes(nodes: list[Node]) -> str:
    """A pattern for these operators; the quantiser calls them by their outputs."""
    return "^(?:" + "|".join("".join(f"t{index};" for index in node.outputs) for node in nodes) + ")$"


def _account(content: object, nodes: list[Node], reasons: list[str | None]) -> dict:
    """What stayed float in a quantised file, whose tensors are still called by their old numbers."""
    from ai_edge_litert import schema_py_generated as schema

    graph, names = content.subgraphs[0], kinds()
    planned = {index: reason for node, reason in zip(nodes, reasons, strict=True) for index in node.outputs}
    found, why, total = Counter(), [], 0
    for op in graph.operators:
        kind = kind_of(content, op, names)
        total += 1
        if kind in CONVERSIONS:
            continue
        touched = [graph.tensors[i] for i in [*op.inputs, *op.outputs] if i >= 0]
        if all(tensor.type != schema.TensorType.FLOAT32 for tensor in touched):
            continue
        index = int(re.match(r"t(\d+)", graph.tensors[op.outputs[0]].name.decode()).group(1))
        if planned.get(index) is None:
            raise CheckFailed(f"the quantiser left a {kind} in float without a reason; report this as a bug")
        found[kind] += 1
        why.append(planned[index])
    return {
        "operators": total,
        "float_operators": dict(sorted(found.items())),
        "float_reasons": [f"{count} x {reason}" for reason, count in Counter(why).items()],
    }


def _integers(content: object) -> dict[str, tuple[str, float, int]]:
    from ai_edge_litert import schema_py_generated as schema

    types = {schema.TensorType.INT8: "int8", schema.TensorType.INT16: "int16"}
    stored = {}
    for entry in [*content.signatureDefs[0].inputs, *content.signatureDefs[0].outputs]:
        tensor = content.subgraphs[0].tensors[entry.tensorIndex]
        if tensor.type in types:
            scale, zero = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
            stored[entry.name.decode()] = (types[tensor.type], float(scale), int(zero))
    return stored


def _rename_operators(content: object, kinds_by_options: dict[str, str]) -> None:
    """Give operators with these options another code."""
    from ai_edge_litert import schema_py_generated as schema

    by_number = {getattr(schema.BuiltinOptions, options): kind for options, kind in kinds_by_options.items()}
    for op in content.subgraphs[0].operators:
        if op.builtinOptionsType in by_number:
            op.opcodeIndex = code_index(content, getattr(schema.BuiltinOperator, by_number[op.builtinOptionsType]))
