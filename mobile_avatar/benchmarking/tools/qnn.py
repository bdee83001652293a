"""QNN's `qnn-net-run`, and what `qnn-profile-viewer` shows of its logs."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_avatar.benchmarking.result import OperatorTime
from mobile_avatar.benchmarking.tools.pulled import complaint, expected, milliseconds, unread
from mobile_avatar.benchmarking.tools.qualcomm import has_integers, input_list, read_results, remarks
from mobile_avatar.benchmarking.tools.table import DeviceRun, Reading, Tool
from mobile_avatar.benchmarking.tools.viewer import view

NAME = "qnn-net-run"
VIEWER = "qnn-profile-viewer"
BACKENDS = {"GPU": "libQnnGpu.so", "HTP": "libQnnHtp.so", "CPU": "libQnnCpu.so"}
LOADER = "libQnnModelDlc.so"
"""Reads a DLC; older versions need it by name, newer ones accept it."""
LIBRARIES = (
    "libQnnSystem.so",
    LOADER,
    "libQnnGpu*.so",
    "libQnnCpu.so",
    "libQnnHtp.so",
    "libQnnHtpPrepare.so",
    "libQnnHtpNetRunExtensions.so",
    "libQnnHtpV*.so",
    "libc++_shared.so",
)
PROFILED_RUNS = 10

VERSION = re.compile(r"build version: (\S+)")
SECTION = re.compile(r"^(\w[\w /()-]*Stats(?: \(\w+\))?):[ \t]*$", re.MULTILINE)
NET_RUN = re.compile(r"^\s*NetRun:\s+(\S+) us\s*$", re.MULTILINE)
OPERATOR = re.compile(r"^[ \t]{6,}(?!NetRun\b|Backend \(|Graph )(\S.*?):\s+(\d+) (us|cycles)\s*$", re.MULTILINE)


def _commands(run: DeviceRun) -> tuple[str, ...]:
    """A single run, the steady runs, whose first ones give the outputs, and a few that list operators."""
    out = run.output
    native = " --use_native_input_files --use_native_output_files" if has_integers(run) else ""
    start = (
        f"./{NAME} --backend {BACKENDS[run.delegate]} --model {LOADER} --dlc_path {shlex.quote(run.model)}{native}"
        f" --input_list {out}/cases.txt --perf_profile burst"
    )

    def repeated(name: str, level: str, runs: int, keep: int) -> str:
        many = f"--num_inferences {runs} --keep_num_outputs {keep}"
        return f"{start} --profiling_level {level} {many} --output_dir {out}/{name}"

    steady = (input_list(run), repeated("steady", "basic", _steady_runs(run), len(run.inputs)))
    if not run.details:
        return (*steady, f"rm -rf {out}/steady/Result_*")
    return (
        *steady,
        f"{repeated('first', 'basic', 1, 1)} || true",
        f"{repeated('operators', 'detailed', PROFILED_RUNS, 1)} || true",
        f"rm -rf {out}/first/Result_* {out}/operators/Result_*",
    )


def _steady_runs(run: DeviceRun) -> int:
    # Every golden case is run at least once.
    return max(run.runs, len(run.inputs))


@dataclass(frozen=True)
class Profile:
    """What qnn-profile-viewer shows of one log, times in ms and averaged over its runs."""

    init_ms: float | None
    execute_ms: float
    operators: tuple[OperatorTime, ...]


def read_profile(text: str, unit: str) -> Profile:
    """Read what `qnn-profile-viewer` prints; CheckFailed when it shows no time of a run."""
    # [before, title, body, title, body, ...]
    parts = SECTION.split(text)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    average = sections.get("Execute Stats (Average)", "")
    execute, init = NET_RUN.search(average), NET_RUN.search(sections.get("Init Stats", ""))
    if execute is None:
        raise complaint(VIEWER, text, "showed no `Execute Stats (Average)`")
    operators = tuple(
        OperatorTime(
            name=re.sub(r" \(cycles\)$", "", match[1]),
            type="",
            unit=unit,
            # Cycles do not tell a time.
            ms=milliseconds(match[2], VIEWER, "the time of an operator") if match[3] == "us" else None,
        )
        for match in OPERATOR.finditer(average)
    )
    return Profile(
        None if init is None else milliseconds(init[1], VIEWER, "the time of initialisation"),
        milliseconds(execute[1], VIEWER, "the time of a run"),
        operators,
    )


def _parse(run: DeviceRun, text: str, output: Path, host: Path | None) -> Reading:
    logs = {name: expected(output, f"{name}/qnn-profiling-data_0.log") for name in ("first", "steady", "operators")}
    if logs["steady"] is None:
        raise complaint(NAME, text, "wrote no profile")
    version = VERSION.search(text)
    if host is None:
        raise unread(NAME, VIEWER)
    profiles = {
        name: None if log is None else read_profile(view(host, VIEWER, ["--input_log", str(log)]), run.delegate)
        for name, log in logs.items()
    }
    runs = _steady_runs(run)
    operators = profiles["operators"].operators if profiles["operators"] else ()
    return Reading(
        load_ms=profiles["steady"].init_ms,
        first_ms=profiles["first"].execute_ms if profiles["first"] else None,
        runs=runs,
        mean_ms=profiles["steady"].execute_ms,
        operators=operators,
        # The backend that was named runs all of a graph or refuses it; there is nothing to fall back to.
        delegate=run.delegate,
        version=version[1] if version else "",
        notes=tuple(remarks(NAME, run, runs, operators, "operators")),
    )


def _read_outputs(run: DeviceRun, output: Path) -> list[dict[str, np.ndarray]]:
    return read_results(run, output, "steady", NAME)


QNN_NET_RUN = Tool(
    name=NAME,
    runtime="qnn",
    targets=("snpe",),
    delegates=tuple(BACKENDS),
    programs=(NAME,),
    libraries=LIBRARIES,
    host_programs=(VIEWER,),
    commands=_commands,
    parse=_parse,
    read_outputs=_read_outputs,
)
