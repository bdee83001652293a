"""The sustained run on a phone: one tool again and again, minute by minute, while the phone warms up."""

import math
import time
from dataclasses import replace

import numpy as np

from mobile_avatar.benchmarking.phone_session import CPU, Figure, Session, time_of
from mobile_avatar.benchmarking.result import Minute, Result, now
from mobile_avatar.errors import MobileAvatarError

CALL_MS = 15_000.0
"""One call of the tool computes for about so long: starting it is then a small part of a minute."""
MOST_RUNS = 10_000
MOST_WRITTEN = 512 << 20
"""Some tools keep the outputs of every run on the phone until the call ends; no call may write more than this."""
clock = time.monotonic


def sustain(session: Session, figures: list[Figure]) -> None:
    """Run the best accelerator for `settings.sustained_min` minutes; every minute is in the journal at its end.

    The row repeats the figures of the short run and adds the minutes.

    Args:
        figures: the short runs, at least one.

    Raises:
        CheckFailed, MissingTool: a call failed; the minutes before it are kept in a row with its sentence.
    """
    best = min(figures, key=_rank)
    found, delegate, short = best.found, best.delegate, best.row
    milliseconds = short.figure()[1]
    written = sum(math.prod(tensor.shape) * 4 for tensor in session.subject.spec.outputs)
    runs = max(1, min(MOST_RUNS, math.ceil(CALL_MS / milliseconds), MOST_WRITTEN // written))
    session.settings.say(f"sustained run, {session.settings.sustained_min:g} min of {found.tool.name} on {delegate}")
    statistic, _ = short.figure()
    notes = [*short.notes, f"times above are of the short run; a minute is the median over calls of their {statistic}"]
    if delegate == CPU:
        notes.append("no accelerator gave right outputs, so the sustained run is on the CPU")
    row = replace(short, taken=now(), notes=tuple(notes), sustained=())
    number, computing, start = len(session.journal.results), 0.0, clock()
    end = start + 60 * session.settings.sustained_min
    try:
        while clock() < end:
            calls: list[float] = []
            count = 0
            # A call may reach into the next minute; that one is shorter then, so that they do not drift.
            while clock() < min(start + 60 * (len(row.sustained) + 1), end) or not calls:
                reading = session.call(found, delegate, runs, details=False)[0]
                value = time_of(reading)
                calls.append(value)
                count += reading.runs or runs
                computing += value * (reading.runs or runs) / 1e3
            heat = session.look()
            minute = Minute(len(row.sustained) + 1, count, round(float(np.median(calls)), 4), heat.temperature_c)
            row = replace(
                row,
                sustained=(*row.sustained, minute),
                temperature_after_c=heat.temperature_c,
                thermal_after=heat.throttling,
            )
            _keep(session, number, row)
            session.settings.say(f"minute {minute.minute}: {minute.p50_ms:.2f} ms")
    except MobileAvatarError as error:
        _keep(session, number, replace(row, error=f"the sustained run stopped: {error}"))
        raise
    share = min(1.0, computing / max(clock() - start, 1e-9))
    said = f"the model computed for {share:.0%} of the sustained run; the rest is starting the tool and copying"
    _keep(session, number, replace(row, notes=(*row.notes, said)))


def _rank(figure: Figure) -> tuple:
    """Accelerators with right outputs first, then what else is right; the fastest of each."""
    on_cpu = figure.delegate == CPU or "fallback" in figure.row.delegate
    return figure.wrong, on_cpu, figure.row.figure()[1]


def _keep(session: Session, number: int, row: Result) -> None:
    if len(session.journal.results) == number:
        session.journal.add(row)
    else:
        session.journal.replace_last(row)
