"""The estimate of a bundle as rows: one, or one per graph and their sum where a frame takes several graphs."""

from dataclasses import replace

from mobile_avatar.benchmarking.estimate import LEFT_OUT, bundle_layers, estimate, estimate_result, result_of
from mobile_avatar.benchmarking.result import FRAME, Result
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.errors import BadInput
from mobile_avatar.graphs.layers import LAYERS, Layer

NOT_LAYERS = "the draw call of the GPU, the mesh graph on the CPU"
ON_CPU = (
    "the CPU computes it and most of it is looking up vertices, about which the roofline knows nothing; "
    "`mobile-avatar benchmark BUNDLE --on host` times it here"
)


def estimate_rows(subject: Subject, device: str) -> tuple[Result, ...]:
    """The estimate for one chip; the last row is that of a whole frame.

    Of several graphs the frame is the sum of those that an accelerator computes, with the layers of all of them; what
    the CPU and the draw call take is named as left out. BadInput as `estimate_result`.
    """
    if not subject.graphs:
        return (estimate_result(subject, device),)
    layers = graph_layers(subject)
    rows = [_row(graph, layers.get(graph.name, ()), device) for graph in subject.graphs]
    whole = _row(subject, [layer for graph in subject.graphs for layer in layers.get(graph.name, ())], device)
    return (*rows, replace(whole, graph=FRAME))


def graph_layers(subject: Subject) -> dict[str, tuple[Layer, ...]]:
    """Graph -> its part of the bundle's work table, which holds the graphs of accelerators one after another.

    A part ends with the layer at which the multiply-accumulates reach those of the graph. BadInput for a table that
    does not belong to these graphs.
    """
    layers, found, start = bundle_layers(subject), {}, 0
    for graph in subject.graphs:
        if graph.warp == "gather":
            continue
        end, macs = start, 0
        while end < len(layers) and macs < graph.manifest["macs"]:
            macs += layers[end].macs
            end += 1
        if macs != graph.manifest["macs"]:
            raise BadInput(f"{subject.folder}/{LAYERS} is not about the graphs of this bundle; export it again")
        found[graph.name] = layers[start:end]
        start = end
    return found | {graph.name: found[graph.name] + layers[start:] for graph in subject.graphs[-1:] if start}


def _row(subject: Subject, layers: tuple[Layer, ...] | list[Layer], device: str) -> Result:
    """One graph, or the whole bundle; an error where the chip, or the table of layers, has nothing for it."""
    if not layers:
        return result_of(subject, device, None, ON_CPU)
    # Nothing is warped inside these graphs: `split` has the rules of accelerators and the draw call besides.
    found, method = estimate(layers, subject.target, subject.precision, "split", device)
    if found is not None:
        method = found.method("", f"{NOT_LAYERS}, {LEFT_OUT}" if not subject.name else LEFT_OUT)
    return result_of(subject, device, found, method)
