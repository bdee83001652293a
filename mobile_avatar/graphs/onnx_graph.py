"""Deployment modules as ONNX graphs: exporting, simplifying, halving and counting them."""

import io
import math
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper, shape_inference
from torch import nn

from mobile_avatar.errors import CheckFailed
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
    import onnxsim

    names = _interface(model)
    try:
        # onnxsim compares both models on random inputs itself.
        simple, agrees = onnxsim.simplify(model, check_n=1)
        onnx.checker.check_model(simple, full_check=True)
    except Exception as error:  # whatever a third-party optimiser may raise, the plain graph is right
        return model, f"onnxsim failed ({str(error).splitlines()[0][:120]}); the graph was kept unsimplified"
    if not agrees or _interface(simple) != names:
        return model, "onnxsim changed what the graph computes; the graph was kept unsimplified"
    return simple, None


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
    wide = _coordinate_nodes(nodes, {value.name for value in graph.output})
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in nodes if _is_constant(node)}
    types = _float_types(model)

    def is_wide(index: int, position: int) -> bool:
        return index in wide or position in _ALWAYS_FLOAT.get(nodes[index].op_type, ())

    # Every float tensor gets one type from the node that makes it; a reader of the other type gets a cast.
    made_wide = {name for index in wide for name in nodes[index].output} | {value.name for value in graph.input}
    rebuilt: list[onnx.NodeProto] = []
    copies: dict[tuple[str, bool], str] = {}

    def as_type(name: str, want_wide: bool) -> str:
        if name not in types or (name not in constants and (name in made_wide) == want_wide):
            return name
        if (name, want_wide) not in copies:
            suffix = "fp32" if want_wide else "fp16"
            copies[name, want_wide] = f"{name}_{suffix}"
            if name in constants:
                graph.initializer.append(_constant(constants[name], f"{name}_{suffix}", want_wide))
            else:
                kind = TensorProto.FLOAT if want_wide else TensorProto.FLOAT16
                cast = helper.make_node("Cast", [name], [f"{name}_{suffix}"], f"{name}_to_{suffix}", to=kind)
                rebuilt.append(cast)
        return copies[name, want_wide]

    outputs = {value.name for value in graph.output if value.name in types}
    renamed = {name: f"{name}_half" for name in outputs if name not in made_wide}
    for index, node in enumerate(nodes):
        if _is_constant(node) and node.output[0] in types:
            continue  # re-made as an initializer of the type its readers want
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(as_type(name, is_wide(index, position)), name) if name in renamed else (
                as_type(name, is_wide(index, position))
            )
        rebuilt.append(node)
        for position, name in enumerate(node.output):
            if name in renamed:
                node.output[position] = renamed[name]
                rebuilt.append(
                    helper.make_node("Cast", [renamed[name]], [name], f"{name}_to_fp32", to=TensorProto.FLOAT)
                )
    del graph.node[:]
    graph.node.extend(rebuilt)
    return half
