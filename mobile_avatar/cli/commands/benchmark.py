"""mobile-avatar benchmark"""

from pathlib import Path

import click

from mobile_avatar.cli.common import force_option, json_option, print_json, print_table, say

HEADER = ("kind", "device", "runtime", "ms", "faster", "p90", "p99", "compose", "load", "first", "MB", "scope")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--on", "place", type=click.Choice(["host", "adb", "aihub"]), help="Where to measure; default: nowhere.")
@click.option("--device", help="Chip of the estimate and the budget; with `--on aihub` the name of a hosted phone.")
@click.option("--budget-ms", type=click.FloatRange(min=0, min_open=True), help="Exit 1 when a frame takes longer.")
@click.option(
    "--require",
    type=click.Choice(["measured", "simulated", "estimated"]),
    default="estimated",
    help="The budget takes no figure of a lesser kind than this.",
)
@click.option("--statistic", type=click.Choice(["p50", "p90", "p99"]), default="p50", help="What the budget judges.")
@click.option("--runs", default=50, type=click.IntRange(1), help="Steady runs behind a figure.")
@click.option("--sustained", "sustained_min", default=0.0, type=click.FloatRange(0), help="Minutes of a long run.")
@click.option("--threads", type=click.IntRange(1), help="host: most threads to try; adb: threads of a CPU run.")
@click.option("--runtime", "runtimes", multiple=True, help="Only this runtime (repeatable).")
@click.option("--avatar", type=click.Path(path_type=Path), help="host: the avatar behind the bundle.")
@click.option("--serial", help="adb: which phone, where several are connected.")
@click.option("--tools", type=click.Path(path_type=Path), help="adb: folder with the device tools.")
@click.option("--unit", type=click.Choice(["npu", "gpu", "cpu", "all"]), help="aihub: compute unit to ask for.")
@click.option("--chart", type=click.Path(path_type=Path), help="Write the estimate per layer as a bar chart (PNG).")
@force_option
@json_option
def command(bundle, place, device, budget_ms, require, statistic, chart, force, as_json, **options):
    """Measure BUNDLE on this host, a phone or a hosted phone, and hold it against a budget.

    Without --on nothing is measured: the estimate and the results of earlier runs are shown and judged.
    """
    from mobile_avatar.benchmarking.estimate import estimate_result
    from mobile_avatar.benchmarking.gate import judge
    from mobile_avatar.benchmarking.places import Settings, measure
    from mobile_avatar.benchmarking.store import Journal, newest, stored_results
    from mobile_avatar.benchmarking.subject import open_subject
    from mobile_avatar.errors import CheckFailed, MobileAvatarError
    from mobile_avatar.files import check_output

    if chart:
        check_output(chart, force)
    subject = open_subject(bundle)
    chip = subject.manifest["budget"]["device"] if device is None or place == "aihub" else device
    estimated = estimate_result(subject, chip)
    if chart:
        from mobile_avatar.benchmarking.layer_chart import save_layer_chart

        save_layer_chart(estimated, chart)
        say(f"drew {chart}")
    journal, stopped = Journal(subject, place or "none"), None
    if place is None:
        earlier, notes = stored_results(subject)
        results = [*newest(earlier), estimated]
        for note in notes:
            say(f"note: {note}")
    else:
        try:
            measure(place, subject, Settings(device=device, say=say, **options), journal)
        except MobileAvatarError as error:  # what was measured until then is shown and kept
            stopped = error
        results = [*journal.results, estimated]
    # Rows of this run are judged wherever they ran; without one, those of the budget's device.
    fresh = [row for row in journal.results if row.own_file and not row.error]
    verdict = budget_ms and judge(fresh or results, None if fresh else chip, budget_ms, statistic, require)
    if as_json:
        shown = verdict and {"passed": verdict.passed, "budget_ms": budget_ms, "sentence": verdict.sentence}
        print_json({"results": [row.to_dict() for row in results], "budget": shown or None})
    else:
        _show(results, journal.path)
        if verdict and verdict.passed:
            click.echo(f"\nbudget: {verdict.sentence}")
    if stopped:
        raise stopped
    wrong = [f"{row.title}, {c['output']}" for row in journal.results for c in row.parity if c["passed"] is False]
    problems = [f"outputs are wrong: {'; '.join(wrong)}"] if wrong else []
    if verdict and not verdict.passed:
        problems.append(f"budget: {verdict.sentence}")
    if problems:
        raise CheckFailed(". ".join(problems))


def _show(results, path):
    """The table, then what does not fit into it; what is true of many rows is said once."""
    rows, said = [], {}
    # Rows of one run on this host were timed in turns and share their time stamp; only they may be compared.
    slowest: dict[str, float] = {}
    for row in (row for row in results if row.place == "host" and row.p50_ms):
        slowest[row.taken] = max(slowest.get(row.taken, 0.0), row.p50_ms)
    for row in results:
        name, value = row.figure()
        plain = name == "p50" or row.kind == "estimated"
        steady = "-" if value is None else f"{value:.2f}{'' if plain else f' ({name})'}"
        ratio = f"{slowest[row.taken] / row.p50_ms:.1f}x" if row.place == "host" and row.p50_ms else "-"
        numbers = (row.p90_ms, row.p99_ms, row.composite_p50_ms, row.load_ms, row.first_ms, row.memory_mb)
        cells = ["-" if number is None else f"{number:.2f}" for number in numbers]
        rows.append((row.kind.upper(), row.device, row.title, steady, ratio, *cells, row.scope))
        for text in _remarks(row):
            said.setdefault(text, []).append(row.title)
    print_table(HEADER, rows)
    click.echo()
    for text, titles in said.items():
        click.echo(f"{titles[0] if len(titles) == 1 else f'{len(titles)} rows'}: {text}")
    if path:
        click.echo(f"kept in {path}")


def _remarks(row):
    if row.soc and row.place != "estimate":
        heat = [f"{t:.1f} °C" for t in (row.temperature_before_c, row.temperature_after_c) if t is not None]
        state = [word for word in (row.thermal_before, row.thermal_after) if word]
        yield ", ".join(filter(None, (row.soc, row.os, row.power_mode, " to ".join(heat), " to ".join(state))))
    for minute in row.sustained:
        heat = "" if minute.temperature_c is None else f", {minute.temperature_c:.1f} °C"
        yield f"minute {minute.minute}: p50 {minute.p50_ms:.2f} ms, {minute.runs} runs{heat}"
    for check in row.parity:
        word = {True: "ok", False: "FAILED", None: "not run"}[check["passed"]]
        value = check.get("reason") or f"{check['psnr_db']} dB (at least {check['threshold_db']:g})"
        yield f"{check['output']}: {value} {word}"
    for job in row.jobs:
        yield f"job {job['id']} ({job['type']}, {job['status']}): {job['url']}"
    yield from filter(None, (row.error and f"NOT MEASURED: {row.error}", row.method, *row.notes))
