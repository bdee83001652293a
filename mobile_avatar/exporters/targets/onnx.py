"""ONNX: one portable file for computers, and the source of every Qualcomm file."""

from importlib.metadata import version

from mobile_avatar.exporters.registry import Product, Request, register_target


@register_target(
    name="onnx",
    title="ONNX file for ONNX Runtime on any computer",
    layout="NCHW",
    warps=("split", "native"),
    precisions=("fp32", "fp16"),
    packages=("onnx", "onnxsim", "onnxruntime"),
    recipe="desktop",
    runner="mobile_avatar.verification.onnxruntime_runner:open_onnx",
)
def convert(request: Request) -> Product:
    """Write `render.onnx`, opset 17, simplified; fp16 halves weights and arithmetic, inputs and outputs stay float32.

    Raises:
        CheckFailed: the traced graph breaks the contract, or a weight does not fit into half precision.
    """
    model, notes = build_model(request)
    path = f"{request.name}.onnx"
    (request.folder / path).write_bytes(model.SerializeToString())
    return Product({"model": path}, {name: version(name) for name in ("onnx", "onnxsim", "onnxruntime")}, notes)


def build_model(request: Request) -> tuple[object, tuple[str, ...]]:
    """The onnx.ModelProto of a request, with its metadata inside, and notes for the user."""
    from onnx import helper

    from mobile_avatar.graphs.onnx_graph import simplify, to_fp16, to_onnx

    model, note = simplify(to_onnx(request.module, request.spec))
    if request.precision == "fp16":
        model = to_fp16(model)
    model.producer_name = "mobile-avatar"
    helper.set_model_props(model, request.metadata)
    return model, (note,) if note else ()
