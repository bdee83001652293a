"""TFLite (LiteRT): one .tflite file for Android GPUs (`split`) and CPUs (`gather`)."""

from importlib.metadata import version

import torch
from torch import Tensor, nn

from mobile_avatar.exporters.registry import Product, Request, register_target
from mobile_avatar.exporters.targets.tflite_file import finish
from mobile_avatar.exporters.targets.tflite_fuse import fuse
from mobile_avatar.exporters.workshop import workshop
from mobile_avatar.graphs.even_heads import even_heads
from mobile_avatar.quantization.tflite import ACTIVATION_BITS, calibrate, half_weights, quantize

NOTES = {"w8a16": ("XNNPACK has no kernels for 16-bit activations: on CPUs this file takes the slow reference ones.",)}


@register_target(
    name="tflite",
    title="LiteRT / TFLite file for Android GPUs and CPUs",
    layout="NHWC",
    warps=("split", "gather"),
    precisions=("fp32", "fp16", "w8a8", "w8a16", "mixed"),
    packages=("litert_torch", "ai_edge_quantizer", "ai_edge_litert"),
    recipe="android-gpu",
    runner="mobile_avatar.verification.litert:open_litert",
    quantize_io=True,
)
def convert(request: Request) -> Product:
    """Write `render.tflite`.

    fp16 stores convolution and linear weights in half precision, half the size. The integer precisions compute with
    integers calibrated on `request.calibration` (quantization/tflite.py); what stays float is in the product.

    Raises:
        CheckFailed: the converter or the quantiser refused the graph.
    """
    spec, integers, facts, notes = request.spec, {}, {}, ()
    with workshop(request.folder, "litert-torch"):
        model = float_model(request)
        if request.precision == "fp16":
            model = half_weights(model)
        elif request.calibration is not None:
            calibrated = calibrate(model, request.calibration)
            done = quantize(calibrated, request.precision, request.keep, quantize_io=request.quantize_io)
            model, integers, facts = done.model, done.integers, done.facts
            spec = spec.with_integers(integers)
            notes = NOTES.get(request.precision, ())
        path = f"{request.name}.tflite"
        (request.folder / path).write_bytes(finish(model, spec, request.metadata))
    names = ("litert-torch", "ai-edge-litert", *(["ai-edge-quantizer"] if request.precision != "fp32" else []))
    return Product({"model": path}, {name: version(name) for name in names}, notes, integers, facts)


class Named(nn.Module):
    """Input and outputs by their names, so that the signature carries them."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        outputs = self.module(*inputs.values())
        return dict(zip(self.names, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))


def float_model(request: Request) -> bytes:
    """The float32 .tflite file of a request, operators put together, heads evened where it will be quantised."""
    import litert_torch

    # The default (min-cut) layout pass leaves full-resolution transposes around the heads; greedy leaves none.
    litert_torch.config.layout_optimize_partitioner = "GREEDY"
    litert_torch.config.show_progress = False
    module = request.module if request.calibration is None else even_heads(request.module, request.calibration)
    named = Named(module, [tensor.name for tensor in request.spec.outputs]).eval()
    inputs = {tensor.name: torch.zeros(tensor.shape) for tensor in request.spec.inputs}
    model = litert_torch.convert(named, sample_kwargs=inputs).model_content()
    return fuse(model, eight_bits=ACTIVATION_BITS.get(request.precision) == 8)
