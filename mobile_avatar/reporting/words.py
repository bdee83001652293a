"""Numbers as a page shows them; what is no number is a dash."""

import datetime

from markupsafe import Markup

from mobile_avatar.reporting.clean import number, text

MINUS = "\N{MINUS SIGN}"


def fixed(value: object, digits: int) -> str:
    found = number(value)
    return "–" if found is None else f"{found:.{digits}f}".replace("-", MINUS)


def decibels(value: object) -> str:
    found = fixed(value, 1)
    return found if number(value) is None else f"{found} dB"


def ms(value: object) -> str:
    """Two decimals below 10 ms, one above."""
    found = number(value)
    return "–" if found is None else f"{found:.1f}" if abs(found) >= 10 else f"{found:.2f}"


def megabytes(value: object) -> str:
    found = number(value)
    if found is None:
        return "–"
    return f"{found / 1e6:.2f} MB" if found >= 1e5 else f"{found / 1e3:.1f} kB"


def percent(value: object) -> str:
    found = number(value)
    return "–" if found is None else f"{found * 100:.0f} %" if found >= 0.095 or not found else f"{found * 100:.1f} %"


def exact(value: object) -> str:
    """A number as it was recorded, without an exponent."""
    found = number(value)
    return "–" if found is None else f"{found:,.6f}".rstrip("0").rstrip(".").replace(",", " ").replace("-", MINUS)


def gmac(value: object) -> str:
    found = number(value)
    return "–" if found is None else f"{found / 1e9:.{4 if 0 < found < 1e6 else 3}f} GMAC"


def millions(value: object) -> str:
    found = number(value)
    return "–" if found is None else f"{found / 1e6:.2f} M"


def short(value: object) -> str:
    shown = text(value, 80)
    return f"{shown[:12]}…" if len(shown) > 16 else shown


def code(value: object) -> Markup:
    """A sentence of the console as HTML: what stands between backticks is code, everything else is escaped."""
    parts = text(value).split("`")
    if len(parts) % 2 == 0:
        return Markup("{}").format("`".join(parts))
    shown = [Markup("<code>{}</code>" if index % 2 else "{}").format(part) for index, part in enumerate(parts)]
    return Markup("").join(shown)


def date(value: object) -> str:
    """A time of ISO 8601 to the minute, in UTC as results have it; the text itself where it is no such time."""
    shown = text(value, 40)
    try:
        found = datetime.datetime.fromisoformat(shown)
    except ValueError:
        return shown
    zone = datetime.UTC
    return (found.astimezone(zone) if found.tzinfo else found).strftime("%Y-%m-%d %H:%M UTC")


def link(value: object) -> str:
    """An address that is safe to follow, else nothing: a job's page is the service's, and always https."""
    shown = text(value, 300)
    return shown if shown.startswith("https://") else ""
