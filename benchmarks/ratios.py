"""Prints the table of docs/performance.md: python -m benchmarks.ratios [--rounds 40] [NAME ...]

All variants are prepared first and then timed in turns, round after round, in one process: what disturbs the machine
disturbs all of them, and the ratios hold. Shown is the median over the rounds of (baseline / variant) within a round.
"""

import platform
import time
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np

from benchmarks.frames import BASELINE, VARIANTS, frame_of
from mobile_avatar.errors import MissingTool

INT8_FLAGS = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm")
WARM_UP = 3


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


def markdown(times: dict[str, np.ndarray]) -> str:
    """The table: median and fastest milliseconds, median ratio with its quartiles."""
    rows = ["| variant | median ms | fastest ms | faster than the baseline |", "|---|---|---|---|"]
    for name, values in times.items():
        low, middle, high = np.percentile(times[BASELINE] / values, (25, 50, 75))
        milliseconds = f"{np.median(values) * 1e3:.1f} | {values.min() * 1e3:.1f}"
        rows.append(f"| {name} | {milliseconds} | {middle:.1f}x ({low:.1f} to {high:.1f}) |")
    return "\n".join(rows)


def processor() -> str:
    """Name of the processor and whether it multiplies 8-bit integers in one instruction."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "unknown")
    found = [flag for flag in INT8_FLAGS if flag in text.split()]
    return f"{name}, 8-bit dot products: {', '.join(found) or 'none'}"


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(VARIANTS)))
@click.option("--rounds", default=40, type=click.IntRange(3))
def main(names: tuple[str, ...], rounds: int) -> None:
    """Time the variants (all by default) against the baseline and print a markdown table."""
    chosen = list(VARIANTS) if not names else [BASELINE, *(name for name in names if name != BASELINE)]
    click.echo(f"{processor()}; one thread, {rounds} rounds in turns\n")
    click.echo(markdown(measure(chosen, rounds)))


if __name__ == "__main__":
    main()
