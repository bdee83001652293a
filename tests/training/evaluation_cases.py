"""Stand-ins for what the metrics' users bring: networks with random weights, and the points of a face."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.training.lpips import STAGES


def _face() -> np.ndarray:
    """A plain frontal face of 68 points, (136,) in [-1, 1]."""
    turn = np.linspace(np.pi, 0, 17)
    jaw = np.stack([0.5 * np.cos(turn), 0.05 + 0.55 * np.sin(turn)], axis=1)
    brows = [(x, -0.25) for x in np.linspace(-0.4, -0.1, 5)] + [(x, -0.25) for x in np.linspace(0.1, 0.4, 5)]
    nose = [(0, y) for y in np.linspace(-0.1, 0.15, 4)] + [(x, 0.2) for x in np.linspace(-0.08, 0.08, 5)]

    def ring(x: float, y: float, width: float, height: float, count: int) -> list[tuple[float, float]]:
        angles = np.pi + 2 * np.pi * np.arange(count) / count
        return [(x + width * np.cos(a), y + height * np.sin(a)) for a in angles]

    rings = [ring(-0.22, -0.1, 0.1, 0.04, 6), ring(0.22, -0.1, 0.1, 0.04, 6), ring(0, 0.38, 0.18, 0.08, 12)]
    rings.append(ring(0, 0.38, 0.13, 0.03, 8))
    return np.concatenate([jaw, brows, nose, *rings]).astype(np.float64).ravel()


FACE = _face()


def lpips_weights() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State dicts as torchvision and lpips name them, but narrow: widths 4, 6, 8, 8, 8."""
    random = torch.Generator().manual_seed(0)
    vgg, lin, width = {}, {}, 3
    for i, (stage, wide) in enumerate(zip(STAGES, (4, 6, 8, 8, 8), strict=True)):
        for n in stage:
            vgg[f"features.{n}.weight"] = torch.randn(wide, width, 3, 3, generator=random) * (2 / width / 9) ** 0.5
            vgg[f"features.{n}.bias"] = torch.randn(wide, generator=random) * 0.1
            width = wide
        lin[f"lin{i}.model.1.weight"] = torch.rand(1, wide, 1, 1, generator=random)
    return vgg, lin


def write_states(folder: Path, *states: dict[str, Tensor]) -> list[Path]:
    """Each state dict as a torch file."""
    paths = [folder / f"state{i}.pth" for i in range(len(states))]
    for path, state in zip(paths, states, strict=True):
        torch.save(state, path)
    return paths


def write_recognition(path: Path, size: int = 112, scale: float = 1) -> Path:
    """A face-recognition network in name: averages of patches, times a random matrix; features (1, 8)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    side = size // 16
    matrix = scale * np.random.default_rng(0).normal(size=(3 * side * side, 8)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "recognition",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 8])],
        [numpy_helper.from_array(matrix, "matrix")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
