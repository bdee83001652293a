"""Which operators of a .tflite graph compute with integers, and why the others do not."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from mobile_avatar.graphs.tflite_graph import kind_of, kinds

CONVERSIONS = {"QUANTIZE", "DEQUANTIZE"}
"""Operators between integers and real numbers; they belong to neither side."""
GRID = "the sampling grid is added in float: 8-bit coordinates would move pixels"
TAIL = "the warp and the composition compute in float: 8 bits are too few for coordinates, 16-bit operators are missing"
KEPT = "the recipe keeps these layers (and what follows them without weights) above 8 bits"
LEFT = "only some layers were asked for"
UNKNOWN = "there is no {kind} for integers of this width"

ACTIVATIONS = ("activate", "activation")
GENERATOR = "_generator"


@dataclass(frozen=True)
class Node:
    """One operator of a float graph."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: tuple[int, ...]
    """Inputs that are float constants."""
    layer: str | None
    """Path inside the generator, for operators with weights."""
    outside: bool
    """Whether it stands behind the generator."""


def read_nodes(content: object) -> list[Node]:
    """The operators of a float model (a `ModelT` with one subgraph), in order."""
    from ai_edge_litert import schema_py_generated as schema

    graph, names = content.subgraphs[0], kinds()
    behind: set[int] = set()  # tensors made by operators behind the generator
    nodes = []
    for op in graph.operators:
        inputs = tuple(int(index) for index in op.inputs if index >= 0)
        outputs = tuple(map(int, op.outputs))
        floats = [i for i in inputs if graph.tensors[i].type == schema.TensorType.FLOAT32]
        constants = tuple(i for i in floats if content.buffers[graph.tensors[i].buffer].data is not None)
        weighted = any(np.prod(graph.tensors[i].shape) > 1 for i in constants)
        name = graph.tensors[outputs[0]].name.decode()
        inside = f"{GENERATOR}/" in name or f"{GENERATOR};" in name
        layer = _layer(name) if weighted and inside else None
        # Outputs carry a name of the signature instead of a scope; the grid is what comes with a constant there.
        outside = bool(behind & set(inputs)) or (not inside and ("_module" in name or weighted))
        if outside:
            behind |= set(outputs)
        kind = kind_of(content, op, names)
        nodes.append(Node(kind, inputs, outputs, constants, layer, outside))
    return nodes


def layers_of(nodes: list[Node]) -> list[str]:
    """Paths of the layers, in order of execution."""
    return list(dict.fromkeys(node.layer for node in nodes if node.layer))


def matches(layer: str, paths: Collection[str]) -> bool:
    """Whether a layer is one of `paths` or lies inside one."""
    return any(layer == path or layer.startswith(f"{path}.") for path in paths)


def plan(
    nodes: list[Node], precision: str, known: Collection[str], keep: Collection[str], only: Collection[str] | None
) -> list[str | None]:
    """Per operator None for integers, or the reason why it stays float.

    Operators without weights compute as what they read: float where all of it was asked to be. So a kept layer is
    not rounded before its activation.

    Args:
        known: Operators that the quantiser has for this precision.
        keep: Layers that stay float.
        only: Layers that become integer, all others stay float; None: all.
    """
    reasons: list[str | None] = []
    made: dict[int, str | None] = {}
    for node in nodes:
        reason = _reason(node, precision, known, keep, only, made)
        reasons.append(reason)
        made |= dict.fromkeys(node.outputs, reason)
    return reasons


def _reason(
    node: Node,
    precision: str,
    known: Collection[str],
    keep: Collection[str],
    only: Collection[str] | None,
    made: dict[int, str | None],
) -> str | None:
    read = [made[i] for i in node.inputs if i in made]
    if node.outside:
        grid = node.kind == "ADD" and node.constants and not {GRID, TAIL} & set(read)
        return (None if precision == "w8a16" else GRID) if grid else TAIL
    if node.layer is not None:
        if matches(node.layer, keep):
            return KEPT
        if only is not None and not matches(node.layer, only):
            return LEFT
    elif read and all(reason in (KEPT, LEFT) for reason in read):
        return read[0]
    return None if node.kind in known else UNKNOWN.format(kind=node.kind)


def _layer(name: str) -> str | None:
    """`blocks.3.conv1` from a tensor name of the converter.

    It consists of scopes like `...FoldedGenerator_generator/...FoldedBlock_3/torch.nn.modules.conv.Conv2d_conv1;2`:
    class and attribute of every module on the way, where lists leave no trace. Fused operators have several.
    """
    for scope in name.split(";"):
        _, inside, rest = scope.partition(f"{GENERATOR}/")
        parts = [part.rpartition(".")[2].partition("_") for part in rest.split("/")] if inside else []
        steps = [attribute for _, _, attribute in parts]
        if not steps or steps[-1] in ACTIVATIONS:
            continue
        if steps[0].isdigit():
            steps.insert(0, "mlp" if parts[0][0] == "Linear" else "blocks")
        return ".".join(steps[: {"blocks": 3, "mlp": 2}.get(steps[0], 1)])
    return None
