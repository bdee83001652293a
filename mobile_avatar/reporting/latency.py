"""Stored results as a page shows them: one group per device, scope and run of this computer, fastest first."""

from collections.abc import Callable
from dataclasses import dataclass

from mobile_avatar.benchmarking.result import FRAME, OperatorTime, Result
from mobile_avatar.reporting import words
from mobile_avatar.reporting.clean import number, passed, rows, text, texts

SCOPES = {"frame": "whole frames: graph and composition", "graph": "the model file alone"}
GRAPHS = {
    "frame": "whole frames: all graphs, and the draw call in software",
    "graph": "all graphs of a frame, nothing else",
}
PARTS = "parts of a frame: each graph alone, and the draw call"
"""Of bundles of several graphs."""
IN_TURNS = "timed in turns with the other rows of this run"
FEW = 10
"""Fewer runs than this say little about the next one."""


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
    """What ran on one device, on a shared computer in one run, and only that is compared by bars."""

    device: str
    place: str
    soc: str
    os: str
    scope: str
    rows: tuple[Row, ...]
    first: str
    """When its first and its last row were taken, ISO 8601."""
    last: str
    earlier: bool
    """Whether a newer run of the same computer stands in a group of its own."""

    @property
    def when(self) -> str:
        """The date, or the two dates between which the rows were taken."""
        return " to ".join(dict.fromkeys(words.date(taken) for taken in (self.first, self.last)))


def group(results: list[Result]) -> list[Group]:
    """Rows by device, chip, system and scope; newer groups first within a device.

    What else a computer does changes from run to run, so rows of the place `host` are grouped by run as well: all rows
    of one run carry the same time.
    """
    devices: dict[tuple, dict[str, list[Result]]] = {}
    for result in sorted(results, key=lambda row: not row.whole):
        key = (result.device, result.place, result.soc, result.os, scope_of(result))
        run = result.taken if result.place == "host" else ""
        devices.setdefault(key, {}).setdefault(run, []).append(result)
    found = []
    for key, runs in devices.items():
        for index, run in enumerate(sorted(runs, reverse=True)):
            taken = sorted(row.taken for row in runs[run])
            found.append(Group(*key, _rows(runs[run]), taken[0], taken[-1], index > 0))
    return found


def scope_of(result: Result) -> str:
    """How much of a frame a row is about, in words."""
    if not result.graph:
        return SCOPES[result.scope]
    return GRAPHS[result.scope] if result.graph == FRAME else PARTS


def figure(result: Result, statistic: str = "p50") -> tuple[str, float | None]:
    """`Result.figure` without what cannot be shown (a broken tool may write NaN)."""
    name, value = result.figure(statistic)
    return name, None if result.error else number(value)


def count(result: Result) -> str:
    """How many runs are behind a figure; empty for an estimate and where the tool does not say."""
    runs = number(result.runs)
    if runs is None or result.kind == "estimated":
        return ""
    return f"few runs: {runs}" if runs < FEW else f"{runs} runs"


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
    said = [text(word, 30) for word in (result.thermal_before, result.thermal_after)]
    sides = [
        " ".join(filter(None, ("" if c is None else f"{c:.1f} °C", word))) for c, word in zip(ends, said, strict=True)
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
        return "" if value is None else words.ms(value)

    return show


COLUMNS: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("p90", _times("p90_ms")),
    ("p99", _times("p99_ms")),
    ("compose", lambda result: "" if result.graph else _times("composite_p50_ms")(result)),
    ("draw call", lambda result: _times("composite_p50_ms")(result) if result.graph else ""),
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
        ("this bundle's file" if result.own_file else "the same graph, converted") if result.graph != FRAME else "",
        f"version {version}" if version else "",
        count(result),
        "" if warm_up is None else f"warm-up {words.ms(warm_up)} ms",
        text(result.power_mode, 60),
        _heat(result),
        _outputs(result),
    )
    return list(filter(None, said))


def methods(found: Group) -> list[tuple[str, list[str]]]:
    """(what is said, titles of the rows that it holds for), each text once.

    A row that was alone in its run was not timed in turns with any other.
    """
    alone = sum(row.ms is not None for row in found.rows) < 2
    said: dict[str, list[str]] = {}
    for row in found.rows:
        result = row.result
        memory = f"memory is the {text(result.memory_what)}" if result.memory_what else ""
        command = f"command: {text(result.command)}" if result.command else ""
        method = text(result.method)
        method = method.removeprefix(IN_TURNS).lstrip("; ") if alone else method
        for sentence in (method, memory, command, *texts(result.notes)):
            if sentence and row.ms is not None:
                said.setdefault(sentence, []).append(text(result.title, 120))
    return list(said.items())
