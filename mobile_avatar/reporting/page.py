"""Facts become one HTML file that needs nothing else: no script, no request, pictures inside."""

import datetime
import functools
import importlib.metadata
import importlib.resources
import shlex

from jinja2 import Environment, PackageLoader, StrictUndefined

from mobile_avatar.exporters.registry import INTEGER
from mobile_avatar.graphs.rewrites.choice import default_rewrites
from mobile_avatar.reporting import clean, latency, words
from mobile_avatar.reporting.charts import layer_chart, sustained_chart
from mobile_avatar.reporting.collect import Facts
from mobile_avatar.reporting.compare import Comparison
from mobile_avatar.reporting.frames import AMPLIFIED
from mobile_avatar.reporting.terms import terms


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
    parts = ["mobile-avatar export AVATAR", f"--target {shlex.quote(facts.target)} --precision {facts.precision}"]
    if not facts.graphs:
        parts.append(f"--warp {facts.warp}")
        rewrites = clean.texts(manifest.get("rewrites"))
        if tuple(rewrites) != default_rewrites(facts.target):
            parts.append(f"--rewrites {shlex.quote(','.join(rewrites) or 'none')}")
        if clean.texts(clean.mapping(manifest.get("quantization")).get("keep")):
            parts.append("--recipe recipe.json")
        if manifest["inputs"][0]["dtype"] != "float32":
            parts.append("--quantize-io")
    return [
        " ".join([*parts, f"-o {name}"]),
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
        "ms": words.ms,
        "megabytes": words.megabytes,
        "percent": words.percent,
        "fixed": functools.partial(words.fixed, digits=1),
        "decibels": words.decibels,
        "exact": words.exact,
        "gmac": words.gmac,
        "millions": words.millions,
        "hash": words.short,
        "columns": latency.columns,
        "conditions": latency.conditions,
        "methods": latency.methods,
        "by_unit": latency.by_unit,
        "layers": latency.layers,
        "sustained": sustained_chart,
        "layer_chart": layer_chart,
        "link": words.link,
        "code": words.code,
        "date": words.date,
        "terms": terms,
        "run_count": latency.count,
    }
    environment.globals |= {"AMPLIFIED": AMPLIFIED, "INTEGER": INTEGER, "figure": latency.figure}
    return environment
