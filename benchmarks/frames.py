"""What is timed per frame: one person's graph in every runtime of this host, one thread each."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mobile_avatar.errors import MissingTool
from mobile_avatar.exporters.registry import INTEGER, Request, find_target
from mobile_avatar.graphs.deployment import WARPS
from mobile_avatar.graphs.frame_generator import plain
from mobile_avatar.graphs.rewrites import rewrite
from mobile_avatar.graphs.rewrites.choice import default_rewrites
from mobile_avatar.graphs.spec import graph_spec
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.quantization.calibration import load_calibration
from mobile_avatar.verification.executorch_process import open_program
from mobile_avatar.verification.runners import Exported, open_runner
from tests.deployment_cases import lively_generator

WARP = "split"
BASELINE = "torch, official structure"


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    preset: str
    target: str | None = None
    """None: torch itself."""
    precision: str = "fp32"
    rewrites: tuple[str, ...] | None = None
    """None: the target's own; for torch the graph as an avatar file holds it."""
    official: bool = False
    """Torch: norms apart, skip behind the up-sampling, three heads."""


VARIANTS: dict[str, Variant] = {
    BASELINE: Variant("medium", official=True),
    "torch, folded": Variant("medium"),
    "onnxruntime fp32, folded only": Variant("medium", "onnx", rewrites=("last-norm", "affine", "norm2")),
    "onnxruntime fp32": Variant("medium", "onnx"),
    "LiteRT fp32": Variant("medium", "tflite"),
    "LiteRT w8a8": Variant("medium", "tflite", "w8a8"),
    "mobile, torch, folded": Variant("mobile"),
    "mobile, onnxruntime fp32": Variant("mobile", "onnx"),
    "mobile, LiteRT fp32": Variant("mobile", "tflite"),
    "mobile, LiteRT w8a8": Variant("mobile", "tflite", "w8a8"),
    # Last: once ExecuTorch's copy of XNNPACK is loaded, LiteRT cannot prepare its own any more.
    "ExecuTorch fp32": Variant("medium", "executorch"),
    "ExecuTorch w8a8": Variant("medium", "executorch", "w8a8"),
    "mobile, ExecuTorch fp32": Variant("mobile", "executorch"),
    "mobile, ExecuTorch w8a8": Variant("mobile", "executorch", "w8a8"),
}

Frame = Callable[[], object]


@contextmanager
def frame_of(variant: Variant) -> Iterator[Frame]:
    """A function that computes one frame.

    Raises:
        MissingTool: the runtime or its converter is not installed.
    """
    torch.set_num_threads(1)
    # Time does not depend on what random numbers show.
    folded = lively_generator(PRESETS[variant.preset])
    size = folded.config.image_size
    texture = torch.zeros(1, 3, size, size)
    keypoints = load_calibration().keypoints
    frame = keypoints[-1:]
    if variant.target is None:
        network = plain(folded) if variant.official else folded
        module = WARPS[WARP](network, texture, "NCHW").eval()

        def run() -> object:
            with torch.inference_mode():
                return module(torch.from_numpy(frame))

        yield run
        return
    target = find_target(variant.target)
    names = default_rewrites(variant.target) if variant.rewrites is None else variant.rewrites
    module = WARPS[WARP](rewrite(folded, names), texture, target.layout).eval()
    spec = graph_spec(WARP, size, target.layout)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        calibration = keypoints if variant.precision in INTEGER else None
        request = Request(module, spec, variant.precision, WARP, folder, {}, calibration=calibration)
        try:
            product = target.convert(request)
        except ImportError as error:
            raise MissingTool(f"{variant.target} is not installed ({error.name})") from error
        files = {role: folder / path for role, path in product.files.items()}
        if variant.target == "executorch":
            # Its runner is a child process; what is timed here must not contain the way there and back.
            program, method = open_program(files["model"].read_bytes())
            inputs = [torch.from_numpy(np.ascontiguousarray(frame))]
            yield lambda: (program, method.execute(inputs))
            return
        runner = open_runner(target.runner, Exported(folder, files, spec, variant.precision, WARP))
        yield lambda: runner.run(np.ascontiguousarray(frame))
