"""Numbers as a page shows them; what is no number is a dash."""

from mobile_avatar.reporting.clean import number, text

MINUS = "\N{MINUS SIGN}"


def fixed(value: object, digits: int) -> str:
    found = number(value)
    return "–" if found is None else f"{found:.{digits}f}".replace("-", MINUS)


def decibels(value: object) -> str:
    found = fixed(value, 1)
    return found if number(value) is None else f"{found} dB"


def ms(value: object) -> str:
    """Three significant digits below 100 ms, whole milliseconds above."""
    found = number(value)
    if found is None:
        return "–"
    return f"{found:.0f}" if abs(found) >= 100 else f"{found:.1f}" if abs(found) >= 10 else f"{found:.2f}"


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
    return "–" if found is None else f"{found / 1e9:.3f} GMAC"


def millions(value: object) -> str:
    found = number(value)
    return "–" if found is None else f"{found / 1e6:.2f} M"


def short(value: object) -> str:
    shown = text(value, 80)
    return f"{shown[:12]}…" if len(shown) > 16 else shown


def link(value: object) -> str:
    """An address that is safe to follow, else nothing: a job's page is the service's, and always https."""
    shown = text(value, 300)
    return shown if shown.startswith("https://") else ""
