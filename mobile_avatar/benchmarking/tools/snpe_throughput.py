"""SNPE's `snpe-throughput-net-run`: runs per second, without any other program."""

import re
import shlex
from pathlib import Path

from mobile_avatar.benchmarking.tools.pulled import complaint, milliseconds, number
from mobile_avatar.benchmarking.tools.snpe import LIBRARIES, WORDS
from mobile_avatar.benchmarking.tools.table import DeviceRun, Reading, Tool, no_outputs

NAME = "snpe-throughput-net-run"
RUNTIMES = {"GPU_FP16": "gpu_float16", "GPU": "gpu_float32_16_hybrid", "DSP": "dsp_fixed8_tf", "CPU": "cpu_float32"}
SECONDS = 10
MOST_APART = 0.03
"""Relative difference between its rate and its own counts from which on a note says so."""

THREAD = re.compile(
    r"\[(?:Thread|Instance) \d+ - (\w+)\] (\S+) infs/sec - Number of images processed: (\d{1,12})"
    r" - Build time: (\S+) microseconds(?:.*? - Real time: (\S+) microseconds)?"
)
TOTAL = re.compile(r"Total throughput: (\S+) infs/sec")


def _commands(run: DeviceRun) -> tuple[str, ...]:
    # One entry in the order of runtimes: nothing to fall back to. Inputs are the tool's own random ones.
    return (
        f"./{NAME} --container {shlex.quote(run.model)} --duration {SECONDS} --perf_profile burst"
        f" --runtime_order {RUNTIMES[run.delegate]}",
    )


def _parse(run: DeviceRun, text: str, output: Path, host: Path | None) -> Reading:
    thread, total = THREAD.search(text), TOTAL.search(text)
    if thread is None or total is None:
        raise complaint(NAME, text, "printed no throughput")
    rate, runs = number(total[1], NAME, "the throughput"), int(thread[3])
    if rate == 0 or runs == 0:
        raise complaint(NAME, text, "finished no run")
    mean = 1000 / rate
    notes = [f"as many runs as fit into {SECONDS} s, on random inputs"]
    if thread[5] is not None:
        counted = milliseconds(thread[5], NAME, "the time of all runs") / runs
        if abs(counted - mean) > MOST_APART * mean:
            notes.append(f"its rate ({mean:.3f} ms a run) and its own count of runs ({counted:.3f} ms) disagree")
    asked = RUNTIMES[run.delegate]
    words = {runtime: WORDS[delegate] for delegate, runtime in RUNTIMES.items()}
    return Reading(
        load_ms=milliseconds(thread[4], NAME, "the build time"),
        runs=runs,
        mean_ms=round(mean, 6),
        delegate=words.get(thread[1], thread[1]),
        fallback="" if thread[1] == asked else f"{asked} was asked for and {thread[1]} ran",
        notes=tuple(notes),
    )


SNPE_THROUGHPUT = Tool(
    name=NAME,
    runtime="snpe",
    targets=("snpe",),
    delegates=tuple(RUNTIMES),
    programs=(NAME,),
    libraries=LIBRARIES,
    host_programs=(),
    commands=_commands,
    parse=_parse,
    read_outputs=no_outputs,
)
