"""Places that take one model file: the graphs of a bundle one after another, and what they add up to."""

from collections.abc import Callable

from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import FRAME, Result, now
from mobile_avatar.benchmarking.store import Journal
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.errors import BadInput, CheckFailed

Measure = Callable[[Subject, Settings, Journal], None]
METHOD = (
    "the sum of the means of {parts}: each graph was timed alone, on the unit that was fastest with it, and a frame "
    "runs them one after another; the draw call between them is left out"
)


def measure_one_by_one(measure: Measure, subject: Subject, settings: Settings, journal: Journal) -> None:
    """Measure every graph of a bundle as a file of its own, then add a row for the frame.

    A graph that fails does not stop the others; the last failure is raised at the end, and there is no frame.

    Raises:
        BadInput: a long run was asked for, which would repeat one graph alone, as no frame does.
        MissingTool, CheckFailed, BadInput: as `measure`.
    """
    if settings.sustained_min:
        raise BadInput(
            "--sustained repeats one file, and a frame of this bundle takes several; leave it out, or --on host"
        )
    failure, best = None, []
    for graph in subject.graphs:
        settings.say(f"{graph.name}, a graph of {len(subject.graphs)}")
        first = len(journal.results)
        try:
            measure(graph, settings, journal)
        except CheckFailed as error:
            failure = error
        rows = [row for row in journal.results[first:] if _usable(row)]
        best += [min(rows, key=lambda row: row.mean_ms)] if rows else []
    if len(best) == len(subject.graphs):
        journal.add(frame_of(subject, best))
    if failure is not None:
        raise failure


def _usable(row: Result) -> bool:
    """Whether its mean may stand for its graph: of the bundle's own file, with outputs that were not found wrong."""
    wrong = any(check["passed"] is False for check in row.parity)
    return row.own_file and not row.error and row.mean_ms is not None and not wrong


def frame_of(subject: Subject, rows: list[Result]) -> Result:
    """The row of a frame from one row per graph. Means add up and percentiles do not, so it has a mean alone."""
    parts = ", ".join(f"{row.graph} {row.mean_ms:.2f} ms ({row.delegate or row.runtime})" for row in rows)
    slowest = max(rows, key=lambda row: row.mean_ms)
    return Result(
        kind="measured",
        place=slowest.place,
        device=slowest.device,
        runtime=slowest.runtime,
        precision=subject.precision,
        taken=now(),
        model_sha256=subject.model_sha256,
        graph=FRAME,
        soc=slowest.soc,
        os=slowest.os,
        runtime_version=slowest.runtime_version,
        delegate=" + ".join(dict.fromkeys(row.delegate for row in rows if row.delegate)),
        power_mode=slowest.power_mode,
        temperature_before_c=rows[0].temperature_before_c,
        temperature_after_c=rows[-1].temperature_after_c,
        thermal_before=rows[0].thermal_before,
        thermal_after=rows[-1].thermal_after,
        runs=min((row.runs for row in rows if row.runs is not None), default=None),
        mean_ms=round(sum(row.mean_ms for row in rows), 4),
        parity=tuple(check for row in rows for check in row.parity),
        method=METHOD.format(parts=parts),
    )
