"""Time of a layer on a unit: the longer of its arithmetic and its memory traffic, and what a kernel costs beside."""

from collections.abc import Iterable
from dataclasses import dataclass

from mobile_avatar.benchmarking.devices import Unit
from mobile_avatar.graphs.layers import Layer

WIDTHS: dict[str, tuple[int, int]] = {"fp32": (4, 4), "fp16": (2, 2), "w8a16": (1, 2), "w8a8": (1, 1)}
"""Precision -> bytes of a weight and of an element of a computed tensor."""


@dataclass(frozen=True)
class LayerTime:
    """Estimated milliseconds of one layer."""

    layer: Layer
    compute_ms: float
    traffic_ms: float
    overhead_ms: float

    @property
    def ms(self) -> float:
        """Arithmetic and traffic overlap, so the longer one counts."""
        return max(self.compute_ms, self.traffic_ms) + self.overhead_ms


def layer_times(layers: Iterable[Layer], unit: Unit, precision: str, efficiency: float = 1.0) -> tuple[LayerTime, ...]:
    """Both terms of every layer.

    Args:
        precision: of the arithmetic, one that `unit.peak` has.
        efficiency: what calibration found: 1 means that the reachable shares of peak and bandwidth are reached.
    """
    weight, element = WIDTHS[precision]
    operations = unit.peak[precision].value * unit.compute_share.value * efficiency * 1e6  # per millisecond
    bus = unit.bandwidth.value * unit.traffic_share.value * efficiency * 1e6
    overhead = unit.overhead_us.value / 1000
    return tuple(
        LayerTime(
            layer,
            2 * layer.macs / operations,
            (layer.weights * weight + (layer.read + layer.written) * element) / bus,
            overhead,
        )
        for layer in layers
    )


def total_ms(times: Iterable[LayerTime]) -> float:
    """Layers run one after the other."""
    return sum(time.ms for time in times)
