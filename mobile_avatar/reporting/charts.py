"""Small charts as inline SVG; every text that goes into them is escaped."""

from collections.abc import Sequence

from markupsafe import Markup

from mobile_avatar.benchmarking.result import Minute, Result
from mobile_avatar.reporting.clean import number

WIDTH, HEIGHT = 360, 170
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 30
"""Margins; the unit is a pixel of a narrow phone, so that letters stay readable there."""


def sustained_chart(minutes: Sequence[Minute], title: str) -> Markup:
    """p50 over the minutes of a long run, from zero; empty for less than two minutes.

    Args:
        title: what a screen reader says.
    """
    points = [(m.minute, ms) for m in minutes if (ms := number(m.p50_ms)) is not None and ms >= 0]
    if len(points) < 2:
        return Markup()
    top = nice_above(max(ms for _, ms in points))
    first, last = min(x for x, _ in points), max(x for x, _ in points)

    def x_of(minute: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (minute - first) / max(1, last - first)

    def y_of(ms: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ms / top

    parts = []
    for share in (0, 0.5, 1):
        y = y_of(top * share)
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y, "grid"))
        parts.append(_text(LEFT - 6, y + 4, f"{top * share:g}", "end"))
    parts.append(_text(LEFT, HEIGHT - 10, f"minute {first}", "start"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 10, f"minute {last}", "end"))
    path = " ".join(f"{x_of(minute):.1f},{y_of(ms):.1f}" for minute, ms in points)
    parts.append(Markup('<polyline class="curve" points="{}"/>').format(path))
    parts += [Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(x_of(m), y_of(v)) for m, v in points]
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(parts)
    )


def layer_chart(estimate: Result) -> Markup:
    """Arithmetic and memory traffic of every layer of an estimate; empty where it cannot be drawn."""
    from mobile_avatar.benchmarking.layer_chart import layer_chart_svg

    try:
        return Markup(layer_chart_svg(estimate))
    except Exception:  # whatever a drawing library says to the numbers of a foreign bundle
        return Markup()


def nice_above(value: float) -> float:
    """The next of 1, 2, 3, 4, 5, 6, 8, 10 times a power of ten, so that an axis ends at a number one can read."""
    if value <= 0:
        return 1.0
    power = 10.0 ** len(str(int(value))) / 10 if value >= 1 else 0.1
    while power > value:
        power /= 10
    return next(step * power for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)
