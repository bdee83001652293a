"""ONNX float -> QDQ ONNX in the form that Qualcomm's Hexagon NPU keeps in integers from end to end.

Weights are 8 bits per output channel. In `w8a8` and `mixed` a part of the activations has 16 bits (a "wide" node
reads and writes 16-bit tensors): the way from the last residual sum to the outputs, since coordinates of 8 bits move
pixels, the layers on the keypoints, which cost nothing, and the layers that `mixed` keeps.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_avatar.graphs.onnx_runtime import load_onnxruntime
from mobile_avatar.graphs.spec import GraphSpec

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
NARROW, WIDE = "uint8", "uint16"
DENSE = ("Gemm", "MatMul")
MULTIPLIERS = ("Conv", "ConvTranspose", *DENSE)
# A walk through cheap neighbours of a layer ends at these: behind an up-sampling a tensor is four times as large.
_BORDERS = (*MULTIPLIERS, "Resize", "DepthToSpace")
# Their output has the scale of their input, so a range is set where the values are made.
_MOVES = ("Transpose", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Flatten")
# QNN wants fixed scales behind these.
_FIXED = ("Tanh", "Sigmoid")


@dataclass(frozen=True)
class Quantized:
    """A QDQ model and what was decided about it."""

    model: object
    """onnx.ModelProto."""
    wide: int
    """Operators whose activations have 16 bits."""
    operators: int
    integers: dict[str, tuple[str, float, int]]
    """Integer inputs and outputs, name -> (dtype, scale, zero point); empty where they are float."""
    missing: tuple[str, ...]
    """Kept layers without an operator of their own in this graph."""


def quantize_model(
    model: object,
    spec: GraphSpec,
    calibration: np.ndarray,
    precision: str,
    keep: Iterable[str] = (),
    quantize_io: bool = False,
) -> Quantized:
    """Calibrate a float32 model with ONNX Runtime's quantiser and insert Quantize/Dequantize pairs.

    Args:
        model: onnx.ModelProto, simplified, float32, with one input.
        spec: names and ranges of its inputs and outputs.
        calibration: (N, 136) float32; minimum and maximum of every tensor over them are its range.
        precision: `w8a8`, `w8a16` or `mixed`.
        keep: `mixed`: layers, as paths inside the generator, that get 16-bit activations.
        quantize_io: inputs and outputs are integers, without a Quantize in front or a Dequantize behind.
    """
    load_onnxruntime()
    import onnx
    from onnxruntime.quantization import QuantType, quantize
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

    source = onnx.ModelProto.FromString(model.SerializeToString())
    _inline_constants(source.graph)
    types = {NARROW: QuantType.QUInt8, WIDE: QuantType.QUInt16}
    default, wide, missing = WIDE, set(), []
    if precision != "w8a16":
        default = NARROW
        kept = {path: layer_nodes(source.graph, path) for path in keep}
        missing = [path for path, nodes in kept.items() if not nodes]
        wide = wide_nodes(source.graph, set().union(*kept.values()))
    overrides = {
        name: [{"quant_type": types[kind], **({"convert": _converted(convert, types)} if convert else {})}]
        for name, (kind, convert) in activation_types(source.graph, wide).items()
    }
    for name, limits in _ranges(source.graph, spec).items():
        entry = overrides.setdefault(name, [{"quant_type": types[default]}])[0]
        entry |= {"rmin": np.float32(limits[0]), "rmax": np.float32(limits[1])}
    config = get_qnn_qdq_config(
        source,
        _reader(spec.inputs[0].name, calibration),
        activation_type=types[default],
        weight_type=QuantType.QInt8,
        per_channel=True,
        init_overrides=overrides,
        add_qtype_converts=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "quantized.onnx")
        quantize(source, path, config)
        result = onnx.load(path)
    integers = _expose_integers(result.graph, spec) if quantize_io else {}
    del result.metadata_props[:]
    result.metadata_props.extend(model.metadata_props)
    result.producer_name = model.producer_name
    count = len(source.graph.node)
    return Quantized(result, count if default == WIDE else len(wide), count, integers, tuple(missing))


def layer_nodes(graph: object, path: str) -> set[str]:
    """Names of the nodes of a layer: those in its scope, and those that read its parameters.

    Scopes show every module that was called, `/generator/blocks.3/conv2/Conv`, but what was called may differ between
    graphs, so separators are not compared. A node that an optimiser fused and renamed still reads the parameters.
    """
    prefix = f"generator.{path}."
    return {
        node.name
        for node in graph.node
        if node.name.strip("/").replace("/", ".").startswith(prefix)
        or any(name.startswith(prefix) for name in node.input)
    }


def wide_nodes(graph: object, kept: set[str]) -> set[str]:
    """Names of the nodes with 16-bit activations in `w8a8` and `mixed`.

    These are, each with the cheap nodes between it and its neighbours: the multiplications in front of the outputs,
    those of the keypoint layers, and `kept`.
    """
    makers, readers = _links(graph)
    wide, pending = set(), [maker for output in graph.output if (maker := makers.get(output.name))]
    seeds = [node for node in graph.node if node.name in kept or node.op_type in DENSE]
    while pending:  # from the outputs to the heads, whatever lies between
        node = pending.pop()
        if node.name in wide:
            continue
        wide.add(node.name)
        if node.op_type in MULTIPLIERS:
            seeds.append(node)
        else:
            pending += [makers[name] for name in node.input if name in makers]
    for seed in seeds:
        wide.add(seed.name)
        for follow in (
            lambda node: [makers[name] for name in node.input if name in makers],
            lambda node: [reader for name in node.output for reader in readers.get(name, ())],
        ):
            pending = follow(seed)
            while pending:
                node = pending.pop()
                if node.op_type not in _BORDERS and node.name not in wide:
                    wide.add(node.name)
                    pending += follow(node)
    return wide


def activation_types(graph: object, wide: set[str]) -> dict[str, tuple[str, tuple[str, set[str]] | None]]:
    """Tensors that are not plainly 8 bits: name -> (type it is made in, (type, its readers) where it is converted)."""
    makers, readers = _links(graph)
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types: dict[str, tuple[str, tuple[str, set[str]] | None]] = {}
    for name in [value.name for value in graph.input] + [name for node in graph.node for name in node.output]:
        all_readers = {node.name for node in readers.get(name, ())}
        # An input is made in the type that its readers want.
        is_wide = makers[name].name in wide if name in makers else bool(all_readers & wide)
        others = all_readers - wide if is_wide else all_readers & wide
        if is_wide or others:
            kind, other = (WIDE, NARROW) if is_wide else (NARROW, WIDE)
            types[name] = kind, (other, others) if others else None
    for node in graph.node:
        if node.name in wide and node.op_type not in (*MULTIPLIERS, "Resize"):
            # A constant summand or factor of another width than the activation would leave the operator in float.
            types |= {name: (WIDE, None) for name in node.input if constants.get(name) == 1}  # TensorProto.FLOAT
    return types


def float_operators(graph: object) -> tuple[int, dict[str, int]]:
    """How many operators a QDQ graph has, and by type how many of them stand not between Dequantize and Quantize."""
    makers, readers = _links(graph)
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    operators = [node for node in graph.node if node.op_type not in (QUANTIZE, DEQUANTIZE)]
    found: dict[str, int] = {}
    for node in operators:
        made = [makers[name].op_type == DEQUANTIZE for name in node.input if name in makers]
        made += [False for name in node.input if node.op_type != "Resize" and constants.get(name) == 1]
        read = [reader.op_type == QUANTIZE for name in node.output for reader in readers.get(name, ())]
        if not (all(made) and read and all(read)):
            found[node.op_type] = found.get(node.op_type, 0) + 1
    return len(operators), found


def _links(graph: object) -> tuple[dict[str, object], dict[str, list[object]]]:
    """Tensor name -> the node that makes it, and the nodes that read it."""
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[object]] = {}
    for node in graph.node:
        for name in filter(None, node.input):
            readers.setdefault(name, []).append(node)
    return makers, readers


def _inline_constants(graph: object) -> None:
    """Constant nodes -> initializers: the quantiser would quantise the scales of a Resize, which then stays float."""
    import onnx

    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = onnx.TensorProto.FromString(node.attribute[0].t.SerializeToString())
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(nodes)


def _converted(convert: tuple[str, set[str]], types: dict[str, object]) -> dict:
    kind, names = convert
    return {"quant_type": types[kind], "recv_nodes": names}


def _ranges(graph: object, spec: GraphSpec) -> dict[str, tuple[float, float]]:
    """Tensors whose range is known without calibration: a pose that it did not see must not be cut off."""
    makers, _ = _links(graph)
    ranges = {tensor.name: tensor.range for tensor in spec.inputs}
    for tensor in spec.outputs:
        name = tensor.name
        while makers[name].op_type in _MOVES:
            name = makers[name].input[0]
        if makers[name].op_type not in _FIXED:
            ranges[name] = tensor.range
    return ranges


def _reader(name: str, calibration: np.ndarray) -> object:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {name: row[None]}

    return Reader()


def _expose_integers(graph: object, spec: GraphSpec) -> dict[str, tuple[str, float, int]]:
    """Drop the Quantize of every input and the Dequantize of every output; returns how their integers are read."""
    import onnx
    from onnx import numpy_helper

    makers, readers = _links(graph)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    values = {value.name: value for value in (*graph.input, *graph.output)}
    integers, dropped = {}, []
    for tensor in (*spec.inputs, *spec.outputs):
        node = readers[tensor.name][0] if tensor in spec.inputs else makers[tensor.name]
        # The integers take over the name of the float tensor: behind a Quantize, or in front of a Dequantize.
        stored = node.output[0] if tensor in spec.inputs else node.input[0]
        if stored in makers:
            makers[stored].output[:] = [tensor.name]
        for reader in readers[stored]:
            reader.input[:] = [tensor.name if name == stored else name for name in reader.input]
        dropped.append(node.name)
        scale, zero = constants[node.input[1]], constants[node.input[2]]
        values[tensor.name].type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(zero.dtype)
        integers[tensor.name] = (zero.dtype.name, float(scale), int(zero))
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in graph.node if n.name not in dropped]
    del graph.node[:]
    graph.node.extend(nodes)
    return integers
