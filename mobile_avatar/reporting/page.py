"""Facts become one HTML file that needs nothing else: no script, no request, pictures inside."""

import datetime
import functools
import importlib.metadata
import importlib.resources
import shlex

from jinja2 import Environment, PackageLoader, StrictUndefined

from mobile_avatar.exporters.registry import INTEGER
from mobile_avatar.graphs.rewrites.choice import default_rewrites
from mobile_avatar.reporting import clean, latency
from mobile_avatar.reporting.charts import layer_chart, sustained_chart
from mobile_avatar.reporting.collect import Facts
from mobile_avatar.reporting.compare import Comparison
from mobile_avatar.reporting.frames import AMPLIFIED

MINUS = "\N{MINUS SIGN}"


def render_report(facts: Facts) -> str:
    """The page of one bundle, as HTML."""
    return _render("report.html.j2", facts=facts, title=facts.name, commands=commands(facts))


def render_comparison(pair: Comparison) -> str:
    """The page of two bundles, as HTML."""
    return _render("compare.html.j2", pair=pair, title=f"{pair.first.name} and {pair.second.name}")


def commands(facts: Facts) -> list[str]:
    """What makes this bundle again, checks it and measures it, for a shell."""
    manifest = facts.manifest
    name = shlex.quote(facts.name)
    words = ["mobile-avatar export AVATAR", f"--target {shlex.quote(facts.target)} --precision {facts.precision}"]
    words.append(f"--warp {facts.warp}")
    rewrites = clean.texts(manifest.get("rewrites"))
    if tuple(rewrites) != default_rewrites(facts.target):
        words.append(f"--rewrites {shlex.quote(','.join(rewrites) or 'none')}")
    if clean.texts(clean.mapping(manifest.get("quantization")).get("keep")):
        words.append("--recipe recipe.json")
    if manifest["inputs"][0]["dtype"] != "float32":
        words.append("--quantize-io")
    return [
        " ".join([*words, f"-o {name}"]),
        f"mobile-avatar verify {name}",
        f"mobile-avatar benchmark {name} --on host",
        f"mobile-avatar report {name} -o report.html",
    ]


def _render(template: str, **values: object) -> str:
    page = _environment().get_template(template)
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    style = importlib.resources.files("mobile_avatar.reporting").joinpath("templates/style.css").read_text()
    return page.render(**values, style=style, made=made, version=importlib.metadata.version("mobile-avatar"))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mobile_avatar.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clean": clean.text,
        "number": clean.number,
        "rows": clean.rows,
        "texts": clean.texts,
        "mapping": clean.mapping,
        "passed": clean.passed,
        "ms": _ms,
        "megabytes": _megabytes,
        "percent": _percent,
        "db": functools.partial(_fixed, digits=1),
        "exact": _exact,
        "gmac": _gmac,
        "millions": _millions,
        "hash": _hash,
        "columns": latency.columns,
        "conditions": latency.conditions,
        "methods": latency.methods,
        "by_unit": latency.by_unit,
        "layers": latency.layers,
        "sustained": sustained_chart,
        "layer_chart": layer_chart,
        "link": _link,
    }
    environment.globals |= {"AMPLIFIED": AMPLIFIED, "INTEGER": INTEGER, "figure": latency.figure}
    return environment


def _fixed(value: object, digits: int) -> str:
    found = clean.number(value)
    return "–" if found is None else f"{found:.{digits}f}".replace("-", MINUS)


def _ms(value: object) -> str:
    """Three significant digits below 100 ms, whole milliseconds above."""
    found = clean.number(value)
    if found is None:
        return "–"
    return f"{found:.0f}" if abs(found) >= 100 else f"{found:.1f}" if abs(found) >= 10 else f"{found:.2f}"


def _megabytes(value: object) -> str:
    found = clean.number(value)
    if found is None:
        return "–"
    return f"{found / 1e6:.2f} MB" if found >= 1e5 else f"{found / 1e3:.1f} kB"


def _percent(value: object) -> str:
    found = clean.number(value)
    return "–" if found is None else f"{found * 100:.0f} %" if found >= 0.095 or not found else f"{found * 100:.1f} %"


def _exact(value: object) -> str:
    """A number as it was recorded, without an exponent."""
    found = clean.number(value)
    return "–" if found is None else f"{found:,.6f}".rstrip("0").rstrip(".").replace(",", " ").replace("-", MINUS)


def _gmac(value: object) -> str:
    found = clean.number(value)
    return "–" if found is None else f"{found / 1e9:.3f} GMAC"


def _millions(value: object) -> str:
    found = clean.number(value)
    return "–" if found is None else f"{found / 1e6:.2f} M"


def _hash(value: object) -> str:
    shown = clean.text(value, 80)
    return f"{shown[:12]}…" if len(shown) > 16 else shown


def _link(value: object) -> str:
    """An address that is safe to follow, else nothing: a job's page is the service's, and always https."""
    shown = clean.text(value, 300)
    return shown if shown.startswith("https://") else ""
