"""The tables of docs/estimate.md: `python -m mobile_avatar.benchmarking.estimate_page` prints them as Markdown.

With a path behind it, the chart of the medium model on a Snapdragon 855 is written there as a PNG file.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from mobile_avatar.benchmarking.calibration import calibrate
from mobile_avatar.benchmarking.devices import Sourced, chips, find_chip, units
from mobile_avatar.benchmarking.estimate import Estimate, estimate, operator_times
from mobile_avatar.benchmarking.network import network_layers
from mobile_avatar.benchmarking.result import Result
from mobile_avatar.graphs.rewrites.choice import default_rewrites
from mobile_avatar.models.bilayer.config import PRESETS

FAMILY = (
    ("medium as released", "medium", ()),
    *((name, name, None) for name in ("medium", "quarter", "full", "compact", "mobile", "mobile-512")),
)
"""Title, preset, and its rewrites; None for those of the target."""
BUNDLES = (
    ("snpe", "fp16", "split", "snapdragon-855"),
    ("snpe", "fp16", "native", "snapdragon-8-gen-2"),
    ("snpe", "fp16", "native", "snapdragon-8-elite"),
    ("snpe", "w8a8", "split", "snapdragon-8-gen-2"),
    ("tflite", "fp16", "split", "tensor-g2"),
    ("coreml", "fp16", "split", "apple-a14"),
    ("coreml", "fp16", "split", "apple-a16"),
    ("executorch", "fp32", "split", "snapdragon-855"),
)


def unit_table() -> list[str]:
    """Every unit with every number and the number of its source, and the list of sources."""
    sources: list[str] = []

    def cell(number: Sourced) -> str:
        if number.source not in sources:
            sources.append(number.source)
        return f"{number.value:g} [{sources.index(number.source) + 1}]"

    rows = []
    for unit in units().values():
        owners = ", ".join(chip.name for chip in chips().values() if unit.name in chip.units) or "(comparison only)"
        peaks = ", ".join(f"{kind} {cell(number)}" for kind, number in unit.peak.items())
        shares = f"{cell(unit.compute_share)}, {cell(unit.traffic_share)}"
        rows.append((unit.title, owners, peaks, cell(unit.bandwidth), shares, cell(unit.overhead_us)))
    for unit in units().values():  # sources of published times stand in the next table's order
        for point in unit.points:
            cell(point.ms)
    header = ("unit", "chip", "peak, 10^9 operations/s", "GB/s", "reachable share of both", "us per layer")
    return [*_markdown(header, rows), "", *(f"{number}. {text}" for number, text in enumerate(sources, 1))]


def calibration_table() -> list[str]:
    """Every published time beside its estimate, and what the fit of each unit and precision came to."""
    rows, without = [], []
    for unit in units().values():
        if unit.refuses:
            continue
        for precision in unit.peak:
            fit = calibrate(unit.name, precision)
            found = (f"{fit.efficiency:.2f}", f"{fit.spread:.2f}")
            for row in fit.residuals:
                times = (f"{row.point.ms.value:g}", f"{row.estimate_ms:.3g}", f"{row.factor:.2f}")
                rows.append((unit.title, precision, row.point.model, *times, *found))
            if not fit.residuals:
                without.append((unit.title, precision, "none published", "-", "-", "-", *found))
    header = ("unit", "precision", "network", "published ms", "estimated ms", "ratio", "efficiency", "spread")
    return _markdown(header, [*rows, *_merged(without)])


def family_table() -> list[str]:
    """ESTIMATED milliseconds of every member of the family in several bundles; takes half a minute."""
    header = ["model", "GMAC"]
    rows = []
    for target, precision, warp, device in BUNDLES:
        found = _member(FAMILY[1], target, precision, warp, device)
        header.append(f"ESTIMATE, ms: {found.chip.title} {found.unit.kind}, {target} {precision} {warp}")
    for member in FAMILY:
        cells = [_member(member, *bundle) for bundle in BUNDLES]
        gmac = sum(time.layer.macs for time in cells[0].times) / 1e9
        values = (f"{cell.ms:.3g} ({cell.low_ms:.3g} to {cell.high_ms:.3g})" for cell in cells)
        rows.append((member[0], f"{gmac:.2f}", *values))
    return _markdown(header, rows)


def save_chart(path: Path) -> None:
    """The chart of the medium model as exported for a Snapdragon 855."""
    from mobile_avatar.benchmarking.layer_chart import save_layer_chart

    target, precision, warp, device = BUNDLES[0]
    found = _member(FAMILY[1], target, precision, warp, device)
    row = Result(
        kind="estimated",
        place="estimate",
        device=find_chip(device).name,
        runtime="roofline",
        precision=precision,
        taken="",
        model_sha256="",
        delegate=found.unit.title,
        mean_ms=found.ms,
        operators=operator_times(found),
    )
    save_layer_chart(row, path)


def _member(
    member: tuple[str, str, tuple[str, ...] | None], target: str, precision: str, warp: str, device: str
) -> Estimate:
    _, preset, rewrites = member
    layers = network_layers(PRESETS[preset], default_rewrites(target) if rewrites is None else rewrites, warp)
    found, why = estimate(layers, target, precision, warp, device)
    if found is None:
        raise ValueError(why)
    return found


def _merged(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Rows that differ in unit and precision alone as one."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for unit, precision, *rest in rows:
        groups.setdefault((precision, *rest), []).append(unit)
    return [(", ".join(titles), *rest) for rest, titles in groups.items()]


def _markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    header = list(header)
    lines = [header, ["---"] * len(header), *map(list, rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def main(arguments: list[str]) -> None:
    """Print the tables; write the chart to the path given, if any."""
    for title, table in (("Units", unit_table), ("Calibration", calibration_table), ("Family", family_table)):
        print(f"\n## {title}\n")
        print("\n".join(table()))
    for path in arguments:
        save_chart(Path(path))


if __name__ == "__main__":
    main(sys.argv[1:])
