"""Deployment modules as ONNX graphs: exporting, simplifying, halving and counting them."""

import contextlib
import io
import math
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper, shape_inference
from torch import nn

from mobile_avatar.errors import CheckFailed, first_line
from mobile_avatar.graphs.onnx_runtime import load_onnxruntime
from mobile_avatar.graphs.spec import GraphSpec

OPSET = 17  # the first with everything used here; Qualcomm's and Microsoft's tools have known it longest
FP16_MAX = 65504.0

# Inputs that ONNX defines as float32 whatever the data is: Resize's region and scales.
_ALWAYS_FLOAT = {"Resize": {1, 2}}
# What may stand between the tanh of the offsets and the warp: these steps keep coordinates in float32.
_COORDINATE_STEPS = {"Add", "Transpose", "Mul", "Concat", "Reshape"}


def to_onnx(module: nn.Module, spec: GraphSpec) -> onnx.ModelProto:
    """Trace `module` with fixed shapes; inputs and outputs carry the names of `spec`.

    Args:
        module: deployment graph in eval mode, float32; its outputs come in the order of `spec.outputs`.
        spec: names and shapes.

    Returns:
        A checked float32 model of opset 17, weights inside, shapes of every tensor inferred.

    Raises:
        CheckFailed: the traced outputs do not have the shapes of `spec`.
    """
    inputs = tuple(torch.zeros(tensor.shape) for tensor in spec.inputs)
    buffer = io.BytesIO()
    # The TorchScript exporter needs no further package and keeps the parameter names; it announces its age on stderr.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            inputs,
            buffer,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    for tensor, value in zip(spec.outputs, model.graph.output, strict=True):
        found = _shape(value.type)
        if found != tensor.shape:
            raise CheckFailed(f"the graph's output {tensor.name} has shape {found}, the contract says {tensor.shape}")
    return model


def simplify(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str | None]:
    """Fold constants and drop no-ops with onnxsim.

    Returns:
        The simplified model and None; or the model as it was and one sentence that says why it was kept.
    """
    load_onnxruntime()  # before onnxsim imports it on its own
    import onnxsim

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            simple, _ = onnxsim.simplify(model)
        onnx.checker.check_model(simple, full_check=True)
        agrees = _interface(simple) == _interface(model) and _agree(model, simple)
    except Exception as error:  # whatever a third-party optimiser may raise, the plain graph is right
        return model, f"onnxsim failed ({first_line(error)}); the graph was kept unsimplified"
    if not agrees:
        return model, "onnxsim changed what the graph computes; the graph was kept unsimplified"
    # It leaves notes about itself and imports of domains that no node uses.
    used = {node.domain for node in simple.graph.node}
    imports = [entry for entry in simple.opset_import if entry.domain in used]
    del simple.opset_import[:], simple.metadata_props[:]
    simple.opset_import.extend(imports)
    return simple, None


def _agree(first: onnx.ModelProto, second: onnx.ModelProto) -> bool:
    """Whether two models compute the same from one random input, up to float rounding."""
    onnxruntime = load_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    rng = np.random.default_rng(0)
    feeds = {v.name: rng.uniform(-1, 1, _shape(v.type)).astype(np.float32) for v in first.graph.input}
    results = []
    for model in (first, second):
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        results.append(session.run(None, feeds))
    return all(np.allclose(a, b, atol=1e-3) for a, b in zip(*results, strict=True))


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Half-precision weights and arithmetic; inputs, outputs, coordinates and the warp stay float32.

    Sampling coordinates lose up to 0.03 pixels at 256 px when the identity grid is added in half precision, so that
    addition, GridSample and everything after it (composition of the image) are kept in float32; they are
    element-wise and cost nothing beside the convolutions. The `uv` output is such a coordinate.

    Raises:
        CheckFailed: a weight is too large for half precision; the sentence names it.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    nodes = list(graph.node)
    wide = _float32_nodes(nodes)
    floats = _float_tensors(model)
    constants = constants_of(graph)
    outputs = {value.name for value in graph.output}
    # A computed tensor is float32 where it enters the graph or leaves a float32 node, and half elsewhere.
    made_wide = {value.name for value in graph.input} | {name for index in wide for name in nodes[index].output}
    casts: dict[str, onnx.NodeProto] = {}
    halved: dict[str, onnx.TensorProto] = {}

    def named(name: str, as_wide: bool) -> str:
        """The name of a tensor's float32 or half version; the contract's names belong to the float32 ones."""
        keeps_name = name in made_wide or name in outputs or name in constants
        if as_wide:
            return name if keeps_name else f"{name}_fp32"
        return f"{name}_fp16" if keeps_name else name

    def read(name: str, as_wide: bool) -> str:
        if name not in floats:
            return name
        result = named(name, as_wide)
        if name in constants:
            if not as_wide and result not in halved:
                halved[result] = _half_constant(constants[name], result)
        elif as_wide != (name in made_wide) and result not in casts:
            kind = TensorProto.FLOAT if as_wide else TensorProto.FLOAT16
            casts[result] = helper.make_node("Cast", [named(name, not as_wide)], [result], f"{result}_cast", to=kind)
            rebuilt.append(casts[result])
        return result

    rebuilt: list[onnx.NodeProto] = []
    for index, node in enumerate(nodes):
        if node.op_type == "Constant" and node.output[0] in constants:
            continue  # comes back as an initializer of the type that its readers want
        always = _ALWAYS_FLOAT.get(node.op_type, ())
        node.input[:] = [read(name, index in wide or i in always) for i, name in enumerate(node.input)]
        made = list(node.output)
        node.output[:] = [named(name, index in wide) if name in floats else name for name in made]
        rebuilt.append(node)
        for name in outputs.intersection(made):
            read(name, True)  # a result computed in half precision leaves the graph as float32
    used = {name for node in rebuilt for name in node.input}
    kept = [tensor for name, tensor in constants.items() if name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(rebuilt)
    graph.initializer.extend([*kept, *halved.values()])
    half = shape_inference.infer_shapes(half, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(half, full_check=True)
    return half


def count(model: onnx.ModelProto) -> tuple[int, int]:
    """Parameters and multiply-accumulates of one frame, counted from the graph.

    MACs are those of Conv, ConvTranspose, Gemm and MatMul; activations, resizing, per-channel affine layers and the
    warp are left out, as in the published figures. Parameters are the constants of those layers and of per-channel
    arithmetic (one number per channel); the texture, the identity grid and shapes are data, not parameters.

    Raises:
        CheckFailed: a shape that the count needs is not fixed.
    """
    constants = constants_of(model.graph)
    shapes = shapes_of(model)
    parameters: dict[str, int] = {}
    macs = 0
    for node in model.graph.node:
        macs += node_macs(node, shapes)
        for name in node.input:
            size = math.prod(shapes[name]) if name in constants else 0
            per_channel = size and node.op_type in ("Mul", "Add") and size == max(shapes[name], default=1)
            if size and (node.op_type in _MACS or per_channel):
                parameters[name] = size
    return sum(parameters.values()), macs


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...] | None]:
    """Shapes of all tensors by name, constants included; None where a dimension is open."""
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {name: tuple(tensor.dims) for name, tensor in constants_of(graph).items()}
    return shapes | {value.name: _shape(value.type) for value in _values(graph)}


