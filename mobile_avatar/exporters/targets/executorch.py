"""ExecuTorch: one .pte file for the CPUs of Android and iOS phones, computed by XNNPACK."""

import copy
import json
from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from mobile_avatar.errors import MissingTool
from mobile_avatar.exporters.registry import Product, Request, register_target
from mobile_avatar.exporters.workshop import workshop
from mobile_avatar.quantization.executorch import Operator, count_operators, describe, quantize

FACTS_METHOD = "mobile_avatar"
"""A method without inputs that returns the metadata as JSON; .pte files have no other place for it."""
WIDE_WEIGHTS = (
    "ExecuTorch stores the convolution weights of half-precision graphs as float32: the file is hardly smaller, only "
    "linear weights and the arithmetic are halved"
)


@register_target(
    name="executorch",
    title="ExecuTorch file (XNNPACK) for the CPUs of Android and iOS phones",
    layout="NCHW",
    warps=("split", "gather"),
    precisions=("fp32", "fp16", "w8a8", "mixed"),
    packages=("executorch",),
    recipe="android-executorch",
    runner="mobile_avatar.verification.executorch:open_executorch",
)
def convert(request: Request) -> Product:
    """Write `render.pte`; inputs and outputs are float32 in every precision.

    fp16 halves the network's arithmetic and its linear weights (ExecuTorch stores convolution weights as float32); the
    sampling grid, the warp and the compositing stay float32.
    w8a8 and mixed are static: int8 activations with ranges from `request.calibration`, int8 weights per channel.

    Raises:
        MissingTool: ExecuTorch is not installed.
        CheckFailed: ExecuTorch refused the graph.
    """
    if find_spec("executorch") is None:
        raise MissingTool("target executorch needs ExecuTorch; run `pip install 'mobile-avatar[executorch]'`")
    with workshop(request.folder, "executorch"):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        integer = request.calibration is not None
        module = half(request.module) if request.precision == "fp16" else request.module
        example = tuple(torch.zeros(tensor.shape) for tensor in request.spec.inputs)
        if integer:
            module = quantize(module, example, torch.from_numpy(request.calibration), request.keep)
        lowered = to_edge_transform_and_lower(
            torch.export.export(module, example),
            partitioner=[XnnpackPartitioner()],
            constant_methods={FACTS_METHOD: _facts(request)},
        )
        operators = count_operators(lowered.exported_program())
        path = f"{request.name}.pte"
        (request.folder / path).write_bytes(lowered.to_executorch().buffer)
    tools = ("executorch", *(["torchao"] if integer else []))
    return Product(
        {"model": path},
        {name: version(name) for name in tools},
        (*_notes(operators), *([WIDE_WEIGHTS] if request.precision == "fp16" else [])),
        quantization=describe(operators, request.keep) if integer else {},
    )


class Narrowed(nn.Module):
    """The keypoint encoding in float32, its result in half precision."""

    def __init__(self, encoding: nn.Module) -> None:
        super().__init__()
        self.encoding = encoding

    def forward(self, keypoints: Tensor) -> Tensor:
        return self.encoding(keypoints).half()


class Widened(nn.Module):
    """The per-frame network in half precision with float32 inputs and outputs."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        encoding = generator.encoding
        self.generator = generator.half()
        generator.encoding = Narrowed(encoding.float())

    def forward(self, keypoints: Tensor) -> tuple[Tensor, ...]:
        return tuple(output.float() for output in self.generator(keypoints))


class Halved(nn.Module):
    """A whole graph in half precision with float32 input and outputs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.half()

    def forward(self, values: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = self.module(values.half())
        return tuple(map(Tensor.float, outputs)) if isinstance(outputs, tuple) else outputs.float()


def half(module: nn.Module) -> nn.Module:
    """A copy of a deployment graph whose network computes in half precision.

    The grid stays float32: half-precision positions in a 256 px image are up to an eighth of a pixel apart. A graph
    without a generator has no grid.
    """
    module = copy.deepcopy(module)
    if not hasattr(module, "generator"):
        return Halved(module).eval()
    module.generator = Widened(module.generator)
    return module.eval()


def _facts(request: Request) -> str:
    tensors = {"inputs": request.spec.inputs, "outputs": request.spec.outputs}
    return json.dumps(request.metadata | {key: [t.to_dict() for t in row] for key, row in tensors.items()})


def _notes(operators: list[Operator]) -> tuple[str, ...]:
    left = [operator.type for operator in operators if not operator.delegated]
    if not left:
        return (f"XNNPACK takes all {len(operators)} operators",)
    counted = ", ".join(f"{left.count(name)} {name}" for name in dict.fromkeys(left))
    return (f"ExecuTorch's portable kernels run {len(left)} of {len(operators)} operators, not XNNPACK: {counted}",)
