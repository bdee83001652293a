"""Prints the table of docs/performance.md: python -m benchmarks.ratios [--rounds 40] [--save] [NAME ...]

All variants are prepared first and then timed in turns, round after round, in one process: what disturbs the machine
disturbs all of them, and the ratios hold. Shown is the median over the rounds of (baseline / variant) within a round.
"""

import json
import time
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np

from benchmarks.frames import BASELINE, VARIANTS, frame_of
from mobile_avatar.benchmarking.host_facts import processor
from mobile_avatar.errors import MissingTool
from mobile_avatar.files import replace_file

WARM_UP = 3
SAVED = Path(__file__).parent / "baselines.json"
"""Ratios by processor and variant; `test_ratios.py` holds new ones against them."""


def measure(names: list[str], rounds: int) -> dict[str, np.ndarray]:
    """Seconds per frame, by variant, of every round; variants whose runtime is missing are left out."""
    with ExitStack() as stack:
        frames = {}
        for name in names:
            try:
                frames[name] = stack.enter_context(frame_of(VARIANTS[name]))
            except MissingTool as error:
                click.echo(f"left out: {name}: {error}", err=True)
        times: dict[str, list[float]] = {name: [] for name in frames}
        for number in range(-WARM_UP, rounds):
            for name, frame in frames.items():
                start = time.perf_counter()
                frame()
                if number >= 0:
                    times[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in times.items()}


def ratios(times: dict[str, np.ndarray]) -> dict[str, float]:
    """How many times faster than the baseline, by variant: the median over the rounds."""
    return {name: round(float(np.median(times[BASELINE] / values)), 3) for name, values in times.items()}


def saved() -> dict[str, float] | None:
    """The saved ratios of this processor; None where nobody saved any."""
    return json.loads(SAVED.read_text()).get(processor()) if SAVED.exists() else None


def save(found: dict[str, float]) -> None:
    """Keep the ratios of this processor; those of others stay."""
    content = json.loads(SAVED.read_text()) if SAVED.exists() else {}
    content[processor()] = content.get(processor(), {}) | found
    with replace_file(SAVED) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def markdown(times: dict[str, np.ndarray]) -> str:
    """The table: median and fastest milliseconds, median ratio with its quartiles."""
    rows = ["| variant | median ms | fastest ms | faster than the baseline |", "|---|---|---|---|"]
    for name, values in times.items():
        low, middle, high = np.percentile(times[BASELINE] / values, (25, 50, 75))
        milliseconds = f"{np.median(values) * 1e3:.1f} | {values.min() * 1e3:.1f}"
        rows.append(f"| {name} | {milliseconds} | {middle:.1f}x ({low:.1f} to {high:.1f}) |")
    return "\n".join(rows)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(VARIANTS)))
@click.option("--rounds", default=40, type=click.IntRange(3))
@click.option("--save", "keep", is_flag=True, help="Keep the ratios as the baseline of this processor.")
def main(names: tuple[str, ...], rounds: int, keep: bool) -> None:
    """Time the variants (all by default) against the baseline and print a markdown table."""
    chosen = list(VARIANTS) if not names else [BASELINE, *(name for name in names if name != BASELINE)]
    times = measure(chosen, rounds)
    click.echo(f"{processor()}; one thread, {rounds} rounds in turns\n")
    click.echo(markdown(times))
    if keep:
        save(ratios(times))


if __name__ == "__main__":
    main()
