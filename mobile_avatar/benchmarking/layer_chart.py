"""A bar chart of an estimate: what arithmetic and what memory traffic cost in every layer."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_avatar.benchmarking.result import OperatorTime, Result
from mobile_avatar.errors import BadInput
from mobile_avatar.rendering.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 32
"""Bars beyond this many cannot be read; the smallest layers are then shown as one."""
COLOURS = ("#35618f", "#d9822b")


def layer_chart(result: Result) -> "Figure":
    """One group of bars per layer in the order of computation, milliseconds to the right.

    Rows without the two terms (a tool that timed operators) get one bar each.

    Raises:
        BadInput: the result has no operators with a time.
    """
    rows = [row for row in result.operators if row.ms is not None]
    if not rows:
        raise BadInput(f"{result.title} on {result.device} has no time per layer, so there is nothing to draw")
    shown = sorted(range(len(rows)), key=lambda index: -rows[index].ms)[:MOST]
    rest = [row for index, row in enumerate(rows) if index not in shown]
    rows = [rows[index] for index in sorted(shown)] + ([_together(rest)] if rest else [])
    figure = new_figure(9.0, 1.4 + 0.24 * len(rows))
    axes = figure.add_subplot()
    places = range(len(rows))
    if all(row.compute_ms is not None and row.traffic_ms is not None for row in rows):
        for name, colour, shift in (("compute", COLOURS[0], -0.2), ("traffic", COLOURS[1], 0.2)):
            values = [getattr(row, f"{name}_ms") for row in rows]
            label = {"compute": "arithmetic", "traffic": "memory traffic"}[name]
            axes.barh([place + shift for place in places], values, 0.4, color=colour, label=label)
        axes.legend(loc="lower right", frameon=False)
    else:
        axes.barh(places, [row.ms for row in rows], 0.7, color=COLOURS[0])
    labels = (f"{row.name}  {row.type.partition('+')[0]}" for row in rows)
    axes.set_yticks(places, [_literal(label) for label in labels], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"ms per frame{_launch(rows)}")
    name, value = result.figure()
    total = "" if value is None else f", {value:.{2 if value < 10 else 1}f} ms{'' if name == 'mean' else f' ({name})'}"
    title = _literal(f"{result.kind}: {result.title} on {result.device}", 100)
    axes.set_title(f"{title}{total}", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def layer_chart_svg(result: Result) -> str:
    """The chart as one `<svg>` element for a page; its text stays text. BadInput as `layer_chart`."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": result.device}):
        layer_chart(result).savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].strip()


def save_layer_chart(result: Result, path: Path) -> None:
    """Write the chart as a PNG file. BadInput as `layer_chart`."""
    save_figure(layer_chart(result), path)


def _literal(text: str, most: int = 48) -> str:
    """Text of a bundle or a tool as one short line in which nothing is taken for a formula."""
    line = "".join(letter for letter in text if letter.isprintable())
    return (line if len(line) <= most else f"{line[: most - 3]}...").replace("\\", "/").replace("$", r"\$")


def _together(rows: list[OperatorTime]) -> OperatorTime:
    """The sum of several layers; a term that one of them lacks is unknown."""
    sums = {}
    for name in ("ms", "compute_ms", "traffic_ms"):
        values = [getattr(row, name) for row in rows]
        sums[name] = None if None in values else sum(values)
    name = "1 smaller layer" if len(rows) == 1 else f"{len(rows)} smaller layers"
    return OperatorTime(name, "", rows[0].unit, **sums)


def _launch(rows: list[OperatorTime]) -> str:
    """What every layer costs beside its two terms; the bars do not show it."""
    first = rows[0]
    if first.compute_ms is None or first.traffic_ms is None:
        return ""
    rest = first.ms - max(first.compute_ms, first.traffic_ms)
    return f", beside {1000 * rest:.3g} us that every layer costs" if rest > 0.0005 else ""
