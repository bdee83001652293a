"""TFLite (LiteRT): one .tflite file for Android GPUs (`split`) and CPUs (`gather`)."""

import copy
from importlib.metadata import version

import torch
from torch import Tensor, nn

from mobile_avatar.exporters.registry import Product, Request, register_target
from mobile_avatar.exporters.targets.tflite_file import finish
from mobile_avatar.exporters.workshop import workshop
from mobile_avatar.models.bilayer.config import BASE_SIZE
from mobile_avatar.models.bilayer.folded import ChannelAffine

MODEL = "render.tflite"


@register_target(
    name="tflite",
    title="LiteRT / TFLite file for Android GPUs and CPUs",
    layout="NHWC",
    warps=("split", "gather"),
    precisions=("fp32", "fp16"),
    packages=("litert_torch", "ai_edge_quantizer", "ai_edge_litert"),
    recipe="android-gpu",
    runner="mobile_avatar.verification.litert:open_litert",
)
def convert(request: Request) -> Product:
    """Write `render.tflite`; fp16 stores convolution and linear weights in half precision, half the size.

    Raises:
        CheckFailed: the converter refused the graph.
    """
    with workshop(request.folder, "litert-torch"):
        model = _float_model(request)
        if request.precision == "fp16":
            model = _half_weights(model)
        (request.folder / MODEL).write_bytes(finish(model, request.spec, request.metadata))
    names = ("litert-torch", "ai-edge-litert", *(["ai-edge-quantizer"] if request.precision == "fp16" else []))
    return Product({"model": MODEL}, {name: version(name) for name in names})


class Named(nn.Module):
    """Outputs as a dictionary, so that the signature carries their names."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, keypoints: Tensor) -> dict[str, Tensor]:
        outputs = self.module(keypoints)
        return dict(zip(self.names, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))


class ChannelsLastBase(nn.Module):
    """The linear layer in front of the first feature map, with its rows in NHWC order.

    The result is the same (1, C * 4 * 4) in NCHW order; the reordering behind the product meets its inverse in the
    converter, and both vanish.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        order = torch.arange(linear.out_features).view(-1, BASE_SIZE, BASE_SIZE).permute(1, 2, 0).flatten()
        self.weight = nn.Parameter(linear.weight.detach()[order])
        self.bias = nn.Parameter(linear.bias.detach()[order])

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.linear(x, self.weight, self.bias)
        return x.view(1, BASE_SIZE, BASE_SIZE, -1).permute(0, 3, 1, 2).reshape(1, -1)


def pointwise(affine: ChannelAffine) -> nn.Conv2d:
    """The same scale and bias per channel as a depthwise 1x1 convolution (N, C, H, W) -> (N, C, H, W)."""
    channels = affine.scale.numel()
    layer = nn.Conv2d(channels, channels, 1, groups=channels)
    layer.weight = nn.Parameter(affine.scale.detach().view(channels, 1, 1, 1))
    layer.bias = nn.Parameter(affine.bias.detach().flatten())
    return layer


def without_transposes(module: nn.Module) -> nn.Module:
    """A copy of a deployment graph that computes the same and lowers to NHWC from its first feature map on.

    The converter's layout pass starts at convolutions; what lies between the linear layers and the first one would
    stay NCHW and need transposes.
    """
    module = copy.deepcopy(module)
    generator = module.generator
    generator.base = ChannelsLastBase(generator.base)
    generator.base_norm = pointwise(generator.base_norm)
    return module.eval()


def _float_model(request: Request) -> bytes:
    import litert_torch

    # The default (min-cut) layout pass leaves full-resolution transposes around the heads; greedy leaves none.
    litert_torch.config.layout_optimize_partitioner = "GREEDY"
    litert_torch.config.show_progress = False
    named = Named(without_transposes(request.module), [tensor.name for tensor in request.spec.outputs]).eval()
    inputs = {tensor.name: torch.zeros(tensor.shape) for tensor in request.spec.inputs}
    return litert_torch.convert(named, sample_kwargs=inputs).model_content()


def _half_weights(model: bytes) -> bytes:
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import (
        ComputePrecision,
        OpQuantizationConfig,
        TensorDataType,
        TensorQuantizationConfig,
        TFLOperationName,
    )

    weights = TensorQuantizationConfig(num_bits=16, dtype=TensorDataType.FLOAT)
    # An explicit DEQUANTIZE per constant is what GPU delegates recognise as a half-precision model.
    recipe = OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=ComputePrecision.FLOAT, explicit_dequantize=True
    )
    tool = quantizer.Quantizer(bytearray(model))
    tool.update_quantization_recipe(
        regex=".*",
        operation_name=TFLOperationName.ALL_SUPPORTED,
        op_config=recipe,
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    return bytes(tool.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model)
