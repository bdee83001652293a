"""Runs an .onnx file with ONNX Runtime on the CPU, one thread."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mobile_avatar.errors import CheckFailed, MissingTool
from mobile_avatar.graphs.onnx_runtime import load_onnxruntime
from mobile_avatar.graphs.spec import GraphSpec
from mobile_avatar.verification.runners import Exported, Runner, check_interface

ONNXRUNTIME_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


def open_onnx(exported: Exported) -> Runner:
    """A runner for `render.onnx`.

    Raises:
        MissingTool: ONNX Runtime is not installed.
        CheckFailed: ONNX Runtime does not load the file, or its interface is not that of the manifest.
    """
    # x86 has no half-precision kernels: ONNX Runtime puts casts around every operator of an FP16 file.
    name = "onnxruntime-cpu" if exported.precision == "fp32" else "onnxruntime-cpu (fp16 weights, fp32 arithmetic)"
    return Runner(name, open_session(exported.files["model"], exported.spec))


def open_session(path: Path, spec: GraphSpec) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The one input -> output name -> float32 array, computed by ONNX Runtime on one CPU thread."""
    onnxruntime = load_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    try:
        # From bytes: a model with weights in further files, which could lie anywhere, is refused.
        session = onnxruntime.InferenceSession(path.read_bytes(), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        raise CheckFailed(f"{path} is damaged, ONNX Runtime does not load it; export the avatar again") from error
    check_interface(path, _interface(session.get_inputs()), spec.inputs)
    check_interface(path, _interface(session.get_outputs()), spec.outputs)
    (source,), names = spec.inputs, [tensor.name for tensor in spec.outputs]

    def run(values: np.ndarray) -> dict[str, np.ndarray]:
        results = session.run(names, {source.name: values.astype(np.float32)})
        return dict(zip(names, results, strict=True))

    return run


def load_model(path: Path) -> object:
    """The onnx.ModelProto in `path`; CheckFailed when it is damaged."""
    try:
        import onnx
    except ImportError as error:
        raise MissingTool("reading an .onnx file needs onnx; run `pip install onnx`") from error
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker raise unrelated types
        raise CheckFailed(f"{path} is damaged, it is not a valid ONNX model; export the avatar again") from error
    return model


def _interface(found: list) -> dict[str, tuple[tuple[int, ...], str]]:
    return {row.name: (tuple(row.shape), ONNXRUNTIME_TYPES.get(row.type, row.type)) for row in found}
