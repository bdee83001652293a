"""Frame time without a phone: a calibrated roofline over the layers of a graph, labelled as the estimate it is."""

from collections.abc import Iterable
from dataclasses import dataclass

from mobile_avatar.benchmarking.calibration import Calibration, calibrate
from mobile_avatar.benchmarking.devices import Chip, Unit, default_chip, find_chip, serving_unit
from mobile_avatar.benchmarking.network import network_layers
from mobile_avatar.benchmarking.result import OperatorTime, Result, now
from mobile_avatar.benchmarking.roofline import LayerTime, layer_times, total_ms
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.errors import BadInput
from mobile_avatar.graphs.layers import LAYERS, Layer, load_layers
from mobile_avatar.models.bilayer.config import BilayerConfig
from mobile_avatar.verification.verify import changed_files

BUDGET_MS = 42.0
LEFT_OUT = "loading and the first frame, copies of inputs and outputs, throttling, and whatever else the phone is doing"


@dataclass(frozen=True)
class Estimate:
    """Milliseconds per frame on one unit of a chip."""

    chip: Chip
    unit: Unit
    precision: str
    """Of the arithmetic."""
    times: tuple[LayerTime, ...]
    calibration: Calibration

    @property
    def ms(self) -> float:
        return total_ms(self.times)

    @property
    def low_ms(self) -> float:
        return self.ms / self.calibration.spread

    @property
    def high_ms(self) -> float:
        return self.ms * self.calibration.spread

    @property
    def compute_ms(self) -> float:
        """Sum of the arithmetic terms."""
        return sum(time.compute_ms for time in self.times)

    @property
    def traffic_ms(self) -> float:
        """Sum of the memory traffic terms."""
        return sum(time.traffic_ms for time in self.times)

    def method(self, warp: str, outside: str | None = None) -> str:
        """How the number came about and what it leaves out: `outside`, or what the warp says."""
        overhead = self.unit.overhead_us.value
        launch = f", and {overhead:g} us per layer" if overhead else ""
        threads = ", one thread" if self.unit.kind == "CPU" else ""
        shortest = min((row.point.ms.value for row in self.calibration.residuals), default=0.0)
        beyond = f"; shorter than every published time behind it ({shortest:g} ms)" if self.ms < shortest else ""
        if outside is None:
            known = {
                "split": f"the app's draw call that warps and composes, {LEFT_OUT}",
                "native": f"what the warp inside the graph costs beside its traffic, {LEFT_OUT}",
            }
            outside = known.get(warp, LEFT_OUT)
        return (
            f"roofline over {len(self.times)} layers (element-wise operators belong to the layer before them) on the "
            f"{self.unit.title} of {self.chip.title} in {self.precision}{threads}: per layer the longer of arithmetic "
            f"({self.compute_ms:.2f} ms in all) and memory traffic ({self.traffic_ms:.2f} ms){launch}; efficiency from "
            f"{self.calibration.basis}, within a factor of {self.calibration.spread:.2f}{beyond}; not measured; left "
            f"out: {outside}"
        )


def estimate(
    layers: Iterable[Layer], target: str, precision: str, warp: str, device: str = "snapdragon-855"
) -> tuple[Estimate | None, str]:
    """Milliseconds per frame of a graph on a chip.

    Args:
        layers: work table of the graph (`graphs.layers`).
        target: export target; with `precision` and `warp` it decides which unit of the chip computes.
        device: name of a chip, SoC id or phone.

    Returns:
        The estimate and its method; or None and one sentence that says why there is none.

    Raises:
        BadInput: a device that the table does not have.
    """
    chip = find_chip(device)
    unit, arithmetic = serving_unit(chip, target, precision, warp)
    if unit is None:
        return None, arithmetic
    calibration = calibrate(unit.name, arithmetic)
    found = Estimate(chip, unit, arithmetic, layer_times(layers, unit, arithmetic, calibration.efficiency), calibration)
    return found, found.method(warp)


def budget(
    layers: Iterable[Layer], target: str, precision: str, warp: str, recipe: str = "", budget_ms: float | None = None
) -> dict:
    """The manifest's `budget`: the estimate beside its limit (42 ms by default).

    Args:
        recipe: a chip, or the deployment recipe of the bundle; where that is named after a chip, that chip is judged.

    Returns:
        `device`, `estimate_ms`, `low_ms`, `high_ms` (None where there is no estimate), `kind` ("estimate"), `method`,
        `budget_ms` and `passed` (None where there is no estimate).
    """
    device = default_chip(target, recipe)
    found, method = estimate(layers, target, precision, warp, device)
    limit = BUDGET_MS if budget_ms is None else budget_ms
    milliseconds, low, high = (None,) * 3 if found is None else map(_short, (found.ms, found.low_ms, found.high_ms))
    return {
        "device": device,
        "estimate_ms": milliseconds,
        "low_ms": low,
        "high_ms": high,
        "kind": "estimate",
        "method": method,
        "budget_ms": limit,
        "passed": None if milliseconds is None else milliseconds <= limit,
    }


def estimate_result(subject: Subject, device: str) -> Result:
    """The estimate of a bundle for one chip as a row beside measured ones, with one operator per layer.

    Where the chip has no unit for this bundle, the row says why in its `error`. BadInput for an unknown device or a
    damaged table of layers.
    """
    found, method = estimate(bundle_layers(subject), subject.target, subject.precision, subject.warp, device)
    return result_of(subject, device, found, method)


def result_of(subject: Subject, device: str, found: Estimate | None, method: str) -> Result:
    """A row from `estimate`; without one, `method` says why. BadInput for an unknown device."""
    row = {
        "kind": "estimated",
        "place": "estimate",
        "device": find_chip(device).name,
        "runtime": "roofline",
        "taken": now(),
        "model_sha256": subject.model_sha256,
        "precision": subject.precision,
        "graph": subject.name,
    }
    if found is None:
        return Result(**row, error=method)
    mean, low, high, compute, traffic = _rounded(
        found.ms, found.low_ms, found.high_ms, found.compute_ms, found.traffic_ms
    )
    return Result(
        **row,
        delegate=found.unit.title
        if found.precision == subject.precision
        else f"{found.unit.title} in {found.precision}",
        operators=operator_times(found),
        mean_ms=mean,
        low_ms=low,
        high_ms=high,
        compute_ms=compute,
        traffic_ms=traffic,
        method=method,
    )


def operator_times(found: Estimate) -> tuple[OperatorTime, ...]:
    """One row per layer, with both terms."""
    return tuple(
        OperatorTime(
            time.layer.name, time.layer.type, found.unit.kind, *_rounded(time.ms, time.compute_ms, time.traffic_ms)
        )
        for time in found.times
    )


def bundle_layers(subject: Subject) -> tuple[Layer, ...]:
    """The work table of a bundle: its own, or made anew from the model config where an older export wrote none.

    Work depends on structure alone, so no weights are needed for that.
    """
    manifest = subject.manifest
    entries = [entry for entry in manifest["files"] if entry["path"] == LAYERS]
    if entries:
        for what in changed_files(subject.folder, entries).values():
            raise BadInput(f"{subject.folder}: {what}; export the bundle again")
        return load_layers(subject.folder / LAYERS)
    config = BilayerConfig.from_dict(manifest["avatar"]["config"], f"{subject.folder}/manifest.json")
    return network_layers(config, manifest.get("rewrites", ()), subject.warp)


def _short(value: float) -> float:
    """Three digits; more would be pretence."""
    return float(f"{value:.3g}")


def _rounded(*values: float) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values)
