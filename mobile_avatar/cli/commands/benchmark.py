"""mobile-avatar benchmark"""

import math
import shutil
from pathlib import Path

import click
from click.core import ParameterSource

from mobile_avatar.cli.common import force_option, json_option, print_json, print_table, say

BELONGS = {
    "runs": ("host", "adb", "aihub"),
    "sustained_min": ("host", "adb"),
    "threads": ("host", "adb"),
    "runtimes": ("host", "adb"),
    "avatar": ("host",),
    "beside": ("host",),
    "beside_avatar": ("host",),
    "serial": ("adb",),
    "tools": ("adb",),
    "unit": ("aihub",),
}
"""Options that only some places know."""


def _finite(ctx, parameter, value):
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number to measure with")
    return value


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--on", "place", type=click.Choice(["host", "adb", "aihub"]), help="Where to measure; default: nowhere.")
@click.option("--device", help="Chip of the estimate and the budget; with `--on aihub` the name of a hosted phone.")
@click.option(
    "--budget-ms",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    help="Exit 1 when a frame takes longer.",
)
@click.option(
    "--require",
    type=click.Choice(["measured", "simulated", "estimated"]),
    default="estimated",
    help="The budget takes no figure of a lesser kind than this.",
)
@click.option("--statistic", type=click.Choice(["p50", "p90", "p99"]), default="p50", help="What the budget judges.")
@click.option("--runs", default=100, type=click.IntRange(1, 1_000_000), help="Steady runs behind a figure.")
@click.option(
    "--sustained",
    "sustained_min",
    default=0.0,
    type=click.FloatRange(0, 24 * 60),
    callback=_finite,
    help="Minutes of a long run.",
)
@click.option("--threads", type=click.IntRange(1, 1024), help="host: most threads to try; adb: threads of a CPU run.")
@click.option("--runtime", "runtimes", multiple=True, help="Only this runtime (repeatable).")
@click.option("--avatar", type=click.Path(path_type=Path), help="host: the avatar behind the bundle.")
@click.option(
    "--beside",
    type=click.Path(path_type=Path),
    help="host: another bundle, timed in turns with BUNDLE; on one thread unless --threads says otherwise.",
)
@click.option("--beside-avatar", type=click.Path(path_type=Path), help="host: the avatar behind that other bundle.")
@click.option("--serial", help="adb: which phone, where several are connected.")
@click.option("--tools", type=click.Path(path_type=Path), help="adb: folder with the device tools.")
@click.option("--unit", type=click.Choice(["npu", "gpu", "cpu", "all"]), help="aihub: compute unit to ask for.")
@click.option("--chart", type=click.Path(path_type=Path), help="Write the estimate per layer as a bar chart (.png).")
@force_option
@json_option
@click.pass_context
def command(
    ctx, bundle, place, device, budget_ms, require, statistic, chart, beside, beside_avatar, force, as_json, **options
):
    """Measure BUNDLE on this host, a phone or a hosted phone, and hold it against a budget.

    Without --on nothing is measured: the estimate and the results of earlier runs are shown and judged.
    """
    from mobile_avatar.benchmarking.beside import measure_beside
    from mobile_avatar.benchmarking.estimate_graphs import estimate_rows
    from mobile_avatar.benchmarking.gate import judge
    from mobile_avatar.benchmarking.places import Settings, measure
    from mobile_avatar.benchmarking.result import FRAME
    from mobile_avatar.benchmarking.store import Journal, newest, stored_results
    from mobile_avatar.benchmarking.subject import open_subject
    from mobile_avatar.errors import CheckFailed, MobileAvatarError

    _check_options(ctx, place, budget_ms)
    subject = open_subject(bundle)
    chip = subject.manifest["budget"]["device"] if device is None or place == "aihub" else device
    estimated = estimate_rows(subject, chip)
    if chart:
        _draw(chart, force, subject, estimated[-1])
    journal, stopped, other = Journal(subject, place or "none"), None, None
    settings = Settings(device=device, say=say, **options)
    if place is None:
        earlier, notes = stored_results(subject)
        results = [*newest(earlier), *estimated]
        for note in notes:
            say(f"note: {note}")
    else:
        journal.prepare()
        try:
            if beside is None:
                measure(place, subject, settings, journal)
            else:
                other = measure_beside(subject, settings, journal, beside, beside_avatar)
        except MobileAvatarError as error:  # what was measured until then is shown and kept
            stopped = error
        results = [*journal.results, *estimated]
    # Rows of this run are judged wherever they ran, unless a chip was named; without a run, those of the budget's chip.
    fresh = [row for row in journal.results if row.own_file and not row.error]
    anywhere = fresh and (device is None or place == "aihub")
    verdict = budget_ms and judge(
        fresh if anywhere else results, None if anywhere else chip, budget_ms, statistic, require
    )
    if as_json:
        answer = {"results": [row.to_dict() for row in results], "budget": _verdict(verdict, budget_ms, statistic)}
        print_json(answer if other is None else answer | {"beside": other.to_dict()})
    else:
        _show(results, journal.path)
        if other:
            _show_beside(other, bundle, beside)
        if verdict and verdict.passed:
            click.echo(f"\nbudget: {verdict.sentence}")
    if stopped:
        raise stopped
    rows = [row for row in journal.results if row.graph != FRAME]  # a frame repeats what its graphs say
    rows += [] if other is None else [row for row in other.results if row.graph != FRAME]
    wrong = [f"{row.title}, {c['output']}" for row in rows for c in row.parity if c["passed"] is False]
    problems = [f"outputs are wrong: {'; '.join(wrong)}"] if wrong else []
    if verdict and not verdict.passed:
        problems.append(f"budget: {verdict.sentence}")
    if problems:
        raise CheckFailed(". ".join(problems))


