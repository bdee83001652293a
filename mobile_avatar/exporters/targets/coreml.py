"""CoreML: an .mlpackage (ML program) for iPhones, with the app's own warp (`split`) or CoreML's (`native`)."""

from importlib.metadata import version

import numpy as np
import torch

from mobile_avatar.exporters.registry import Product, Request, register_target
from mobile_avatar.exporters.workshop import workshop

MODEL = "render.mlpackage"
COORDINATE_OPS = {"add", "mul", "sub", "tanh", "transpose"}
"""What may lie between the heads and the grid that the warp reads; half precision there moves pixels."""


@register_target(
    name="coreml",
    title="CoreML package for iPhones (iOS 16 and later)",
    layout="NCHW",
    warps=("split", "native"),
    precisions=("fp32", "fp16"),
    packages=("coremltools",),
    recipe="iphone",
    runner="mobile_avatar.verification.coreml:open_coreml",
)
def convert(request: Request) -> Product:
    """Write the folder `render.mlpackage`; inputs and outputs are float32 in either precision.

    fp16 computes in half precision except for the sampling grid: float16 positions in a 256 px image are up to an
    eighth of a pixel apart.

    Raises:
        CheckFailed: the converter refused the graph.
    """
    with workshop(request.folder, "coremltools"):
        import coremltools as ct

        program = _trace(request)
        grid = [i for i, tensor in enumerate(request.spec.outputs) if tensor.name == "uv"]
        half = ct.transform.FP16ComputePrecision(op_selector=lambda op: not _feeds_grid(op, grid))
        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS16,
            compute_precision=half if request.precision == "fp16" else ct.precision.FLOAT32,
            inputs=[ct.TensorType(name=t.name, shape=t.shape, dtype=np.float32) for t in request.spec.inputs],
            outputs=[ct.TensorType(name=t.name, dtype=np.float32) for t in request.spec.outputs],
            skip_model_load=True,
        )
        _describe(model, request)
        model.save(str(request.folder / MODEL))
    return Product({"model": MODEL}, {"coremltools": version("coremltools")})


def _trace(request: Request) -> torch.jit.ScriptModule:
    example = tuple(torch.zeros(tensor.shape) for tensor in request.spec.inputs)
    with torch.no_grad():
        return torch.jit.trace(request.module, example, check_trace=False)


def _feeds_grid(op: object, grid: list[int]) -> bool:
    """Whether a MIL operation computes sampling coordinates: those of a resample, or the outputs numbered `grid`."""
    if op.op_type == "resample":
        return True
    if op.op_type not in COORDINATE_OPS:
        return False
    ends = [op.enclosing_block.outputs[i] for i in grid]
    for value in op.outputs:
        if any(value is end for end in ends):
            return True
        for child in value.child_ops:
            if child.op_type == "resample" and child.coordinates is value:
                return True
            if child.op_type in COORDINATE_OPS and _feeds_grid(child, grid):
                return True
    return False


def _describe(model: object, request: Request) -> None:
    facts = request.metadata
    model.short_description = facts.get("description", "head avatar: keypoints to image layers")
    model.author = facts.get("author", "")
    model.license = facts.get("license", "")
    model.version = facts.get("version", "")
    model.user_defined_metadata.update(facts)
    for tensor in request.spec.inputs:
        model.input_description[tensor.name] = _sentence(tensor)
    for tensor in request.spec.outputs:
        model.output_description[tensor.name] = _sentence(tensor)


def _sentence(tensor: object) -> str:
    low, high = tensor.range
    return f"{tensor.layout}, values from {low:g} to {high:g}"