def node_macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...] | None]) -> int:
    """Multiply-accumulates of one node; 0 for types that have none. CheckFailed when its shapes are not fixed."""
    if node.op_type not in _MACS:
        return 0
    try:
        return _MACS[node.op_type](node, [shapes[name] for name in node.input], shapes[node.output[0]])
    except (KeyError, TypeError) as error:
        raise CheckFailed(f"cannot count {node.op_type} {node.name}: its shapes are not fixed") from error


def _conv_macs(node: onnx.NodeProto, inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> int:
    weight = inputs[1]  # (out, in / groups, kernel...)
    return math.prod(output) * math.prod(weight[1:])


def _transposed_macs(node: onnx.NodeProto, inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> int:
    weight = inputs[1]  # (in, out / groups, kernel...)
    return math.prod(inputs[0]) * math.prod(weight[1:])


def _gemm_macs(node: onnx.NodeProto, inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(output) * inputs[0][0 if transposed else 1]


def _matmul_macs(node: onnx.NodeProto, inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> int:
    return math.prod(output) * inputs[0][-1]


_MACS = {"Conv": _conv_macs, "ConvTranspose": _transposed_macs, "Gemm": _gemm_macs, "MatMul": _matmul_macs}


def _float32_nodes(nodes: list[onnx.NodeProto]) -> set[int]:
    """Indices of the nodes that stay float32: coordinates on their way to `uv` or a warp, the warp, and its readers."""
    maker = {name: index for index, node in enumerate(nodes) for name in node.output}
    pending = ["uv", *(node.input[1] for node in nodes if node.op_type == "GridSample")]
    wide: set[int] = set()
    while pending:
        index = maker.get(pending.pop())
        if index is not None and index not in wide and nodes[index].op_type in _COORDINATE_STEPS:
            wide.add(index)
            pending.extend(nodes[index].input)
    after = set()
    for index, node in enumerate(nodes):
        if node.op_type == "GridSample" or after.intersection(node.input):
            wide.add(index)
            after.update(node.output)
    return wide


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Initializers and the values of Constant nodes, by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            found[tensor.name] = tensor
    return found


def _half_constant(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    if not np.all(np.abs(values) <= FP16_MAX):
        raise CheckFailed(f"weight {tensor.name} holds values beyond {FP16_MAX:.0f}: export it with --precision fp32")
    return numpy_helper.from_array(values.astype(np.float16), name)


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.input
    yield from graph.value_info
    yield from graph.output


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of all float32 tensors, computed and constant."""
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    names = {v.name for v in _values(inferred.graph) if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    return names | {n for n, tensor in constants_of(model.graph).items() if tensor.data_type == TensorProto.FLOAT}


def _shape(kind: onnx.TypeProto) -> tuple[int, ...] | None:
    """Fixed dimensions, or None when one of them is open."""
    dims = kind.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None


def _interface(model: onnx.ModelProto) -> list[tuple[str, tuple[int, ...] | None]]:
    return [(v.name, _shape(v.type)) for values in (model.graph.input, model.graph.output) for v in values]
