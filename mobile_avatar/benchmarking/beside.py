"""Two bundles in one run of this host, in turns: only so do their times say anything about each other."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from mobile_avatar.benchmarking.host import measure_together
from mobile_avatar.benchmarking.host_lanes import Lane, Sum
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import Result
from mobile_avatar.benchmarking.store import Journal
from mobile_avatar.benchmarking.subject import Subject, open_subject
from mobile_avatar.errors import BadInput

GRAPHS, FRAME = "networks alone", "frame, composed or drawn in torch"


@dataclass(frozen=True)
class Times:
    """One side of a line."""

    title: str
    """Of the row in its bundle."""
    own_file: bool
    p50_ms: float
    fastest_ms: float


@dataclass(frozen=True)
class Line:
    """The same runtime, threads and amount of a frame on both sides."""

    runtime: str
    what: str
    """`GRAPHS` or `FRAME`."""
    sides: tuple[Times, Times]

    @property
    def ratio(self) -> float:
        """Second by first."""
        return self.sides[1].p50_ms / self.sides[0].p50_ms


@dataclass(frozen=True)
class Beside:
    """What a run of two bundles found; rows are in the two journals as after any other run."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    results: list[Result] = field(repr=False)
    """Rows of the second bundle."""
    path: Path | None
    """Where those are kept."""

    def to_dict(self) -> dict:
        lines = [asdict(line) | {"ratio": round(line.ratio, 4)} for line in self.lines]
        return {"lines": lines, "notes": list(self.notes), "results": [row.to_dict() for row in self.results]}


def measure_beside(
    subject: Subject, settings: Settings, journal: Journal, folder: Path, avatar: Path | None = None
) -> Beside:
    """Time two bundles in turns, on one thread unless the settings say otherwise.

    Args:
        folder: the other bundle.
        avatar: the avatar behind it, for runtimes that its own files are not for.

    Raises:
        BadInput: it is the same bundle, or as `host.measure`.
    """
    other = open_subject(folder)
    if other.folder.resolve() == subject.folder.resolve():
        raise BadInput(f"{folder} cannot be timed beside itself; name another bundle")
    settings = replace(settings, threads=settings.threads or 1)
    beside = Journal(other, "host")
    beside.prepare()
    rows = measure_together(
        [(subject, settings, journal), (other, replace(settings, avatar=avatar), beside)],
    )
    lines = []
    for first in (row for row in rows if row.journal is journal):
        for second in (row for row in rows if row.journal is beside):
            lines += _lines(first, second)
    if not lines:
        raise BadInput(f"{subject.folder} and {folder} were timed in no common runtime; the rows say why")
    return Beside(tuple(lines), tuple(_notes(lines, subject, other)), beside.results, beside.path)


def _lines(first: Lane | Sum, second: Lane | Sum) -> list[Line]:
    """Both rows are about whole frames and in the same runtime: what they may be compared by."""
    a, b = first.result, second.result
    if (a.runtime, a.threads) != (b.runtime, b.threads) or first.failure or second.failure:
        return []
    title = f"{a.runtime}, {a.threads} thread{'' if a.threads == 1 else 's'}"
    found = []
    if a.whole and b.whole:
        found.append(Line(title, GRAPHS, (_times(a, first.graph_ms), _times(b, second.graph_ms))))
    if a.scope == b.scope == "frame":
        found.append(Line(title, FRAME, (_times(a, first.frame_ms), _times(b, second.frame_ms))))
    return found


def _times(row: Result, milliseconds: list[float]) -> Times:
    p50, fastest = float(np.median(milliseconds)), min(milliseconds)
    return Times(row.title, row.own_file, round(p50, 4), round(fastest, 4))


def _notes(lines: list[Line], *subjects: Subject) -> list[str]:
    notes = []
    for letter, index in (("A", 0), ("B", 1)):
        manifest = subjects[index].manifest
        macs = manifest.get("macs")
        size = _image_size(manifest["avatar"]["config"])
        work = f", {macs / 1e9:.3f} GMAC" if isinstance(macs, int | float) else ""
        others = dict.fromkeys(line.runtime.partition(",")[0] for line in lines if not line.sides[index].own_file)
        told = f"; in {', '.join(others)} the same work in fp32, not its own files" if others else ""
        notes.append(f"{letter}: {size} x {size} pixels{work}, {manifest['precision']}{told}")
    return notes


def _image_size(config: dict) -> int:
    return config["renderer"]["image_size"] if "renderer" in config else config["image_size"]
