"""Stored results as a page shows them: one group per device and scope, fastest first."""

from collections.abc import Callable
from dataclasses import dataclass

from mobile_avatar.benchmarking.result import OperatorTime, Result
from mobile_avatar.reporting.clean import number, passed, rows, text, texts

SCOPES = {"frame": "whole frames: graph and composition", "graph": "the model file alone"}


@dataclass(frozen=True)
class Row:
    """One result and the length of its bar."""

    result: Result
    statistic: str
    ms: float | None
    share: float
    """Of the slowest row of the group, 0..1."""


@dataclass(frozen=True)
class Group:
    """What ran on one device, and only that is compared by bars."""

    device: str
    place: str
    soc: str
    os: str
    scope: str
    rows: tuple[Row, ...]


def group(results: list[Result]) -> list[Group]:
    """Rows by device, chip, system and scope, in the order in which they were measured first."""
    found: dict[tuple, list[Result]] = {}
    for result in results:
        key = (result.device, result.place, result.soc, result.os, SCOPES[result.scope])
        found.setdefault(key, []).append(result)
    return [Group(*key, _rows(members)) for key, members in found.items()]


def figure(result: Result, statistic: str = "p50") -> tuple[str, float | None]:
    """`Result.figure` without what cannot be shown (a broken tool may write NaN)."""
    name, value = result.figure(statistic)
    return name, None if result.error else number(value)


def _rows(results: list[Result]) -> tuple[Row, ...]:
    figures = [(result, *figure(result)) for result in results]
    slowest = max((ms for *_, ms in figures if ms is not None), default=0)
    rows = [Row(result, name, ms, ms / slowest if ms and slowest > 0 else 0) for result, name, ms in figures]
    return tuple(sorted(rows, key=lambda row: (row.ms is None, row.ms or 0)))


@dataclass(frozen=True)
class Share:
    """Operators of one type on one unit, summed."""

    type: str
    unit: str
    count: int
    ms: float | None
    share: float
    """Of the whole, 0..1."""


def by_unit(operators: tuple[OperatorTime, ...]) -> list[Share]:
    """Where the operators of a measured run ran: summed by unit and type, most time first."""
    found: dict[tuple[str, str], list[float | None]] = {}
    for op in operators:
        found.setdefault((op.type, op.unit), []).append(number(op.ms))
    total = sum(ms for times in found.values() for ms in times if ms is not None)
    shares = []
    for (kind, unit), times in found.items():
        known = [ms for ms in times if ms is not None]
        ms = sum(known) if known else None
        shares.append(Share(kind, unit or "not told", len(times), ms, ms / total if ms and total > 0 else 0))
    return sorted(shares, key=lambda share: (-(share.ms or 0), -share.count, share.type))


def layers(operators: tuple[OperatorTime, ...], most: int = 8) -> list[Share]:
    """Single layers with a time, the slowest `most` of them, and one row for all others."""
    timed = [(op, ms) for op in operators if (ms := number(op.ms)) is not None and ms > 0]
    total = sum(ms for _, ms in timed)
    timed.sort(key=lambda pair: -pair[1])
    shown = [Share(op.name, op.type, 1, ms, ms / total) for op, ms in timed[:most]]
    rest = [ms for _, ms in timed[most:]]
    return shown + ([Share(f"{len(rest)} further layers", "", len(rest), sum(rest), sum(rest) / total)] if rest else [])


def _memory(result: Result) -> str:
    value = number(result.memory_mb)
    return "" if value is None else f"{value:.1f} MB"


def _heat(result: Result) -> str:
    ends = [number(value) for value in (result.temperature_before_c, result.temperature_after_c)]
    words = [text(word, 30) for word in (result.thermal_before, result.thermal_after)]
    sides = [
        " ".join(filter(None, ("" if c is None else f"{c:.1f} °C", word))) for c, word in zip(ends, words, strict=True)
    ]
    return " → ".join(filter(None, sides))


def _outputs(result: Result) -> str:
    checks = rows(result.parity)
    values = [value for row in checks if (value := number(row.get("psnr_db"))) is not None]
    states = {passed(row.get("passed")) for row in checks}
    if not checks:
        return ""
    word = "wrong" if False in states else "not compared" if None in states else "right"
    return f"outputs {word}, worst {min(values):.1f} dB" if values else f"outputs {word}"


def _times(name: str) -> Callable[[Result], str]:
    def show(result: Result) -> str:
        value = number(getattr(result, name))
        return "" if value is None else f"{value:.2f}"

    return show


COLUMNS: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("p90", _times("p90_ms")),
    ("p99", _times("p99_ms")),
    ("compose", _times("composite_p50_ms")),
    ("load", _times("load_ms")),
    ("first", _times("first_ms")),
    ("memory", _memory),
)
"""Further columns of a table of times, in ms where nothing else is said; a group shows those that it has values for."""


def columns(found: Group) -> list[tuple[str, list[str]]]:
    """(heading, one cell per row) of the columns in which something is known."""
    shown = [row.result for row in found.rows if row.ms is not None]
    cells = [(name, [show(result) for result in shown]) for name, show in COLUMNS]
    return [(name, column) for name, column in cells if any(column)]


def conditions(result: Result) -> list[str]:
    """Under which circumstances a row was timed, a few words each."""
    version = text(result.runtime_version, 40)
    warm_up = number(result.warmup_ms)
    said = (
        "this bundle's file" if result.own_file else "the same graph, converted",
        f"version {version}" if version else "",
        "" if result.runs is None else f"{result.runs} runs",
        "" if warm_up is None else f"warm-up {warm_up:.2f} ms",
        text(result.power_mode, 60),
        _heat(result),
        _outputs(result),
    )
    return [words for words in said if words]


def methods(found: Group) -> list[tuple[str, list[str]]]:
    """(what is said, titles of the rows that it holds for), each text once."""
    said: dict[str, list[str]] = {}
    for row in found.rows:
        result = row.result
        memory = f"memory is the {text(result.memory_what)}" if result.memory_what else ""
        command = f"command: {text(result.command)}" if result.command else ""
        for words in (text(result.method), memory, command, *texts(result.notes)):
            if words and row.ms is not None:
                said.setdefault(words, []).append(text(result.title, 120))
    return list(said.items())
