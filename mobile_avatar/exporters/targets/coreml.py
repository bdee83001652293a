"""CoreML: an .mlpackage (ML program) for iPhones, with the app's own warp (`split`) or CoreML's (`native`)."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from mobile_avatar.exporters.registry import Product, Request, register_target
from mobile_avatar.exporters.workshop import workshop

COORDINATE_OPS = {"add", "mul", "sub", "tanh", "transpose"}
"""What may lie between the heads and the grid that the warp reads; half precision there moves pixels."""


NOTES = {
    "w8a8": ("needs iOS 17: 8-bit tensors",),
    "w8a16": ("w8a16 on CoreML is int8 weights with float16 tensors: there are no 16-bit integers",),
}
NOTES["mixed"] = NOTES["w8a8"]


@register_target(
    name="coreml",
    title="CoreML package for iPhones (iOS 16 and later, iOS 17 for 8-bit tensors)",
    layout="NCHW",
    warps=("split", "native"),
    precisions=("fp32", "fp16", "w8a16", "w8a8", "mixed"),
    packages=("coremltools",),
    recipe="iphone",
    runner="mobile_avatar.verification.coreml:open_coreml",
)
def convert(request: Request) -> Product:
    """Write the folder `render.mlpackage`; inputs and outputs are float32 in every precision.

    fp16 computes in half precision except for the sampling grid: float16 positions in a 256 px image are up to an
    eighth of a pixel apart. w8a16 is that with int8 weights; w8a8 has int8 tensors too, `mixed` has them outside of
    the layers that the request keeps.

    Raises:
        CheckFailed: the converter refused the graph.
    """
    notes, quantization = NOTES.get(request.precision, ()), {}
    path = f"{request.name}.mlpackage"
    with workshop(request.folder, "coremltools"):
        import coremltools as ct

        program = _program(request)
        if request.precision in NOTES:
            quantization, merged = _quantize(program, request)
            notes += merged
        model = _package(program, request)
        _describe(model, request)
        model.save(str(request.folder / path))
    return Product({"model": path}, {"coremltools": ct.__version__}, notes, quantization=quantization)


def _program(request: Request) -> object:
    """The graph in CoreML's intermediate language, optimised; float32, or float16 but for the sampling grid."""
    import coremltools as ct

    grid = [i for i, tensor in enumerate(request.spec.outputs) if tensor.name == "uv"]
    half = ct.transform.FP16ComputePrecision(op_selector=lambda op: not _feeds_grid(op, grid))
    return ct.convert(
        _trace(request),
        convert_to="milinternal",
        minimum_deployment_target=_system(request),
        compute_precision=ct.precision.FLOAT32 if request.precision == "fp32" else half,
        inputs=[ct.TensorType(name=t.name, shape=t.shape, dtype=np.float32) for t in request.spec.inputs],
        outputs=[ct.TensorType(name=t.name, dtype=np.float32) for t in request.spec.outputs],
    )


def _package(program: object, request: Request) -> object:
    """A model to save; `program` then has the names that it is saved with."""
    import coremltools as ct

    return ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=_system(request),
        # Everything was optimised before, and another round would dissolve pairs of quantize and dequantize.
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )


def _system(request: Request) -> object:
    """The oldest iOS that has what the precision needs."""
    import coremltools as ct

    return ct.target.iOS17 if request.precision in ("w8a8", "mixed") else ct.target.iOS16


def _quantize(program: object, request: Request) -> tuple[dict, tuple[str, ...]]:
    """Facts for the manifest and further notes."""
    from mobile_avatar.quantization.coreml import calibrate, layers_of, quantize_program
    from mobile_avatar.verification.coreml_package import read_package

    layers, ranges = layers_of(request.module, request.keep), None
    float16 = _package(program, request)
    if request.precision != "w8a16":
        with tempfile.TemporaryDirectory(suffix=".mlpackage") as folder:
            float16.save(folder)
            ranges = calibrate(read_package(Path(folder)), request.calibration)
    merged = layers.missing(program.functions["main"])
    facts = quantize_program(program, layers, ranges)
    return facts, tuple(f"{path.removeprefix('generator.')} is part of another layer in this file" for path in merged)


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
