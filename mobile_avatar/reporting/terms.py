"""What an estimate adds up from."""

from mobile_avatar.benchmarking.result import Result
from mobile_avatar.reporting.clean import number


def terms(estimate: Result) -> list[tuple[str, float]]:
    """(what, ms): both terms, the longer of them layer by layer, and what starting the layers costs beside.

    The last two add up to the estimate; they are left out where a layer lacks a term.
    """
    known = (("Compute", estimate.compute_ms), ("Memory traffic", estimate.traffic_ms))
    found = [(name, value) for name, ms in known if (value := number(ms)) is not None]
    layers = [tuple(number(ms) for ms in (op.ms, op.compute_ms, op.traffic_ms)) for op in estimate.operators]
    if layers and all(None not in layer for layer in layers):
        longer = sum(max(compute, traffic) for _, compute, traffic in layers)
        found.append(("The longer of the two, layer by layer", longer))
        rest = sum(ms for ms, *_ in layers) - longer
        if rest >= 0.005:
            found.append((f"Starting {len(layers)} layers", rest))
    return found
