"""A deployment graph with known answers, for tests of exporters and runners."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mobile_avatar.exporters.registry import Product, Request, Target
from mobile_avatar.graphs.deployment import WARPS, DeploymentGraph
from mobile_avatar.graphs.spec import GraphSpec, graph_spec
from mobile_avatar.models.bilayer.config import PRESETS, SLOPE, BilayerConfig
from mobile_avatar.models.bilayer.folded import FoldedGenerator
from mobile_avatar.verification.runners import Exported

SMALL = BilayerConfig(image_size=64, inf_channels=8, inf_max_channels=32, pose_channels=32, enh_bottleneck=32)
GATES = {"fp32": 60.0, "fp16": 35.0}
FACTS = {
    "name": "test head",
    "description": "a head of random numbers",
    "version": "1.2",
    "author": "tests",
    "license": "Apache-2.0",
}


@dataclass(frozen=True)
class Case:
    """A graph, its contract, and what it answers in torch."""

    module: DeploymentGraph
    spec: GraphSpec
    warp: str
    vectors: list[np.ndarray]
    answers: list[dict[str, np.ndarray]]

    def request(self, precision: str, folder: Path) -> Request:
        return Request(self.module, self.spec, precision, self.warp, folder, dict(FACTS))

    def psnr(self, run: Callable[[np.ndarray], dict[str, np.ndarray]]) -> dict[str, float]:
        """Lowest PSNR in dB per output; 0 where a result is not finite."""
        lowest = {}
        for tensor in self.spec.outputs:
            errors = []
            for vector, answer in zip(self.vectors, self.answers, strict=True):
                got = run(vector)[tensor.name]
                assert got.shape == tensor.shape
                assert got.dtype == np.float32
                errors.append(float(np.mean((got.astype(np.float64) - answer[tensor.name]) ** 2)))
            worst = max(errors, key=lambda error: error if np.isfinite(error) else np.inf)
            lowest[tensor.name] = 10 * np.log10(tensor.peak**2 / max(worst, 1e-20)) if np.isfinite(worst) else 0.0
        return lowest


def make_case(warp: str, layout: str, config: BilayerConfig = PRESETS["compact"]) -> Case:
    """Random weights and a random smooth texture; every adaptive scale and bias differs from 1 and 0."""
    torch.manual_seed(1)
    generator = FoldedGenerator(config).eval()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("weight"):
                # torch's default start is so weak that the picture hardly depends on the keypoints.
                torch.nn.init.kaiming_normal_(parameter, a=SLOPE)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
        generator.heads.weight.mul_(0.2)
    size = config.image_size
    texture = torch.nn.functional.interpolate(torch.rand(1, 3, size // 8, size // 8), (size, size), mode="bilinear")
    module = WARPS[warp](generator, texture * 2 - 1, layout).eval()
    spec = graph_spec(warp, size, layout)
    vectors = [np.random.default_rng(i).uniform(-1, 1, (1, 136)).astype(np.float32) for i in range(8)]
    answers = []
    for vector in vectors:
        with torch.no_grad():
            outputs = module(torch.from_numpy(vector))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        answers.append({t.name: value.numpy() for t, value in zip(spec.outputs, outputs, strict=True)})
    for tensor in spec.outputs:
        # Flat or frozen pictures would make any comparison pass.
        assert np.std(np.stack([answer[tensor.name] for answer in answers]), axis=0).mean() > 0.05
    return Case(module, spec, warp, vectors, answers)


def export(target: Target, case: Case, precision: str, folder: Path) -> tuple[Exported, Product]:
    """Convert into `folder` and see the result as a runner does."""
    folder.mkdir(parents=True, exist_ok=True)
    product = target.convert(case.request(precision, folder))
    files = {role: folder / path for role, path in product.files.items()}
    return Exported(folder, files, case.spec, precision, case.warp), product
