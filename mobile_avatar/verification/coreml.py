"""Runs an exported .mlpackage: CoreML itself on macOS, elsewhere its saved operations evaluated in torch."""

import sys
from collections.abc import Callable

import numpy as np
import torch

from mobile_avatar.errors import CheckFailed, MissingTool
from mobile_avatar.graphs.spec import GraphSpec, TensorSpec
from mobile_avatar.quiet import quiet
from mobile_avatar.verification.coreml_package import Program, read_package
from mobile_avatar.verification.mil_torch import evaluate
from mobile_avatar.verification.runners import Check, Exported, Runner

ARITHMETIC = {
    "fp32": "simulated",
    "fp16": "simulated",
    "w8a16": "simulated: int8 weights, fp16 arithmetic",
    "w8a8": "simulated: int8 weights and tensors, fp16 arithmetic",
    "mixed": "simulated: int8 weights and tensors outside the kept layers, fp16 arithmetic",
}
"""What the evaluator's numbers stand for. A neural engine that multiplies in int8 rounds sums differently."""

INTEGER = ("w8a16", "w8a8", "mixed")


def open_coreml(exported: Exported) -> Runner:
    """A runner for `render.mlpackage`.

    Raises:
        MissingTool: coremltools is not installed.
        CheckFailed: the package is damaged, holds an operation that is not known here, or does not match its spec.
    """
    try:
        with quiet():
            program = read_package(exported.files["model"])
    except ImportError as error:
        raise MissingTool("checking a CoreML package needs coremltools; run `pip install coremltools`") from error
    _compare(program, exported.spec)
    checks = [_structure(program)]
    # Graphs that are about pixels have a grid; those of a ROME avatar leave all sampling to the draw call.
    if exported.precision != "fp32" and {"uv", "image"} & {tensor.name for tensor in exported.spec.outputs}:
        checks.append(_grid(program))
    if exported.precision in INTEGER:
        checks.append(_integers(program, tensors=exported.precision != "w8a16"))
    if sys.platform == "darwin":
        return Runner("coreml-macos", _predictor(exported), checks)
    (source,), outputs = exported.spec.inputs, exported.spec.outputs

    def run(values: np.ndarray) -> dict[str, np.ndarray]:
        results = evaluate(program, {source.name: torch.from_numpy(np.ascontiguousarray(values))})
        return {tensor.name: results[tensor.name].float().numpy() for tensor in outputs}

    run(np.zeros(source.shape, np.float32))  # refuses unknown operations now, not later
    return Runner(f"mil-in-torch-{exported.precision} ({ARITHMETIC[exported.precision]})", run, checks)


def _predictor(exported: Exported) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    # Written from the documentation of coremltools; it has never run, for want of a Mac.
    import coremltools as ct

    model = ct.models.MLModel(str(exported.files["model"]))
    (source,) = exported.spec.inputs

    def run(values: np.ndarray) -> dict[str, np.ndarray]:
        results = model.predict({source.name: np.ascontiguousarray(values, np.float32)})
        return {t.name: np.asarray(results[t.name], np.float32).reshape(t.shape) for t in exported.spec.outputs}

    return run


def _compare(program: Program, spec: GraphSpec) -> None:
    """CheckFailed unless names, order and types of inputs and outputs are those of `spec`."""
    types = {output.name: output for operation in program.operations for output in operation.outputs}
    found = [*program.inputs, *(types[name] for name in program.outputs if name in types)]
    expected: tuple[TensorSpec, ...] = (*spec.inputs, *spec.outputs)
    if [(t.name, t.shape, str(t.dtype)) for t in found] != [(t.name, t.shape, f"torch.{t.dtype}") for t in expected]:
        names = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in found)
        raise CheckFailed(f"the CoreML program has other inputs and outputs ({names}) than its manifest says")


def _structure(program: Program) -> Check:
    kinds = {operation.type for operation in program.operations}
    detail = f"{len(program.operations)} operations of {len(kinds)} types and {program.blobs} weight blobs read back"
    return Check("saved program", True, detail)


def _grid(program: Program) -> Check:
    """The sampling grid has to be float32: float16 positions in a 256 px image are up to an eighth of a pixel apart."""
    types = {output.name: output.dtype for operation in program.operations for output in operation.outputs}
    read = [operation.inputs["coordinates"][0] for operation in program.operations if operation.type == "resample"]
    grids = [*read, *(name for name in program.outputs if name == "uv")]
    # The output itself may be a mere cast of something narrower: look at what the cast reads.
    sources = {op.outputs[0].name: op.inputs["x"][0] for op in program.operations if op.type == "cast"}
    passed = all(types.get(sources.get(name, name)) == torch.float32 for name in grids)
    return Check("sampling grid in float32", passed and bool(grids), f"{', '.join(grids) or 'no grid found'}")


def _integers(program: Program, tensors: bool) -> Check:
    """Layers have to read int8 weights, and int8 `tensors` where the precision says so."""
    makers = {output.name: operation.type for operation in program.operations for output in operation.outputs}
    layers = [operation.inputs for operation in program.operations if "weight" in operation.inputs]
    weights = sum(makers.get(layer["weight"][0]) == "constexpr_affine_dequantize" for layer in layers)
    read = sum(makers.get(layer["x"][0]) == "dequantize" for layer in layers)
    detail = f"{weights} of {len(layers)} layers have int8 weights, {read} read int8 tensors"
    return Check("8-bit layers", weights > 0 and (read > 0) == tensors, detail)
