"""Runs an exported .pte file with ExecuTorch's own runtime on the CPU, one thread."""

import json
from importlib.util import find_spec

import numpy as np

from mobile_avatar.errors import CheckFailed, MissingTool
from mobile_avatar.exporters.targets.executorch import FACTS_METHOD
from mobile_avatar.graphs.spec import TensorSpec
from mobile_avatar.verification.executorch_process import Worker
from mobile_avatar.verification.runners import Check, Exported, Runner, check_interface

ARITHMETIC = {
    "fp32": "",
    "fp16": " (fp16)",
    "w8a8": " (int8, float islands)",
    "mixed": " (int8, float islands)",
}


def open_executorch(exported: Exported) -> Runner:
    """A runner for `render.pte`. The runtime knows outputs by their order; the file's own facts name them.

    Raises:
        MissingTool: ExecuTorch is not installed.
        CheckFailed: ExecuTorch does not load the file, or its inputs and outputs are not those of the manifest.
    """
    if find_spec("executorch") is None:
        raise MissingTool("checking a .pte file needs ExecuTorch; run `pip install 'mobile-avatar[executorch]'`")
    path = exported.files["model"]
    worker = Worker()
    try:
        # Once, so that a file whose inside is damaged ends here. The runtime verifies the outer structure only.
        found = worker.ask("load", path.read_bytes(), FACTS_METHOD)
        worker.ask("run", np.zeros(exported.spec.inputs[0].shape, np.float32))
    except (OSError, CheckFailed) as error:
        raise CheckFailed(
            f"{path} is damaged, ExecuTorch does not run it ({error}); export the avatar again"
        ) from error
    names = _names(found["facts"])
    for key, expected in (("inputs", exported.spec.inputs), ("outputs", exported.spec.outputs)):
        check_interface(path, _interface(found[key], names.get(key, []), expected), expected)

    def run(values: np.ndarray) -> dict[str, np.ndarray]:
        results = worker.ask("run", np.ascontiguousarray(values, np.float32))
        return {tensor.name: value for tensor, value in zip(exported.spec.outputs, results, strict=True)}

    checks = [Check("names inside the file", bool(names), ", ".join(names.get("outputs", [])) or "none")]
    return Runner(f"executorch-xnnpack-cpu{ARITHMETIC[exported.precision]}", run, checks)


def _names(facts: str) -> dict[str, list[str]]:
    """Names of inputs and outputs as the file's facts list them; empty when it has none."""
    try:
        content = json.loads(facts)
        return {key: [row["name"] for row in content[key]] for key in ("inputs", "outputs")}
    except (ValueError, KeyError, TypeError):
        return {}


def _interface(
    found: list[tuple[tuple[int, ...], str]], names: list[str], expected: tuple[TensorSpec, ...]
) -> dict[str, tuple[tuple[int, ...], str]]:
    names = names or [tensor.name for tensor in expected]
    names = [*names, *(f"number {i}" for i in range(len(names), len(found)))]
    return dict(zip(names, found, strict=False))
