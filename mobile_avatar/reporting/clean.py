"""JSON from elsewhere, made safe to show: a manifest may hold anything at any place, and a page must not care.

Each function takes whatever was found and gives back a value of the kind that is asked for, or an empty one.
"""

import math
from collections.abc import Iterable

TEXT, ROWS = 600, 400
"""Most characters of a text and most rows of a list that a page shows."""


def text(value: object, limit: int = TEXT) -> str:
    """Printable characters only (no line breaks, no marks that turn the direction of writing), cut at `limit`."""
    if value is None or isinstance(value, dict | list):
        return ""
    try:
        shown = "".join(char if char.isprintable() else " " for char in str(value)[: 2 * limit])
    except ValueError:  # an integer of thousands of digits
        return ""
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def number(value: object) -> float | int | None:
    """A finite number of a size that can be drawn, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        good = math.isfinite(value) and abs(value) < 1e18
    except OverflowError:
        return None
    return value if good else None


def passed(value: object) -> bool | None:
    """What a check says: True, False, or None for anything else, which is `not run`."""
    return value if isinstance(value, bool) else None


def mapping(value: object) -> dict[str, object]:
    """A JSON object, at most `ROWS` entries of it."""
    if not isinstance(value, dict):
        return {}
    return {text(key): value[key] for key in list(value)[:ROWS]}


def rows(value: object) -> list[dict]:
    """The objects in a JSON list."""
    return [row for row in _items(value) if isinstance(row, dict)]


def texts(value: object) -> list[str]:
    """The texts in a JSON list, empty ones left out."""
    return [shown for item in _items(value) if (shown := text(item))]


def _items(value: object) -> Iterable[object]:
    return value[:ROWS] if isinstance(value, list | tuple) else ()
