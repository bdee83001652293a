"""SNPE's `snpe-net-run`, and what `snpe-diagview` shows of its logs."""

import contextlib
import csv
import re
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_avatar.benchmarking.result import OperatorTime
from mobile_avatar.benchmarking.tools.pulled import complaint, expected, milliseconds, read_log, unread
from mobile_avatar.benchmarking.tools.qualcomm import has_integers, input_list, read_results, remarks
from mobile_avatar.benchmarking.tools.table import DeviceRun, Reading, Tool
from mobile_avatar.benchmarking.tools.viewer import view

NAME = "snpe-net-run"
VIEWER = "snpe-diagview"
LIBRARIES = ("libSNPE.so", "libSnpe*.so", "libsnpe_dsp*.so", "libc++_shared.so")
FLAGS = {"GPU_FP16": " --use_gpu --gpu_mode float16", "GPU": " --use_gpu", "DSP": " --use_dsp", "CPU": ""}
WORDS = {"GPU_FP16": "GPU (float16)", "GPU": "GPU (float16 storage, float32 arithmetic)", "DSP": "DSP", "CPU": "CPU"}
"""Delegate -> what stands in a result when it did all of the work."""

MOST_RUNS = 100
"""Each run writes its outputs before they can be removed."""

VERSION = re.compile(r"Software library version: (\S+)")
INIT = re.compile(r"^ *Init: (\S+) us *$", re.MULTILINE)
TOTAL = re.compile(r"^ *Total Inference Time: (\S+) us *$", re.MULTILINE)
LAYER = re.compile(r"^ *(\d+): (?:(.*\S) : )?(\S+) (us|cycles) : (\w+) *\n", re.MULTILINE)


def _commands(run: DeviceRun) -> tuple[str, ...]:
    """A single run, the steady runs, and one pass over the golden cases that lists layers and keeps the outputs."""
    out = run.output
    native = " --userbuffer_auto --use_native_input_files --use_native_output_files" if has_integers(run) else ""
    start = f"./{NAME} --container {shlex.quote(run.model)}{FLAGS[run.delegate]}{native} --perf_profile burst"

    def once(name: str, level: str) -> str:
        return f"{start} --profiling_level {level} --input_list {out}/{name}.txt --output_dir {out}/{name}"

    runs = _steady_runs(run)
    times = -(-runs // len(run.inputs))
    steady = (
        input_list(run),
        # The list is repeated, as not every version can repeat runs by itself.
        f"i=0; while [ $i -lt {times} ]; do cat {out}/cases.txt; i=$((i+1)); done > {out}/repeated.txt",
        f"head -n {runs} {out}/repeated.txt > {out}/steady.txt",
        once("steady", "basic"),
        f"rm -rf {out}/steady/Result_*",
    )
    if not run.details:
        return steady
    return (
        *steady,
        f"head -n 1 {out}/cases.txt > {out}/first.txt",
        f"{once('first', 'basic')} || true",
        f"{once('cases', 'detailed')} || true",
        f"rm -rf {out}/first/Result_*",
    )


def _steady_runs(run: DeviceRun) -> int:
    return min(run.runs, MOST_RUNS)


@dataclass(frozen=True)
class Diagnosis:
    """What snpe-diagview shows of one log, times in ms and averaged over its runs."""

    version: str
    init_ms: float | None
    total_ms: float
    layers: tuple[OperatorTime, ...]


def read_diagnosis(text: str, table: str = "") -> Diagnosis:
    """Read what `snpe-diagview` prints, all versions.

    Args:
        text: what it printed.
        table: content of its `--output` file (CSV), whose names stay where the wording of the text has changed.

    Raises CheckFailed when there is no total time in either.
    """
    rows = _messages(table)
    total = TOTAL.search(text)
    word = total[1] if total else rows.get("avg_total_inference_time") or rows.get("total_inference_time")
    if word is None:
        raise complaint(VIEWER, text, "showed no `Total Inference Time`")
    init = INIT.search(text)
    started = init[1] if init else rows.get("init")
    version = VERSION.search(text)
    layers = tuple(
        OperatorTime(
            name=match[2] or f"layer {match[1]}",
            type="",
            unit=match[5],
            # Cycles do not tell a time.
            ms=milliseconds(match[3], VIEWER, "the time of a layer") if match[4] == "us" else None,
        )
        for match in LAYER.finditer(text)
    )
    return Diagnosis(
        version[1] if version else "",
        None if started is None else milliseconds(started, VIEWER, "`Init`"),
        milliseconds(word, VIEWER, "`Total Inference Time`"),
        layers,
    )


def _messages(table: str) -> dict[str, str]:
    """Message -> value in us: second and fourth column."""
    found: dict[str, str] = {}
    with contextlib.suppress(csv.Error):
        for row in csv.reader(table.replace("\0", "").splitlines()):
            if len(row) >= 4:
                found.setdefault(row[1].strip().lower(), row[3].strip())
    return found


def _parse(run: DeviceRun, text: str, output: Path, host: Path | None) -> Reading:
    logs = {name: expected(output, f"{name}/SNPEDiag_0.log") for name in ("first", "steady", "cases")}
    if logs["steady"] is None:
        raise complaint(NAME, text, "wrote no SNPEDiag_0.log")
    if host is None:
        raise unread(NAME, VIEWER)
    steady = _view(host, logs["steady"])
    first = _view(host, logs["first"]) if logs["first"] else None
    cases = _view(host, logs["cases"]) if logs["cases"] else None
    layers = cases.layers if cases else ()
    delegate, fallback = placement(run.delegate, layers)
    runs = _steady_runs(run)
    return Reading(
        load_ms=steady.init_ms,
        first_ms=first.total_ms if first else None,
        runs=runs,
        mean_ms=steady.total_ms,
        operators=layers,
        delegate=delegate,
        fallback=fallback,
        version=steady.version,
        notes=tuple(remarks(NAME, run, runs, layers, "layers")),
    )


def _view(host: Path, log: Path) -> Diagnosis:
    with tempfile.TemporaryDirectory() as folder:
        text = view(host, VIEWER, ["--input_log", str(log), "--output", str(Path(folder) / "table.csv")])
        return read_diagnosis(text, read_log(Path(folder), "table.csv"))


def placement(asked: str, layers: tuple[OperatorTime, ...]) -> tuple[str, str]:
    """What did the work and, when layers ran elsewhere than asked for, a sentence."""
    wanted = asked.partition("_")[0]
    units = list(dict.fromkeys(layer.unit for layer in layers))
    if not units:
        return "", ""
    if units == [wanted]:
        return WORDS[asked], ""
    others = [layer for layer in layers if layer.unit != wanted]
    names = ", ".join(layer.name for layer in others[:3]) + (", ..." if len(others) > 3 else "")
    where = " and ".join(unit for unit in units if unit != wanted)
    sentence = f"{len(others)} of {len(layers)} layers ran on the {where} instead of the {wanted} ({names})"
    return " + ".join(units), sentence


def _read_outputs(run: DeviceRun, output: Path) -> list[dict[str, np.ndarray]]:
    return read_results(run, output, "cases", NAME)


SNPE_NET_RUN = Tool(
    name=NAME,
    runtime="snpe",
    targets=("snpe",),
    delegates=tuple(FLAGS),
    programs=(NAME,),
    libraries=LIBRARIES,
    # On this computer: every SDK brings it for x86, and the phone stays cool and undisturbed.
    host_programs=(VIEWER,),
    commands=_commands,
    parse=_parse,
    read_outputs=_read_outputs,
)
