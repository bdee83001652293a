"""What 8 bits cost an avatar, layer by layer, measured on the quantised .tflite files themselves."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_avatar.avatar import Avatar
from mobile_avatar.graphs.spec import GraphSpec, TensorSpec
from mobile_avatar.quantization import tflite
from mobile_avatar.quiet import quiet
from mobile_avatar.rendering.composite import composite
from mobile_avatar.verification.parity import decibels, run_cases
from mobile_avatar.verification.runners import Exported, open_runner

RUNNER = "mobile_avatar.verification.litert:open_litert"
SHARE = 0.3
"""How much of the size between w8a8 and fp16 a recipe may spend."""
GAIN_DB = 3.0
"""What a recipe should gain over w8a8."""


@dataclass(frozen=True)
class Measured:
    """One variant of the file."""

    name: str
    size: int
    """Bytes."""
    psnr_db: dict[str, float]
    """Against torch FP32 over all keypoint vectors, per output and for the composited `image`."""
    images: np.ndarray
    """float32 (T, S, S, 3) in [-1, 1]: the composited frames."""

    @property
    def worst_db(self) -> float:
        """Lowest of the outputs and the image."""
        return min(self.psnr_db.values())

    def to_dict(self) -> dict:
        """Numbers for the report, without the pictures."""
        psnr = {name: round(value, 2) for name, value in self.psnr_db.items()}
        return {"name": self.name, "bytes": self.size, "worst_db": round(self.worst_db, 2), "psnr_db": psnr}


IMAGE = TensorSpec("image", (), "NHWC", (-1.0, 1.0))

Progress = Callable[[Iterable, int, str], Iterable]


class Judge:
    """Runs .tflite variants of one avatar and compares them with torch."""

    def __init__(self, avatar: Avatar, spec: GraphSpec, keypoints: np.ndarray, golden: dict, folder: Path) -> None:
        """`keypoints` (T, 136) and torch's answers `golden` (uv, lf, mask and image, channels last)."""
        self.avatar, self.spec, self.keypoints, self.golden, self.folder = avatar, spec, keypoints, golden, folder

    def measure(self, name: str, model: bytes) -> Measured:
        """Execute a file with the names of the graph's spec in LiteRT."""
        path = self.folder / "variant.tflite"
        path.write_bytes(model)
        runner = open_runner(RUNNER, Exported(self.folder, {"model": path}, self.spec, "mixed", "split"))
        made = run_cases(runner, self.keypoints)
        texture = self.avatar.texture[0].permute(1, 2, 0).numpy()
        align = self.avatar.config.align_corners
        made["image"] = composite(made["uv"], made["lf"], made["mask"], texture, align).clip(-1, 1)
        peaks = {t.name: t.peak for t in (*self.spec.outputs, IMAGE)}
        psnr = {name: decibels(peak, made[name] - self.golden[name]) for name, peak in peaks.items()}
        return Measured(name, len(model), psnr, made["image"])


def quantized(calibrated: tflite.Calibrated, precision: str, **choice: object) -> tflite.Quantized:
    """`quantization.tflite.quantize` without its progress bars."""
    with quiet():
        return tflite.quantize(calibrated, precision, **choice)


def one_at_a_time(
    judge: Judge, calibrated: tflite.Calibrated, finish: Callable[[bytes], bytes], progress: Progress
) -> list[Measured]:
    """Every layer alone in 8 bits, all others in float, in order of execution."""
    layers = tflite.layers(calibrated.model)
    found = []
    for layer in progress(layers, len(layers), "one layer at a time"):
        found.append(judge.measure(layer, finish(quantized(calibrated, "w8a8", only=[layer]).model)))
    return found


def search(
    judge: Judge,
    calibrated: tflite.Calibrated,
    finish: Callable[[bytes], bytes],
    alone: Collection[Measured],
    sizes: tuple[int, int],
    progress: Progress,
) -> list[tuple[tuple[str, ...], Measured]]:
    """Recipes that keep one layer more each time, from the worst layer on, as far as the size allows.

    A layer that does not fit is passed over. The first entry keeps nothing: plain w8a8.

    Args:
        alone: from `one_at_a_time`.
        sizes: bytes of the w8a8 and of the fp16 file.

    Returns:
        (kept layers, measured) of every step.
    """
    small, large = sizes
    limit = small + SHARE * (large - small)
    order = [row.name for row in sorted(alone, key=lambda row: row.psnr_db["image"])]
    kept: tuple[str, ...] = ()
    steps = []
    for layer in progress([None, *order], len(order) + 1, "keeping layers"):
        trial = kept if layer is None else (*kept, layer)
        model = finish(quantized(calibrated, "mixed", keep=trial).model)
        if layer is not None and len(model) > limit:
            continue
        kept = trial
        steps.append((kept, judge.measure(f"mixed, {len(kept)} kept" if kept else "w8a8", model)))
    return steps


def choose(steps: list[tuple[tuple[str, ...], Measured]], gain_db: float) -> tuple[tuple[str, ...], Measured]:
    """The first step that gains `gain_db` over w8a8, on the image and on the worst output; else the best there is.

    A layer that is kept computes in float, so fewer are better wherever 8 bits are the fast ones.
    """
    plain = steps[0][1]

    def gained(step: tuple[tuple[str, ...], Measured]) -> float:
        return min(step[1].psnr_db["image"] - plain.psnr_db["image"], step[1].worst_db - plain.worst_db)

    enough = [step for step in steps if gained(step) >= gain_db]
    return enough[0] if enough else max(steps, key=gained)
