"""Every runtime of this host, timed in turns in one process, so that what disturbs the machine disturbs all of them.

The bundle's own files run where their runtime is here; the other runtimes get the same graphs in float32, converted on
the spot.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from mobile_avatar.benchmarking import host_bilayer, host_graphs
from mobile_avatar.benchmarking.host_lanes import Bench, Lane, Side, Sum, time_in_turns
from mobile_avatar.benchmarking.host_runtimes import RUNTIMES, TORCH
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import now
from mobile_avatar.benchmarking.store import Journal
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.errors import BadInput, MissingTool


def measure(subject: Subject, settings: Settings, journal: Journal) -> None:
    """Time every runtime that is here; a runtime that is missing gets a row that says so.

    Raises:
        BadInput: an unknown runtime, or an avatar that is not the one of the bundle.
    """
    measure_together([(subject, settings, journal)])


def measure_together(runs: Sequence[tuple[Subject, Settings, Journal]]) -> list[Lane | Sum]:
    """Time several bundles in one run, frame by frame in turns; each journal gets the rows of its own bundle.

    Args:
        runs: (bundle, settings, journal); how often and how long is taken from the first settings.

    Returns:
        All rows that were timed, with the single times behind them.
    """
    settings = runs[0][1]
    known = (*TORCH, *RUNTIMES)
    for name in settings.runtimes:
        if name not in known:
            raise BadInput(f"no runtime {name!r} on this host; choose one of {', '.join(known)}")
    before, taken = torch.get_num_threads(), now()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="mobile-avatar-") as place:
            sides = [
                _side(Bench(subject, wishes, journal, taken, Path(place, str(number))))
                for number, (subject, wishes, journal) in enumerate(runs)
            ]
            rows: list[Lane | Sum] = []
            # Runtime by runtime for all bundles, as one of them spoils another once it is loaded.
            for name in (name for name in known if name in (settings.runtimes or known)):
                for side in sides:
                    rows += side.rows(name)
            lanes = [row for row in rows if isinstance(row, Lane)] + [lane for side in sides for lane in side.extra]
            sums = [row for row in rows if isinstance(row, Sum)]
            if rows:
                time_in_turns(lanes, sums, settings)
    finally:
        torch.set_num_threads(before)
    if not any(row.p50_ms for _, _, journal in runs for row in journal.results):
        raise MissingTool("none of the runtimes could be measured here; the rows above say why")
    return [*lanes, *sums]


def _side(bench: Bench) -> Side:
    bench.place.mkdir()
    return (host_graphs if bench.subject.graphs else host_bilayer).side(bench)
