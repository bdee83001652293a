"""Static int8 for ExecuTorch: what XNNPACK computes in integers, and an account of what it does not."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.export import ExportedProgram

NETWORK = "generator"
FLOAT_PARTS = {
    f"{NETWORK}.encoding": "the phases of the keypoints' harmonics would be rounded before the sine",
    f"{NETWORK}.heads": "the last layer: its outputs share one scale, and the mask's is too coarse for coordinates",
}
"""Layers that stay float in every precision, and why."""
SMALLEST_SCALE = 2.0**-20
"""XNNPACK's own quantiser stops at 2**-12, which costs bits wherever weights stay below 0.03."""
GLUE = ("quantize_per_", "dequantize_per_", "getitem", "executorch_call_delegate")
"""Nodes that are no operators of the graph itself."""
NO_INTEGER_FORM = ("leaky_relu", "maximum", "sigmoid", "tanh")
"""XNNPACK computes these in float even between int8 tensors: ExecuTorch knows no other form of them."""


@dataclass(frozen=True)
class Operator:
    """One operator of a lowered graph."""

    type: str
    """`convolution`, `leaky_relu`, ..."""
    delegated: bool
    """XNNPACK computes it; otherwise ExecuTorch's portable kernels do."""
    integer: bool
    """It reads and writes int8."""
    path: str
    """The layer that it belongs to, `generator.blocks.3.conv1`; empty at the top of the graph."""


def quantize(module: nn.Module, example: tuple[Tensor, ...], calibration: Tensor, keep: tuple[str, ...]) -> nn.Module:
    """A copy of a deployment graph with int8 weights (per channel) and static int8 activations.

    Args:
        example: inputs of the graph, for tracing.
        calibration: float32 (N, 136) keypoints in [-1, 1] whose minima and maxima become the ranges.
        keep: layers, as paths inside `module.generator`, that stay float; so does everything outside of it.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(_static_int8())
    quantizer.set_filter_function(_wanted((*FLOAT_PARTS, *(f"{NETWORK}.{name}" for name in keep))))
    prepared = prepare_pt2e(torch.export.export(module, example).module(), quantizer)
    with torch.no_grad():
        for row in calibration:
            prepared(row[None])
    return convert_pt2e(prepared)


def count_operators(program: "ExportedProgram") -> list[Operator]:
    """Every operator of a graph that was lowered, inside and outside of XNNPACK's partitions."""
    found = list(_operators(program.graph, False))
    for node in program.graph.nodes:
        if node.op == "get_attr" and hasattr(part := getattr(program.graph_module, node.target), "original_module"):
            found += _operators(part.original_module.graph, True)
    return found


def describe(operators: list[Operator], keep: tuple[str, ...]) -> dict:
    """`Product.quantization`: counts, and a sentence for every group of operators that stayed float."""
    floats = [operator for operator in operators if not operator.integer]
    reasons: dict[str, Counter] = {}
    for operator in floats:
        reasons.setdefault(_reason(operator, keep), Counter())[operator.type] += 1
    return {
        "operators": len(operators),
        "float_operators": dict(Counter(operator.type for operator in floats)),
        "float_reasons": [f"{_list(types)}: {reason}" for reason, types in reasons.items()],
        "not_in_xnnpack": dict(Counter(operator.type for operator in operators if not operator.delegated)),
    }


def _static_int8() -> object:
    from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec

    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=SMALLEST_SCALE),
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=SMALLEST_SCALE),
    )
    return QuantizationConfig(activation, activation, weight, None, False)


def _wanted(floats: tuple[str, ...]) -> Callable[[torch.fx.Node], bool]:
    def wanted(node: torch.fx.Node) -> bool:
        path = _path(node)
        # The quantiser also asks about the weights of a layer, which carry no path.
        return node.op != "call_function" or (_inside(path, NETWORK) and not any(_inside(path, p) for p in floats))

    return wanted


def _inside(path: str, part: str) -> bool:
    return f"{path}.".startswith(f"{part}.")


def _path(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return list(stack.values())[-1][0] if stack else ""


def _operators(graph: torch.fx.Graph, delegated: bool) -> Iterator[Operator]:
    for node in graph.nodes:
        name = _type(node) if node.op == "call_function" else GLUE[0]
        if not name.startswith(GLUE):
            integer = delegated and name not in NO_INTEGER_FORM and _is_integer(node)
            yield Operator(name, delegated, integer, _path(node))


def _type(node: torch.fx.Node) -> str:
    schema = getattr(getattr(node.target, "_op", node.target), "_schema", None)
    return schema.name.partition("::")[2] if schema is not None else getattr(node.target, "__name__", str(node.target))


def _is_integer(node: torch.fx.Node) -> bool:
    """Whether XNNPACK sees int8 in front of and behind an operator; an activation fused into it may lie between."""
    reads = [source for source in node.all_input_nodes if source.op == "call_function"]
    before = bool(reads) and all(
        _type(source).startswith("dequantize_per_") or _fuses(source, node) for source in reads
    )
    return before and all(_type(user).startswith("quantize_per_") or _fuses(node, user) for user in node.users)


def _fuses(node: torch.fx.Node, user: torch.fx.Node) -> bool:
    return user.op == "call_function" and _type(user) == "relu" and len(node.users) == 1


def _reason(operator: Operator, keep: tuple[str, ...]) -> str:
    if not operator.delegated:
        return "XNNPACK does not take it, ExecuTorch's portable kernel computes in float"
    for path, reason in FLOAT_PARTS.items():
        if _inside(operator.path, path):
            return reason
    if any(_inside(operator.path, f"{NETWORK}.{name}") for name in keep):
        return "kept by the recipe"
    if not _inside(operator.path, NETWORK):
        return "sampling grid, warp and compositing: 8-bit coordinates would move pixels"
    if operator.type in NO_INTEGER_FORM:
        return "ExecuTorch has no 8-bit form of it for XNNPACK"
    return "reads or feeds an operator that stays float"


def _list(types: Counter) -> str:
    return ", ".join(f"{count} {name}" for name, count in types.items())
