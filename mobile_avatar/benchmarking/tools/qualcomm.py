"""What Qualcomm's net-run programs have in common: lists of inputs, and folders `Result_N` of outputs."""

import shlex
from pathlib import Path

import numpy as np

from mobile_avatar.benchmarking.result import OperatorTime
from mobile_avatar.benchmarking.tools.pulled import expected, read_raw
from mobile_avatar.benchmarking.tools.table import DeviceRun
from mobile_avatar.errors import CheckFailed


def input_list(run: DeviceRun) -> str:
    """A shell line that writes the list of golden inputs, one per line as `name:=path`, to OUTPUT/cases.txt."""
    name = run.spec.inputs[0].name
    entries = " ".join(shlex.quote(f"{name}:={file}") for file in run.inputs)
    return f"printf '%s\\n' {entries} > {run.output}/cases.txt"


def remarks(tool: str, run: DeviceRun, runs: int, rows: tuple[OperatorTime, ...], word: str) -> list[str]:
    """What a reader of a mean should know; `word` is what the tool calls the rows of its profile."""
    notes = [f"average of {runs} runs in one process, its first included; {tool} gives no percentiles"]
    if run.delegate == "CPU":
        notes.append("the number of threads is its own choice")
    if any(row.ms is None for row in rows):
        notes.append(f"{word} are counted in cycles, which do not tell a time")
    return notes


def has_integers(run: DeviceRun) -> bool:
    """Whether inputs and outputs are stored as integers; the programs convert to float unless told otherwise."""
    return any(tensor.quantization is not None for tensor in (*run.spec.inputs, *run.spec.outputs))


def read_results(run: DeviceRun, output: Path, folder: str, tool: str) -> list[dict[str, np.ndarray]]:
    """Outputs of all golden cases from `folder`/Result_N; empty when there are none at all."""
    if all(_output(output, folder, 0, tensor.name) is None for tensor in run.spec.outputs):
        return []
    results = []
    for case in range(len(run.inputs)):
        arrays = {}
        for tensor in run.spec.outputs:
            path = _output(output, folder, case, tensor.name)
            if path is None:
                raise CheckFailed(f"{tool} left out {tensor.name} of golden case {case}; measure again")
            arrays |= read_raw(path, (tensor,), tool)
        results.append(arrays)
    return results


def _output(output: Path, folder: str, case: int, name: str) -> Path | None:
    """The file of one output; versions differ in what they append to its name."""
    names = (f"{name}.raw", f"{name}:0.raw", f"{name}_0.raw", f"{name}_native.raw")
    paths = (expected(output, f"{folder}/Result_{case}/{file}") for file in names)
    return next((path for path in paths if path is not None), None)