def _check_options(ctx, place, budget_ms):
    """Options that nothing would read are a mistake, not a wish."""

    def given(name):
        return ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE

    flags = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
    for name, places in BELONGS.items():
        if given(name) and place not in places:
            wanted = " or ".join(f"--on {word}" for word in places)
            raise click.UsageError(f"{flags[name]} belongs to {wanted}")
    if given("beside_avatar") and not given("beside"):
        raise click.UsageError("--beside-avatar is about the bundle of --beside; pass that as well")
    for name in ("require", "statistic"):
        if given(name) and budget_ms is None:
            raise click.UsageError(f"{flags[name]} says what --budget-ms judges; pass that as well")


def _draw(chart, force, subject, estimated):
    from mobile_avatar.benchmarking.layer_chart import save_layer_chart
    from mobile_avatar.files import check_output

    if chart.suffix.lower() != ".png":
        raise click.UsageError(f"the chart is a PNG picture; {chart} should end in .png")
    if chart.resolve().is_relative_to(subject.folder.resolve()):
        raise click.UsageError(f"{chart} lies in the bundle; choose a place outside of it")
    check_output(chart, force)
    save_layer_chart(estimated, chart)
    say(f"drew {chart}")


def _verdict(verdict, budget_ms, statistic):
    if not verdict:
        return None
    row = verdict.judged
    name, value = (None, None) if row is None else row.figure(statistic)
    return {
        "passed": verdict.passed,
        "budget_ms": budget_ms,
        "judged_ms": value,
        "statistic": None if row is None or row.kind == "estimated" else name,
        "kind": row and row.kind,
        "device": row and row.device,
        "runtime": row and row.title,
        "sentence": verdict.sentence,
    }


