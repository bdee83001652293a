"""A deployment graph with known answers, for tests of exporters and runners."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mobile_avatar.exporters.registry import Product, Request, find_target
from mobile_avatar.graphs.deployment import WARPS, DeploymentGraph
from mobile_avatar.graphs.rewrites import rewrite
from mobile_avatar.graphs.rewrites.choice import default_rewrites
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


def lively_generator(config: BilayerConfig) -> FoldedGenerator:
    """Random numbers with which every tensor has a range; no norm is all ones and zeros, so none can be left out."""
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
    return generator


def make_case(
    warp: str, layout: str, config: BilayerConfig = PRESETS["compact"], rewrites: tuple[str, ...] | None = None
) -> Case:
    """Random weights and a random smooth texture; every adaptive scale and bias differs from 1 and 0.

    With `rewrites` the module to be exported is a rewritten one; the answers are always those of the folded generator.
    """
    generator, size = lively_generator(config), config.image_size
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
    if rewrites is not None:
        module = WARPS[warp](rewrite(generator, rewrites), module.texture, layout).eval()
    return Case(module, spec, warp, vectors, answers)


@dataclass(frozen=True)
class Made:
    """One exported variant of a case."""

    case: Case
    exported: Exported
    product: Product

    @property
    def model(self) -> Path:
        return self.exported.files["model"]


def export_apart(target: str, variants: list[tuple[str, str]], folder: Path) -> dict[tuple[str, str], Made]:
    """Export (warp, precision) variants in another process, and see each as a runner does.

    A process of its own shows what a user of `--json` gets: nothing may be printed, and no file may be left outside
    the bundle folder, not even in the home or the temporary folder.
    """
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    paths = {"PATH": os.environ["PATH"], "TMPDIR": str(elsewhere), "HOME": str(elsewhere), "OMP_NUM_THREADS": "1"}
    names = [f"{warp}-{precision}" for warp, precision in variants]
    done = subprocess.run(
        [sys.executable, "-m", "tests.deployment_cases", target, str(folder), *names],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env=paths,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert list(elsewhere.iterdir()) == []
    products = {name: Product(**values) for name, values in json.loads(done.stdout).items()}
    cases = {warp: _case_of(target, warp) for warp, _ in variants}
    made = {}
    for (warp, precision), name in zip(variants, names, strict=True):
        files = {role: folder / name / path for role, path in products[name].files.items()}
        exported = Exported(folder / name, files, cases[warp].spec, precision, warp)
        made[warp, precision] = Made(cases[warp], exported, products[name])
    return made


def _case_of(target: str, warp: str) -> Case:
    """What a user of this target gets."""
    return make_case(warp, find_target(target).layout, rewrites=default_rewrites(target))


def main(target: str, folder: str, *names: str) -> None:
    """The other process: export each `warp-precision` into its folder, print the products as one line of JSON."""
    products = {}
    for name in names:
        warp, precision = name.split("-")
        case = _case_of(target, warp)
        (Path(folder) / name).mkdir()
        products[name] = vars(find_target(target).convert(case.request(precision, Path(folder) / name)))
    print(json.dumps(products))


if __name__ == "__main__":
    main(*sys.argv[1:])
