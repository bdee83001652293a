"""How much of the roofline a unit reaches: one efficiency per unit and precision, fitted to published times."""

import functools
import math
import statistics
from collections import Counter
from dataclasses import dataclass

from mobile_avatar.benchmarking.devices import Point, Unit, units
from mobile_avatar.benchmarking.reference_models import CLASSIFIERS, reference_layers
from mobile_avatar.benchmarking.roofline import layer_times

FLOORS = {1: 2.0, 2: 1.5}
LEAST = 1.25
"""The spread is never taken as smaller: few points (FLOORS) say little, and another runtime, driver or temperature
changes a time by a quarter (LEAST) even where all points agree."""
NONE = 2.0
"""The same for a unit without any point."""


@dataclass(frozen=True)
class Residual:
    """A published time beside the estimate after the fit."""

    point: Point
    estimate_ms: float

    @property
    def factor(self) -> float:
        """Published / estimated."""
        return self.point.ms.value / self.estimate_ms


@dataclass(frozen=True)
class Calibration:
    """Result of the fit."""

    efficiency: float
    spread: float
    """A time is expected between estimate / spread and estimate * spread."""
    residuals: tuple[Residual, ...]
    basis: str
    """What the numbers rest on, a few words."""


@functools.cache
def calibrate(unit: str, precision: str) -> Calibration:
    """Efficiency of a unit from its own published times, or else from those of comparable units.

    With own points the log residuals average to nothing, where classifiers and image-to-image networks weigh alike
    however many there are of each, and the spread is the largest residual. Without, the efficiency is the median of
    comparable units (same family, in this precision where there are any), and the spread covers how far these lie
    apart and how far their own points do.
    """
    own = _fit(units()[unit], precision)
    if own is not None:
        return own
    family = [other for other in units().values() if other.family == units()[unit].family]
    fits = {(other.title, kind): _fit(other, kind) for other in family for kind in other.peak}
    fits = {key: fit for key, fit in fits.items() if fit is not None}
    alike = {key: fit for key, fit in fits.items() if key[1] == precision} or fits
    efficiency = statistics.median(fit.efficiency for fit in alike.values())
    apart = max(math.exp(abs(math.log(fit.efficiency / efficiency))) for fit in alike.values())
    spread = max(NONE, apart * max(fit.spread for fit in alike.values()))
    names = ", ".join(f"{title} in {kind}" for title, kind in alike)
    return Calibration(
        efficiency, spread, (), f"comparable units, since no time of this one is known (median of {names})"
    )


def scatter(family: str, overhead_us: float) -> float:
    """Root mean square of the log residuals of a family if a kernel cost this much: what its overhead is fitted by."""
    found = []
    for unit in units().values():
        if unit.family == family:
            for precision in unit.peak:
                fit = _fit(unit, precision, overhead_us)
                found += [math.log(residual.factor) for residual in fit.residuals] if fit else []
    return math.sqrt(statistics.fmean(value**2 for value in found))


def _fit(unit: Unit, precision: str, overhead_us: float | None = None) -> Calibration | None:
    """The efficiency at which a unit's points are over- and underestimated alike; None without points."""
    points = [point for point in unit.points if point.precision == precision]
    if not points:
        return None
    overhead = (unit.overhead_us.value if overhead_us is None else overhead_us) / 1000
    kinds = Counter(point.model in CLASSIFIERS for point in points)
    work = []
    for point in points:
        times = layer_times(reference_layers(point.model), unit, precision)
        ideal = sum(max(time.compute_ms, time.traffic_ms) for time in times)
        work.append((point, ideal, len(times) * overhead, 1 / kinds[point.model in CLASSIFIERS]))
    low, high = 1e-3, 1e3
    for _ in range(80):  # bisection: estimates fall as the efficiency grows
        efficiency = math.sqrt(low * high)
        error = sum(share * math.log(point.ms.value / (ms / efficiency + fixed)) for point, ms, fixed, share in work)
        low, high = (low, efficiency) if error > 0 else (efficiency, high)
    residuals = tuple(Residual(point, ms / efficiency + fixed) for point, ms, fixed, _ in work)
    worst = max(math.exp(abs(math.log(residual.factor))) for residual in residuals)
    spread = max(worst, FLOORS.get(len(points), LEAST))
    times = "1 published time" if len(points) == 1 else f"{len(points)} published times"
    return Calibration(efficiency, spread, residuals, f"{times} on this unit")