def _show(results, path):
    """The table, then what does not fit into it; what is true of many rows is said once."""
    from mobile_avatar.benchmarking.result import DRAW

    # Rows of one run on this host were timed in turns and share their time stamp; only they may be compared, and of
    # several graphs only those of the same work.
    slowest: dict[tuple, float] = {}
    for row in (row for row in results if row.place == "host" and row.p50_ms):
        work = row.taken, row.graph, row.scope
        slowest[work] = max(slowest.get(work, 0.0), row.p50_ms)
    rows, said = [], {}
    for row in sorted(results, key=lambda row: (row.kind == "estimated", row.taken)):
        name, value = row.figure()
        if row.low_ms is not None:
            steady = f"{value:.2f} ({row.low_ms:.2f} to {row.high_ms:.2f})"
        else:
            steady = "-" if value is None else f"{value:.2f}{'' if name == 'p50' else f' ({name})'}"
        ratio = ""
        if row.place == "host" and row.p50_ms and row.graph != DRAW:
            ratio = f"{slowest[row.taken, row.graph, row.scope] / row.p50_ms:.1f}x"
        slow = ["" if number is None else f"{number:.2f}" for number in (row.p90_ms, row.p99_ms)]
        rows.append((row.kind.upper(), row.title, steady, ratio, *slow, "" if row.runs is None else row.runs))
        for text in _remarks(row):
            said.setdefault(text, []).append(row.title)
    header = ("kind", "what", "ms", "faster", "p90", "p99", "runs")
    columns = [i for i in range(len(header)) if any(row[i] != "" for row in rows)]
    print_table([header[i] for i in columns], [[row[i] for i in columns] for row in rows])
    click.echo()
    width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 120))
    for text, titles in said.items():
        who = titles[0] if len(titles) == 1 else f"{len(titles)} rows"
        click.echo(click.wrap_text(f"{who}: {text}", width, subsequent_indent="  "))
    if path:
        click.echo(f"kept in {path}")


def _show_beside(found, bundle, beside):
    """Two bundles that were timed in one run."""
    click.echo(f"\nA {bundle}, B {beside}, in one run, frame by frame in turns, median (fastest) in ms")
    rows = [
        (line.runtime, line.what, *(f"{side.p50_ms:.2f} ({side.fastest_ms:.2f})" for side in line.sides), line.ratio)
        for line in found.lines
    ]
    print_table(("runtime", "what", "A", "B", "B / A"), [(*row[:4], f"{row[4]:.2f}") for row in rows])
    for text in found.notes:
        click.echo(text)
    click.echo(f"rows of B are kept in {found.path}")


def _remarks(row):
    """What a row has to say beside its figure, one text each."""
    from mobile_avatar.benchmarking.result import FRAME

    where = ", ".join(filter(None, (row.device, row.soc, row.os, row.power_mode)))
    heat = [f"{t:.1f} °C" for t in (row.temperature_before_c, row.temperature_after_c) if t is not None]
    state = [word for word in (row.thermal_before, row.thermal_after) if word]
    if row.kind != "estimated":
        yield ", ".join(filter(None, (f"on {where}, {row.taken[:19]}", " to ".join(heat), " to ".join(state))))
        shown = (
            ("load {:.2f} ms", row.load_ms),
            ("first {:.2f} ms", row.first_ms),
            ("warm-up {:.2f} ms", row.warmup_ms),
            (f"{{:.2f}} ms of p50 is {'the draw call' if row.graph else 'composition'}", row.composite_p50_ms),
            (f"{row.memory_what or 'memory'} {{:.2f}} MB", row.memory_mb),
        )
        told = [text.format(value) for text, value in shown if value is not None]
        several = row.graph == FRAME
        file = f"the bundle's own file{'s' * several}" if row.own_file else f"the same graph{'s' * several}, converted"
        if not row.error:
            yield ", ".join((file, *told))
    for minute in row.sustained:
        heat = "" if minute.temperature_c is None else f", {minute.temperature_c:.1f} °C"
        yield f"minute {minute.minute}: p50 {minute.p50_ms:.2f} ms, {minute.runs} runs{heat}"
    for check in row.parity:
        word = {True: "ok", False: "FAILED", None: "not run"}[check["passed"]]
        value = check.get("reason") or f"{check['psnr_db']} dB (at least {check['threshold_db']:g})"
        yield f"{check['output']}: {value} {word}"
    for job in row.jobs:
        yield f"job {job['id']} ({job['type']}, {job['status']}): {job['url']}"
    missing = "no estimate" if row.kind == "estimated" else "NOT MEASURED"
    yield from filter(None, (row.error and f"{missing}: {row.error}", row.method, *row.notes))
