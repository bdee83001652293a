"""The operator table that `benchmark_model --enable_op_profiling=true` prints, in its older and newer forms."""

import re

from mobile_avatar.benchmarking.result import OperatorTime
from mobile_avatar.benchmarking.tools.pulled import number
from mobile_avatar.errors import CheckFailed

START = "Operator-wise Profiling Info for Regular Benchmark Runs:"
INSIDE = "Delegate internal:"
COLUMNS = ("[node type]", "[avg ms]", "[Name]")
RUN_ORDER = re.compile(r"={5,80} Run Order ={5,80} *\n")
EXECUTED = re.compile(r"Number of nodes executed: (\d+)")


def read_operators(text: str, delegate: str) -> tuple[tuple[OperatorTime, ...], str]:
    """Operators with their average ms, and a remark where there are none.

    What a delegate lists about its inside replaces the one row that stands for the delegate.

    Args:
        text: everything that the profiled run printed.
        delegate: what did the work, as `GPU` or `XNNPACK`.
    """
    _, mark, report = text.partition(START)
    if not mark:
        return (), "no operator times: this version of benchmark_model prints none"
    outside, _, inside = report.partition(INSIDE)
    rows, inner = _table(outside), _table(inside)
    if rows is None:
        return (), "no operator times: the table of benchmark_model is not whole"
    unit = delegate.partition(" ")[0]
    unit = "CPU" if unit == "XNNPACK" else unit
    result = []
    for kind, name, ms in rows:
        stands_for_delegate = re.search(r"delegate|litert_", kind, re.IGNORECASE) is not None
        if stands_for_delegate and inner:
            result += [OperatorTime(name, kind, unit, ms) for kind, name, ms in inner]
            # Several nodes of one delegate share one list.
            inner = ()
        elif not stands_for_delegate or inner is None:
            result.append(OperatorTime(name, kind, unit if stands_for_delegate else "CPU", ms))
    return tuple(result), ""


def _table(report: str) -> tuple[tuple[str, str, float], ...] | None:
    """(type, name, average ms) of the first `Run Order` table; None when there is none or it was cut short."""
    start = RUN_ORDER.search(report)
    if start is None:
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
            kind, ms, name = (cells[place] for place in places)
            rows.append((kind, re.sub(r"[:/]\d+$", "", name).strip("[]"), number(ms, "benchmark_model", name)))
        except (IndexError, CheckFailed):
            return None
    executed = EXECUTED.search(report)
    return tuple(rows) if executed and int(executed[1]) == len(rows) else None


def _cells(line: str) -> list[str]:
    # Types may hold single spaces: "Convolution (NHWC, F32) IGEMM".
    return [cell for cell in re.split(r"\t\s*|\s{2,}", line.strip()) if cell]
