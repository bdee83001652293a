"""Runs an exported .tflite file with LiteRT on the CPU, by the names in its signature."""

from collections import Counter

import numpy as np

from mobile_avatar.errors import CheckFailed, MissingTool, first_line
from mobile_avatar.graphs.tflite_graph import kinds
from mobile_avatar.quiet import quiet
from mobile_avatar.verification.runners import Check, Exported, Runner, check_interface

REFUSED_BY_GPUS = {"GATHER", "GATHER_ND", "EMBEDDING_LOOKUP", "SELECT", "SELECT_V2", "TRANSPOSE_CONV", "MIRROR_PAD"}
"""Operators that GPU delegates, or the drivers of some phones, do not take."""

ARITHMETIC = {
    # x86 kernels widen half-precision weights when the file is loaded; say so wherever the result is shown.
    "fp16": ["(fp16 weights, fp32 arithmetic)"],
    "w8a8": ["(int8)"],
    "w8a16": ["(int16 activations)"],
    "mixed": ["(int8, kept layers fp32)"],
}
"""What the arithmetic of a precision is called in the runner's name."""


def open_litert(exported: Exported, threads: int = 1) -> Runner:
    """A runner for `render.tflite` on this many CPU threads.

    Raises:
        MissingTool: LiteRT is not installed.
        CheckFailed: LiteRT does not load the file, or its signature is not that of the manifest.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingTool("checking a .tflite file needs LiteRT; run `pip install ai-edge-litert`") from error
    path = exported.files["model"]
    try:
        content = path.read_bytes()
        with quiet():
            interpreter = Interpreter(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
            signature = interpreter.get_signature_runner()
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise CheckFailed(f"{path} is damaged, LiteRT does not load it ({reason}); export the avatar again") from error
    check_interface(path, _interface(signature.get_input_details()), exported.spec.inputs)
    check_interface(path, _interface(signature.get_output_details()), exported.spec.outputs)

    (source,) = exported.spec.inputs
    outputs = {tensor.name: tensor for tensor in exported.spec.outputs}

    def run(values: np.ndarray) -> dict[str, np.ndarray]:
        stored = signature(**{source.name: source.store(values)})
        # The interpreter hands out its own buffers, which the next call overwrites.
        return {name: outputs[name].load(value).copy() for name, value in stored.items()}

    name = " ".join(["litert-cpu", *ARITHMETIC.get(exported.precision, [])])
    checks = [_gpu_operators(content)] if exported.warp == "split" else []
    return Runner(name, run, checks)


def operators(content: bytes) -> Counter[str]:
    """How often each built-in operator occurs in a .tflite file; custom ones as `CUSTOM`."""
    from ai_edge_litert import schema_py_generated as schema

    names = kinds()
    model = schema.Model.GetRootAs(content, 0)
    # Codes above 127 are in the newer field, files written before it existed only have the other.
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    numbers = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    used = (graph.Operators(i).OpcodeIndex() for graph in graphs for i in range(graph.OperatorsLength()))
    return Counter(names.get(numbers[index], "unknown") for index in used)


def dynamic_tensors(content: bytes) -> list[str]:
    """Names of tensors whose shape is only known at run time."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    tensors = [graph.Tensors(i) for graph in graphs for i in range(graph.TensorsLength())]
    return [t.Name().decode() for t in tensors if t.ShapeSignatureLength() and min(t.ShapeSignatureAsNumpy()) < 0]


def _gpu_operators(content: bytes) -> Check:
    found = operators(content)
    refused = sorted((REFUSED_BY_GPUS | {"CUSTOM"}) & set(found))
    dynamic = dynamic_tensors(content)
    counted = ", ".join(f"{count} {name}" for name, count in found.most_common())
    detail = f"refused: {', '.join(refused)}" if refused else f"dynamic: {', '.join(dynamic)}" if dynamic else counted
    return Check("no operator that GPU delegates refuse", not refused and not dynamic, detail)


def _interface(found: dict[str, dict]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(map(int, row["shape"])), np.dtype(row["dtype"]).name) for name, row in found.items()}
