"""What is timed per frame: one person's graph in every runtime of this host, one thread each."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mobile_avatar.benchmarking.host_runtimes import RUNTIMES, convert, open_torch
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.quantization.calibration import load_calibration
from tests.deployment_cases import lively_generator

BASELINE = "torch, official structure"


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    preset: str
    runtime: str
    """Of `RUNTIMES`, or `torch-plain`, `torch-folded`."""
    precision: str = "fp32"
    rewrites: tuple[str, ...] | None = None
    """None: the target's own."""


VARIANTS: dict[str, Variant] = {
    BASELINE: Variant("medium", "torch-plain"),
    "torch, folded": Variant("medium", "torch-folded"),
    "onnxruntime fp32, folded only": Variant("medium", "onnxruntime", rewrites=("last-norm", "affine", "norm2")),
    "onnxruntime fp32": Variant("medium", "onnxruntime"),
    "LiteRT fp32": Variant("medium", "litert"),
    "LiteRT w8a8": Variant("medium", "litert", "w8a8"),
    "mobile, torch, folded": Variant("mobile", "torch-folded"),
    "mobile, onnxruntime fp32": Variant("mobile", "onnxruntime"),
    "mobile, LiteRT fp32": Variant("mobile", "litert"),
    "mobile, LiteRT w8a8": Variant("mobile", "litert", "w8a8"),
    # Last: once ExecuTorch's copy of XNNPACK is loaded, LiteRT cannot prepare its own any more.
    "ExecuTorch fp32": Variant("medium", "executorch"),
    "ExecuTorch w8a8": Variant("medium", "executorch", "w8a8"),
    "mobile, ExecuTorch fp32": Variant("mobile", "executorch"),
    "mobile, ExecuTorch w8a8": Variant("mobile", "executorch", "w8a8"),
}

Frame = Callable[[], object]


@contextmanager
def frame_of(variant: Variant) -> Iterator[Frame]:
    """A function that computes one frame: the graph up to uv, lf and mask, without the composition.

    Raises:
        MissingTool: the runtime or its converter is not installed.
    """
    torch.set_num_threads(1)
    # Time does not depend on what random numbers show.
    folded = lively_generator(PRESETS[variant.preset])
    texture = torch.zeros(1, 3, folded.config.image_size, folded.config.image_size)
    keypoints = load_calibration().keypoints
    frame = np.ascontiguousarray(keypoints[-1:])
    if variant.runtime not in RUNTIMES:
        run, _ = open_torch(variant.runtime, folded, texture, "split")
        yield lambda: run(frame)
        return
    runtime = RUNTIMES[variant.runtime]
    with tempfile.TemporaryDirectory() as place:
        options = {"precision": variant.precision, "rewrites": variant.rewrites, "calibration": keypoints}
        run = runtime.open(convert(folded, texture, runtime.target, Path(place), **options), 1)
        yield lambda: run(frame)
