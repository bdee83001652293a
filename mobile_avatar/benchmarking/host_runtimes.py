"""The runtimes of this host: a graph, converted for one of them and opened in this process, to be timed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mobile_avatar.errors import MissingTool
from mobile_avatar.exporters.registry import INTEGER, Request, find_target
from mobile_avatar.graphs.deployment import WARPS
from mobile_avatar.graphs.frame_generator import FrameGenerator, plain
from mobile_avatar.graphs.onnx_runtime import load_onnxruntime
from mobile_avatar.graphs.rewrites import rewrite
from mobile_avatar.graphs.rewrites.choice import default_rewrites
from mobile_avatar.graphs.spec import GraphSpec, graph_spec
from mobile_avatar.models.bilayer.folded import FoldedGenerator
from mobile_avatar.models.bilayer.inference_generator import masked, warp
from mobile_avatar.quiet import quiet
from mobile_avatar.verification.runners import Exported

Outputs = dict[str, np.ndarray]
Run = Callable[[np.ndarray], Outputs]
"""The one input, float32 (keypoints (1, 136) or a tensor of a frame) -> output name -> float32 array as in the spec."""


@dataclass(frozen=True)
class Runtime:
    """One row of the table."""

    target: str
    """The target whose files it runs."""
    package: str
    """Whose version counts."""
    ready: Callable[[], object]
    """Import it, before anything is timed: loading a file does not include that."""
    delegate: str
    open: Callable[[Exported, int], Run]
    """Open a file on this many threads; MissingTool where the runtime is not installed."""
    threaded: bool = False
    """Whether it is timed with several thread counts."""


def _open_litert(exported: Exported, threads: int) -> Run:
    from mobile_avatar.verification.litert import open_litert

    return open_litert(exported, threads).run


def _open_onnxruntime(exported: Exported, threads: int) -> Run:
    from mobile_avatar.verification.onnxruntime_runner import open_session

    return open_session(exported.files["model"], exported.spec)


def _open_executorch(exported: Exported, threads: int) -> Run:
    # Its runner is a child process; what is timed here must not contain the way there and back.
    from mobile_avatar.verification.executorch_process import open_program

    try:
        with quiet():
            program, method = open_program(exported.files["model"].read_bytes())
    except ImportError as error:
        raise MissingTool("this needs ExecuTorch; run `pip install 'mobile-avatar[executorch]'`") from error

    def run(keypoints: np.ndarray, _program: object = program) -> Outputs:
        values = method.execute([torch.from_numpy(np.ascontiguousarray(keypoints))])
        return {t.name: value.numpy() for t, value in zip(exported.spec.outputs, values, strict=True)}

    return run


def _ready_litert() -> None:
    import ai_edge_litert.interpreter  # noqa: F401


def _ready_executorch() -> None:
    import executorch.runtime  # noqa: F401


RUNTIMES: dict[str, Runtime] = {
    "litert": Runtime("tflite", "ai-edge-litert", _ready_litert, "XNNPACK", _open_litert, threaded=True),
    "onnxruntime": Runtime("onnx", "onnxruntime", load_onnxruntime, "CPU", _open_onnxruntime),
    # Last: once ExecuTorch's copy of XNNPACK is loaded, LiteRT cannot prepare its own any more.
    "executorch": Runtime("executorch", "executorch", _ready_executorch, "XNNPACK", _open_executorch),
}
TORCH = ("torch-plain", "torch-folded")
"""The network in torch: in the structure of the official code, and as an avatar file holds it."""


def convert(
    generator: FoldedGenerator,
    texture: Tensor,
    target_name: str,
    folder: Path,
    warp: str = "split",
    precision: str = "fp32",
    rewrites: tuple[str, ...] | None = None,
    calibration: np.ndarray | None = None,
) -> Exported:
    """Convert a person's graph for a target's runtime, into `folder`.

    Args:
        warp: `split`, or anything else for a graph that returns the image; the target's own way of warping is taken.
        rewrites: None for those of the target.
        calibration: float32 (N, 136); for integer precisions.

    Raises:
        MissingTool: the converter is not installed.
    """
    target = find_target(target_name)
    warp = warp if warp in target.warps else next(name for name in target.warps if name != "split")
    names = default_rewrites(target_name) if rewrites is None else rewrites
    module = WARPS[warp](rewrite(generator, names), texture, target.layout).eval()
    spec = graph_spec(warp, generator.config.image_size, target.layout)
    request = Request(
        module, spec, precision, warp, folder, {}, calibration=calibration if precision in INTEGER else None
    )
    return convert_graph(target_name, request)


def convert_graph(target_name: str, request: Request) -> Exported:
    """Convert one graph for a target's runtime; MissingTool when the converter is not installed."""
    try:
        product = find_target(target_name).convert(request)
    except ImportError as error:
        raise MissingTool(f"{target_name} files need {error.name}, which is not installed") from error
    files = {role: request.folder / path for role, path in product.files.items()}
    spec = request.spec.with_integers(product.integers)
    return Exported(request.folder, files, spec, request.precision, request.warp)


def open_torch(name: str, generator: FoldedGenerator, texture: Tensor, warp: str) -> tuple[Run, GraphSpec]:
    """One of `TORCH` as a function, and its contract."""
    network: FoldedGenerator | FrameGenerator = plain(generator) if name == "torch-plain" else generator
    warp = "split" if warp == "split" else "native"
    module = WARPS[warp](network, texture, "NCHW").eval()
    spec = graph_spec(warp, generator.config.image_size, "NCHW")

    return run_torch(module, spec), spec


def run_torch(module: nn.Module, spec: GraphSpec) -> Run:
    """A graph in torch as a function like those of the other runtimes."""

    def run(values: np.ndarray) -> Outputs:
        with torch.inference_mode():
            found = module(torch.from_numpy(values))
        found = found if isinstance(found, tuple) else (found,)
        return {t.name: value.numpy() for t, value in zip(spec.outputs, found, strict=True)}

    return run


def composer(spec: GraphSpec, texture: Tensor, align_corners: bool) -> Callable[[Outputs], np.ndarray]:
    """What the app does with the outputs: (1, S, S, 3) float32 in [-1, 1], warped and composited in torch.

    Graphs that return the image are only brought into this layout.
    """
    layouts = {tensor.name: tensor.layout for tensor in spec.outputs}

    def first(outputs: Outputs, name: str) -> Tensor:
        tensor = torch.from_numpy(outputs[name])
        return tensor if layouts[name] == "NCHW" else tensor.permute(0, 3, 1, 2)

    @torch.inference_mode()
    def compose(outputs: Outputs) -> np.ndarray:
        if "image" in outputs:
            image = first(outputs, "image")
        else:
            hf = warp(texture, first(outputs, "uv").permute(0, 2, 3, 1), align_corners)
            image = masked(first(outputs, "lf") + hf, first(outputs, "mask")).clamp_(-1, 1)
        return image.permute(0, 2, 3, 1).numpy()

    return compose
