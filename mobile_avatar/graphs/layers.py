"""The work of a graph, layer by layer: multiply-accumulates, weights, and the elements that are read and written."""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_avatar.errors import BadInput, CheckFailed

if TYPE_CHECKING:
    import onnx

LAYERS = "layers.json"
"""Name of the table in a bundle."""
FORMAT = 1

# Another view of the same numbers: nothing is read or written.
_VIEWS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
# Runtimes for phones compute these where the result of the layer before is still at hand.
_ELEMENT_WISE = {
    *("Add", "Sub", "Mul", "Div", "Max", "Min", "Cast", "Floor", "Neg", "BatchNormalization"),
    *("Relu", "LeakyRelu", "PRelu", "Tanh", "Sigmoid", "Clip", "HardSwish", "HardSigmoid"),
}
# They touch only as many elements of their input as they give.
_SELECTING = {"Slice", "Gather"}
# Two of a kind in a row are one movement of data.
_MOVING = {"Slice", "Transpose"}


@dataclass(frozen=True)
class Layer:
    """One kernel of a runtime: a layer and the element-wise operators behind it. All numbers are per frame."""

    name: str
    type: str
    """ONNX operators in order: `Conv+Mul+Add+LeakyRelu`."""
    macs: int
    """Multiply-accumulates, those of convolutions and matrix products alone."""
    weights: int
    """Constant numbers that the layer needs."""
    read: int
    """Elements of computed tensors (and of a texture) that it reads."""
    written: int
    """Elements that it writes."""


def layer_table(model: "onnx.ModelProto") -> tuple[Layer, ...]:
    """Work per kernel, in the order of computation.

    Element-wise operators (activations, per-channel scale and bias, additions) are merged into the kernel that makes
    their input when nobody else reads that input, as GPU delegates, SNPE / QNN and Core ML do; what else they read is
    added. Slices and transposes in a row are one. Views are free, constants are weights. Multiply-accumulates sum up
    to those of `onnx_graph.count`.

    Args:
        model: fixed shapes, one output per node.

    Raises:
        CheckFailed: a shape is not fixed; the sentence names the node.
    """
    from mobile_avatar.graphs.onnx_graph import constants_of, node_macs, shapes_of

    shapes = shapes_of(model)
    constant = set(constants_of(model.graph))
    sizes = {name: math.prod(shape) for name, shape in shapes.items() if shape is not None}
    readers = Counter(name for node in model.graph.node for name in set(node.input))
    readers.update(value.name for value in model.graph.output)
    view: dict[str, str] = {}
    kernels: list[Layer] = []
    maker: dict[str, int] = {}
    for node in model.graph.node:
        inputs = [name for name in node.input if name]
        output = node.output[0]
        if all(name in constant for name in inputs):
            constant.add(output)
            continue
        if node.op_type in _VIEWS:
            # A tensor is needed as often as all of its views together.
            source = view.get(inputs[0], inputs[0])
            view[output] = source
            readers[source] += readers[output] - 1
            continue
        try:
            written = sizes[output]
            given = {name: sizes[name] for name in inputs if name not in constant}
            fixed = sum(sizes[name] for name in inputs if name in constant)
        except KeyError as error:
            raise CheckFailed(f"cannot count {node.op_type} {node.name}: its shapes are not fixed") from error
        before = _kernel_before(given, view, readers, maker)
        joins = node.op_type in _ELEMENT_WISE or (
            before is not None and node.op_type in _MOVING and kernels[before[1]].type.endswith(node.op_type)
        )
        if before is None or not joins:
            read = written if node.op_type in _SELECTING else sum(given.values())
            weights = fixed if node_macs(node, shapes) or node.op_type in _ELEMENT_WISE else 0
            if node.op_type == "GridSample":
                read += fixed  # the texture
            layer = Layer(_label(node), node.op_type, node_macs(node, shapes), weights, read, written)
            kernels.append(layer)
            maker[output] = len(kernels) - 1
            continue
        name, index = before
        layer = kernels[index]
        if node.op_type in _MOVING:
            read = written if node.op_type in _SELECTING else layer.read
            kernels[index] = replace(layer, read=read, written=written)
        else:
            kernels[index] = replace(
                layer,
                type=f"{layer.type}+{node.op_type}",
                weights=layer.weights + fixed,
                read=layer.read + sum(given.values()) - given[name],
                written=written,
            )
        maker[output] = index
    return tuple(kernels)


def save_layers(layers: tuple[Layer, ...], path: Path) -> None:
    """Write a table as JSON."""
    path.write_text(json.dumps({"format": FORMAT, "layers": [asdict(layer) for layer in layers]}, indent=1))


def load_layers(path: Path) -> tuple[Layer, ...]:
    """The reverse of `save_layers`; BadInput when the file is missing or damaged."""
    try:
        content = json.loads(path.read_text())
        kinds = {field.name: field.type for field in fields(Layer)}
        rows = [{name: row[name] for name in kinds} for row in content["layers"]]
        if content["format"] != FORMAT or not rows:
            raise ValueError(f"format {content['format']}, {len(rows)} layers")
        for row in rows:
            for name, kind in kinds.items():
                if type(row[name]) is not kind or (kind is int and row[name] < 0):
                    raise ValueError(f"{name}: {row[name]!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is not a table of layers ({error}); export the bundle again") from error
    return tuple(Layer(**row) for row in rows)


def _kernel_before(
    given: dict[str, int], view: dict[str, str], readers: Counter, maker: dict[str, int]
) -> tuple[str, int] | None:
    """The input through which an operator may join the kernel before it, and that kernel; None when it cannot.

    It has to be the kernel made last: by then everything else the operator reads is there.
    """
    made = {name: maker[view.get(name, name)] for name in given if view.get(name, name) in maker}
    if not made:
        return None
    name = max(made, key=made.get)
    return (name, made[name]) if readers[view.get(name, name)] == 1 else None


def _label(node: "onnx.NodeProto") -> str:
    """`/generator/blocks.0/conv1/Conv` -> `blocks.0/conv1`; the output's name where the node has none."""
    path = (node.name or node.output[0]).strip("/").removeprefix("generator/").split("/")
    return "/".join(path[:-1] if len(path) > 1 and path[-1].rpartition("_")[0] in ("", node.op_type) else path)
