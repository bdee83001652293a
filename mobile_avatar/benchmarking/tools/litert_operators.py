"""The operator table that `benchmark_model` prints, in the forms of TFLite's and LiteRT's versions."""

import re
from dataclasses import dataclass

from mobile_avatar.benchmarking.result import OperatorTime
from mobile_avatar.benchmarking.tools.pulled import number
from mobile_avatar.errors import CheckFailed

TITLES = ("Operator-wise Profiling Info for Regular Benchmark Runs:", "BENCHMARK RESULTS")
"""What stands before the table of the runs; a table of the start comes before it."""
INSIDE = "Delegate internal:"
COLUMNS = ("[node type]", "[avg ms]", "[times called]", "[Name]")
RUN_ORDER = re.compile(r"={5,80} Run Order ={5,80} *\n")
EXECUTED = re.compile(r"Number of nodes executed: (\d{1,9})\b")
STARTING = ("AllocateTensors", "ModifyGraphWithDelegate")
"""Rows that are no part of a run."""


@dataclass(frozen=True)
class _Row:
    type: str
    name: str
    ms: float
    """Per run of the graph."""

    @property
    def inside(self) -> bool:
        """Whether it is an operator of a delegate."""
        return self.name.startswith("Delegate/")

    @property
    def whole(self) -> bool:
        """Whether it stands for all that a delegate took."""
        return not self.inside and re.search(r"delegate|litert_", self.type, re.IGNORECASE) is not None


def read_operators(text: str, delegate: str) -> tuple[tuple[OperatorTime, ...], str]:
    """Operators with their ms per run, and a remark where there are none.

    Where a delegate lists its operators, they take the place of the row that stands for all of them.

    Args:
        text: everything that the profiled run printed.
        delegate: what did the work, as `GPU` or `XNNPACK`.
    """
    title = next((title for title in TITLES if title in text), None)
    if title is None:
        return (), "no operator times: this version of benchmark_model prints none"
    outside, _, inside = text.partition(title)[2].partition(INSIDE)
    rows = _table(outside)
    if rows is None:
        return (), "no operator times: the table of benchmark_model is missing or not whole"
    listed = [row for row in rows if row.inside] or _table(inside) or []
    if listed:
        rows = [row for row in rows if not row.whole and not row.inside] + listed
    unit = delegate.partition(" ")[0].replace("XNNPACK", "CPU")
    return (
        tuple(OperatorTime(row.name, row.type, unit if row in listed or row.whole else "CPU", row.ms) for row in rows),
        "",
    )


def _table(report: str) -> list[_Row] | None:
    """The first `Run Order` table; None when there is none or it was cut short."""
    start, executed = RUN_ORDER.search(report), EXECUTED.search(report)
    if start is None or executed is None:
        return None
    header, *lines = report[start.end() :].splitlines()
    columns = _cells(header)
    if not all(name in columns for name in COLUMNS):
        return None
    places = [columns.index(name) for name in COLUMNS]
    rows = []
    for line in lines:
        cells = _cells(line)
        if not cells:
            break
        try:
            kind, average, times, name = (cells[place] for place in places)
            # The average is that of a call; where calls were not counted, there is one per run.
            ms = number(average, "benchmark_model", name) * (number(times, "benchmark_model", name) or 1)
        except (IndexError, CheckFailed):
            return None
        rows.append(_Row(kind, re.sub(r"^\[(.*)\]:\d+$|[:/]\d+$", r"\1", name), round(ms, 6)))
    if int(executed[1]) != len(rows):
        return None
    return [row for row in rows if row.type not in STARTING]


def _cells(line: str) -> list[str]:
    # Types may hold single spaces: "Convolution (NHWC, F32) IGEMM".
    return [cell for cell in re.split(r"\t\s*|\s{2,}", line.strip()) if cell]
