"""TFLite's and LiteRT's `benchmark_model`."""

import re
import shlex
from pathlib import Path

import numpy as np

from mobile_avatar.benchmarking.result import OperatorTime
from mobile_avatar.benchmarking.tools.litert_operators import read_operators
from mobile_avatar.benchmarking.tools.litert_placement import read_placement
from mobile_avatar.benchmarking.tools.pulled import complaint, expected, milliseconds, number, read_log, read_raw
from mobile_avatar.benchmarking.tools.table import DeviceRun, Reading, Tool

NAME = "benchmark_model"
FLAGS = {
    "GPU": "--use_gpu=true --gpu_precision_loss_allowed=true",
    # Asked for by name: whether XNNPACK is on by default depends on the build.
    "CPU": "--use_xnnpack=true",
}
PROFILED_RUNS = 10

TIMES = re.compile(
    r"Inference timings in us: Init: (\S+), First inference: (\S+), Warmup \(avg\): (\S+), Inference \(avg\): (\S+) *\n"
)
COUNT = re.compile(r"\bcount=(\d{1,12})((?: \w+=\S+)+) *\n")
MEMORY = re.compile(
    r"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): init=\S+ overall=(\S+) *\n"
)
VERSION = re.compile(r"(?:Tensor[Ff]low|LiteRT) [Vv]ersion ?: (\S+)")
IGNORED = re.compile(r"Unconsumed cmdline flags: (.*)")


def _commands(run: DeviceRun) -> tuple[str, ...]:
    """One run for the times, one for the operators, as profiling costs time, and one per golden case for its outputs.

    Versions without a flag warn and go on, so the same lines serve all of them. Only the first line may fail the run.
    """
    start = f"./{NAME} --graph={shlex.quote(run.model)} --num_threads={run.threads} {FLAGS[run.delegate]}"
    once = f"{start} --num_runs=1 --min_secs=0 --warmup_runs=1 --warmup_min_secs=0"
    tensor = run.spec.inputs[0]
    shape = ",".join(map(str, tensor.shape))
    profiled = f"{start} --num_runs={PROFILED_RUNS} --min_secs=0 --enable_op_profiling=true --use_profiler=true"
    steady = f"{start} --num_runs={run.runs}"
    if not run.details:
        return (steady,)
    return (
        steady,
        f"{profiled} > {run.output}/operators.txt 2>&1 || true",
        *(
            f"{once} --input_layer={tensor.name} --input_layer_shape={shape}"
            f" --input_layer_value_files={tensor.name}:{shlex.quote(file)}"
            f" --output_filepath={run.output}/case_{case}.raw"
            f" > {run.output}/case_{case}.txt 2>&1 || true"
            for case, file in enumerate(run.inputs)
        ),
    )


def _parse(run: DeviceRun, text: str, output: Path, host: Path | None) -> Reading:
    text = text.replace("\r\n", "\n")
    found = _classic(text) or _compiled(text)
    if found is None:
        raise complaint(NAME, text, "printed no inference times")
    end, times = found
    counts = [(int(match[1]), match[2]) for match in COUNT.finditer(text, 0, end)]
    if counts:
        # Warm-up first, then the steady runs; a single line would be the steady ones.
        times |= {"runs": counts[-1][0], "warmup_runs": counts[0][0] if len(counts) > 1 else None}
        # More digits than elsewhere.
        for field, name in (("mean_ms", "avg"), ("p50_ms", "median")):
            if word := re.search(rf" {name}=(\S+)", counts[-1][1]):
                times[field] = milliseconds(word[1], NAME, f"`{name}`")
    version = VERSION.search(text)
    delegate, fallback, notes = read_placement(run.delegate, text)
    operators: tuple[OperatorTime, ...] = ()
    if run.details:
        operators, remark = read_operators(read_log(output, "operators.txt"), delegate)
        notes += [remark] if remark else []
    if ignored := IGNORED.search(text):
        notes.append(f"this version of {NAME} ignored {ignored[1].strip()[:120]}")
    if run.details and not _wrote_outputs(output):
        notes.append(_no_outputs(read_log(output, "case_0.txt")))
    return Reading(
        **times,
        delegate=delegate,
        fallback=fallback,
        operators=operators,
        version=version[1] if version else "",
        notes=tuple(notes),
    )


def _classic(text: str) -> tuple[int, dict] | None:
    """TFLite's own tool, all versions: where its line of times starts, and what it says."""
    match = TIMES.search(text)
    if match is None:
        return None
    names = {
        "load_ms": "Init",
        "first_ms": "First inference",
        "warmup_ms": "Warmup (avg)",
        "mean_ms": "Inference (avg)",
    }
    times = {key: milliseconds(match[i], NAME, f"`{name}`") for i, (key, name) in enumerate(names.items(), 1)}
    if memory := MEMORY.search(text, match.end()):
        times["memory_mb"] = number(memory[1], NAME, "the memory")
        times["memory_what"] = "growth of the tool's resident memory"
    return match.start(), times


def _compiled(text: str) -> tuple[int, dict] | None:
    """LiteRT's tool of the same name, which runs a CompiledModel; it prints ms."""
    start = text.find("BENCHMARK RESULTS")
    if start < 0 or not re.search(r"={30,80} *\n", text[start:]):
        return None

    def figure(name: str) -> float | None:
        match = re.search(rf"{re.escape(name)}: +(\S+)(?: ms| MB)", text[start:])
        return None if match is None else number(match[1], NAME, f"`{name}`")

    mean = figure("Inference (avg)")
    if mean is None:
        return None
    times = {
        "load_ms": figure("Model initialization"),
        "first_ms": figure("Warmup (first)"),
        "warmup_ms": figure("Warmup (avg)"),
        "mean_ms": mean,
        "memory_mb": figure("Overall footprint"),
    }
    if times["memory_mb"] is not None:
        times["memory_what"] = "growth of the tool's resident memory"
    return start, times


def _wrote_outputs(output: Path) -> bool:
    """Whether golden inputs were read and outputs written; versions that ignore the inputs run on random ones."""
    ignored = IGNORED.search(read_log(output, "case_0.txt"))
    return expected(output, "case_0.raw") is not None and not (ignored and "input_layer" in ignored[1])


def _no_outputs(log: str) -> str:
    if IGNORED.search(log):
        return f"this version of {NAME} takes no golden inputs or writes no outputs"
    return str(complaint(NAME, log, "wrote no outputs for golden case 0"))


def _read_outputs(run: DeviceRun, output: Path) -> list[dict[str, np.ndarray]]:
    if not _wrote_outputs(output):
        return []
    results = []
    for case in range(len(run.inputs)):
        path = expected(output, f"case_{case}.raw")
        if path is None:
            raise complaint(NAME, read_log(output, f"case_{case}.txt"), f"wrote no outputs for golden case {case}")
        # All outputs lie in one file, in the order of the graph, which is the manifest's.
        results.append(read_raw(path, run.spec.outputs, NAME))
    return results


BENCHMARK_MODEL = Tool(
    name=NAME,
    runtime="litert",
    targets=("tflite",),
    # NNAPI is left out: Android 15 retired it, and it does not tell which device did the work.
    delegates=("GPU", "CPU"),
    programs=(NAME,),
    libraries=("libLiteRt*.so",),
    host_programs=(),
    commands=_commands,
    parse=_parse,
    read_outputs=_read_outputs,
)
