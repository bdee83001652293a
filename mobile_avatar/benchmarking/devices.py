"""Phone chips and their units: names, numbers and where each number comes from, read from `devices.yaml`."""

import functools
import importlib.resources
import re
from dataclasses import dataclass

import yaml

from mobile_avatar.benchmarking.result import Result
from mobile_avatar.errors import BadInput


@dataclass(frozen=True)
class Sourced:
    """A number and where it comes from."""

    value: float
    source: str


@dataclass(frozen=True)
class Point:
    """A published time of a known network (`reference_models`) on a unit."""

    model: str
    precision: str
    ms: Sourced
    """Steady milliseconds per run."""


@dataclass(frozen=True)
class Unit:
    """What computes: a GPU, an NPU or a CPU core of one generation."""

    name: str
    title: str
    family: str
    """Units of a family are comparable: they share the kind and the three numbers below."""
    kind: str
    """`GPU`, `NPU` or `CPU`."""
    compute_share: Sourced
    """Part of the peak that is taken as reachable, before calibration."""
    traffic_share: Sourced
    """Part of the bandwidth, likewise."""
    overhead_us: Sourced
    """What a kernel costs beside its work, in microseconds."""
    peak: dict[str, Sourced]
    """Precision -> 10^9 operations per second; a multiply-accumulate is two."""
    bandwidth: Sourced
    """10^9 bytes per second of the memory bus."""
    points: tuple[Point, ...] = ()
    refuses: str = ""
    """Why nothing that is exported here runs on it; empty for all others."""


@dataclass(frozen=True)
class Chip:
    """One chip of the table."""

    name: str
    title: str
    aliases: tuple[str, ...]
    """SoC ids, board names and phones, as systems and services write them."""
    units: tuple[str, ...]
    """Names of its units, at most one of a family."""


@functools.cache
def units() -> dict[str, Unit]:
    """All units by name; KeyError where the table names a source or family that it does not have."""
    table = _table()

    def sourced(pair: list) -> Sourced:
        return Sourced(float(pair[0]), table["sources"][pair[1]])

    found = {}
    for name, row in table["units"].items():
        family = table["families"][row["family"]]
        found[name] = Unit(
            name=name,
            title=row["title"],
            family=row["family"],
            kind=family["kind"],
            **{key: sourced(pair) for key, pair in family.items() if key != "kind"},
            peak={precision: sourced(pair) for precision, pair in row["peak"].items()},
            bandwidth=sourced(row["bandwidth"]),
            points=tuple(Point(model, kind, sourced(rest)) for model, kind, *rest in row.get("points", [])),
            refuses=row.get("refuses", ""),
        )
    return found


@functools.cache
def chips() -> dict[str, Chip]:
    """All chips by name."""
    rows = _table()["chips"]
    return {name: Chip(name, row["title"], tuple(row["aliases"]), tuple(row["units"])) for name, row in rows.items()}


def chip_called(name: str) -> Chip | None:
    """The chip of a name, SoC id, board name or phone; None when the table has none of that name."""
    return _names().get(_plain(name))


def find_chip(name: str) -> Chip:
    """The chip called `name`; BadInput lists the known ones."""
    chip = chip_called(name)
    if chip is None:
        known = ", ".join(chips())
        raise BadInput(f"no numbers are known for the device {name!r}; choose one of {known} (or a phone with one)")
    return chip


def default_chip(target: str, recipe: str) -> str:
    """Name of the chip that a bundle is judged for when nobody names one: the recipe's, or the target's usual one."""
    return recipe if recipe in chips() else _table()["default_chip"][target]


def serving_unit(chip: Chip, target: str, precision: str, warp: str) -> tuple[Unit | None, str]:
    """Which unit of a chip computes a bundle, and in which precision.

    Returns:
        The unit and the precision of its arithmetic; or None and one sentence that says why there is none.
    """
    refused = ""
    for rule in _table()["serves"]:
        if (rule["target"], rule["precision"]) == (target, precision) and rule.get("warp", warp) == warp:
            arithmetic = rule.get("as", precision)
            own = {units()[name].family: units()[name] for name in chip.units}
            for unit in (own[family] for family in rule["families"] if family in own):
                if arithmetic in unit.peak:
                    if not unit.refuses:
                        return unit, arithmetic
                    refused = unit.refuses
            break
    why = refused or f"no unit of it is known to run {target} in {precision} with the {warp} warp"
    return None, f"{chip.title}: {why}"


def same_device(result: Result, name: str) -> bool:
    """Whether a result belongs to the chip (or, outside the table, to the device) called `name`."""
    found = [text for text in (result.device, result.soc) if text]
    if any(_plain(text) == _plain(name) for text in found):
        return True
    chip = chip_called(name)
    return chip is not None and any(chip_called(text) == chip for text in found)


@functools.cache
def _table() -> dict:
    text = importlib.resources.files("mobile_avatar.benchmarking").joinpath("devices.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


@functools.cache
def _names() -> dict[str, Chip]:
    return {_plain(known): chip for chip in chips().values() for known in (chip.name, chip.title, *chip.aliases)}


def _plain(name: str) -> str:
    """A name without what systems write or leave out: case, blanks, the maker, `(Family)`, the speed grade."""
    text = re.sub(r"\(.*?\)|\bgoogle\b|samsung|qualcomm|apple|xiaomi|mobile platform", "", name.lower())
    text = re.sub(r"(sm\d{4})-\w+", r"\1", text.replace("+", "plus"))
    return re.sub(r"[^a-z0-9]", "", text)
