"""QNN's `qnn-throughput-net-run`: average, least and most of many runs, without any other program."""

import json
import re
import shlex
from pathlib import Path

from mobile_avatar.benchmarking.tools.pulled import complaint, milliseconds
from mobile_avatar.benchmarking.tools.qnn import BACKENDS, LIBRARIES, LOADER
from mobile_avatar.benchmarking.tools.qualcomm import has_integers, input_list
from mobile_avatar.benchmarking.tools.table import DeviceRun, Reading, Tool, no_outputs

NAME = "qnn-throughput-net-run"
COMPILER = "qnn-context-binary-generator"
DELEGATES = ("GPU", "HTP")
"""The CPU backend has no context binaries."""
EXTENSIONS = {"GPU": "libQnnGpuNetRunExtensions.so", "HTP": "libQnnHtpNetRunExtensions.so"}
"""Without it the performance profile has no effect."""

EXECUTED = re.compile(r"^\s*\S+:graphExecute:\s+(\d{1,12})\s+(\S+)\s+(\S+)\s+(\S+)\s*\n", re.MULTILINE)


def _configuration(run: DeviceRun, extensions: bool) -> str:
    """The JSON that the program is given; one thread runs one graph `run.runs` times."""
    backend = {"backendName": "backend", "backendPath": BACKENDS[run.delegate], "profilingLevel": "OFF"}
    if extensions:
        backend |= {"backendExtensions": EXTENSIONS[run.delegate], "perfProfile": "burst"}
    model = {
        "modelName": "avatar",
        "modelPath": f"{run.output}/context/context.bin",
        "loadFromCachedBinary": True,
        "inputPath": f"{run.output}/cases.txt",
        "inputDataType": "NATIVE" if has_integers(run) else "FLOAT",
        "outputPath": f"{run.output}/throughput",
        "outputDataType": "FLOAT_ONLY",
        "saveOutput": "NONE",
    }
    thread = {
        "threadName": "thread",
        "backend": "backend",
        "context": "context",
        "model": "avatar",
        "interval": 0,
        "loopUnit": "count",
        "loop": run.runs,
    }
    return json.dumps(
        {
            "backends": [backend],
            "models": [model],
            "contexts": [{"contextName": "context"}],
            "testCase": {"iteration": 1, "logLevel": "error", "threads": [thread]},
        }
    )


def _commands(run: DeviceRun) -> tuple[str, ...]:
    """The program takes compiled contexts only, so the phone compiles the DLC for its own chip first."""
    out = run.output
    plain, extended = (shlex.quote(_configuration(run, extensions)) for extensions in (False, True))
    return (
        input_list(run),
        f"./{COMPILER} --backend {BACKENDS[run.delegate]} --model {LOADER} --dlc_path {shlex.quote(run.model)}"
        f" --binary_file context --output_dir {out}/context",
        f"if [ -f {EXTENSIONS[run.delegate]} ]; then printf '%s' {extended}; else printf '%s' {plain}; fi"
        f" > {out}/throughput.json",
        # Some versions crash at their end, after all results: what was printed counts.
        f"./{NAME} --config {out}/throughput.json || echo exit code $?",
        f"rm -rf {out}/context {out}/throughput",
    )


def _parse(run: DeviceRun, text: str, output: Path, host: Path | None) -> Reading:
    match = EXECUTED.search(text)
    if match is None:
        raise complaint(NAME, text, "printed no `graphExecute` times")
    mean, least, most = (milliseconds(match[i], NAME, "a time of `graphExecute`") for i in (2, 3, 4))
    notes = [f"the shortest run took {least:g} ms, the longest {most:g} ms"]
    if "Segmentation fault" in text:
        notes.append("it crashed at its end, after all runs")
    return Reading(
        runs=int(match[1]),
        mean_ms=mean,
        # The backend that was named runs all of a graph or refuses it.
        delegate=run.delegate,
        notes=tuple(notes),
    )


QNN_THROUGHPUT = Tool(
    name=NAME,
    runtime="qnn",
    targets=("snpe",),
    delegates=DELEGATES,
    programs=(NAME, COMPILER),
    libraries=LIBRARIES,
    host_programs=(),
    commands=_commands,
    parse=_parse,
    read_outputs=no_outputs,
)
