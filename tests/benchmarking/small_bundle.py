"""A small bundle with made-up numbers, for tests of what is done with a bundle rather than of its model."""

import json
from pathlib import Path

import numpy as np

from mobile_avatar.benchmarking.estimate import budget
from mobile_avatar.files import sha256
from mobile_avatar.graphs.layers import LAYERS, Layer, save_layers
from mobile_avatar.graphs.spec import GraphSpec, graph_spec
from mobile_avatar.rendering.composite import composite
from mobile_avatar.verification.parity import write_golden

SIZE, CASES = 16, 3
SUFFIX = {"snpe": "dlc", "tflite": "tflite", "onnx": "onnx", "coreml": "mlpackage", "executorch": "pte"}


def small_bundle(
    folder: Path,
    target: str = "snpe",
    precision: str = "fp16",
    integers: dict[str, tuple[str, float, int]] | None = None,
) -> tuple[Path, GraphSpec, dict[str, np.ndarray]]:
    """Write a split bundle of 16 x 16 pixels; returns its folder, its spec and the golden outputs (T, ...) by name."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    model = f"render.{SUFFIX[target]}"
    (folder / model).write_bytes(rng.bytes(4096))
    texture = rng.uniform(-1, 1, (SIZE, SIZE, 3)).astype(np.float16)
    (folder / "texture.f16").write_bytes(texture.astype("<f2").tobytes())
    spec = graph_spec("split", SIZE, "NHWC")
    keypoints = rng.uniform(-1, 1, (CASES, 136)).astype(np.float32)
    golden = {t.name: rng.uniform(*t.range, (CASES, *t.shape[1:])).astype(np.float32) for t in spec.outputs}
    image = composite(golden["uv"], golden["lf"], golden["mask"], texture.astype(np.float32)).clip(-1, 1)
    write_golden(folder, keypoints, {**golden, "image": image})
    spec = spec.with_integers(integers or {})
    layers = (Layer("conv", "Conv", 161_793_024, 1_360_000, 2_000_000, 1_000_000),)
    save_layers(layers, folder / LAYERS)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    manifest = {
        "format": 1,
        "avatar": {"config": {"image_size": SIZE, "align_corners": False}},
        "target": target,
        "precision": precision,
        "warp": "split",
        "device": "snapdragon-855",
        "inputs": [tensor.to_dict() for tensor in spec.inputs],
        "outputs": [tensor.to_dict() for tensor in spec.outputs],
        "roles": {"model": model},
        "files": [{"path": name, "sha256": sha256(folder / name), "bytes": 0} for name in names],
        "macs": layers[0].macs,
        "budget": budget(layers, target, precision, "split"),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder, spec, golden
