"""Numbers against numbers: what the exported file computes beside what torch computed."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mobile_avatar.errors import CheckFailed, MobileAvatarError, first_line
from mobile_avatar.graphs.spec import TensorSpec
from mobile_avatar.verification.runners import Runner

THRESHOLDS = {"fp32": 60.0, "fp16": 35.0, "w8a16": 35.0, "w8a8": 30.0, "mixed": 30.0}
"""Gates in dB per output and precision."""
HIGHEST_PSNR = 200.0  # what equal arrays are shown as; JSON has no infinity


@dataclass(frozen=True)
class Parity:
    """One output of one runner over all golden cases."""

    output: str
    runner: str
    cases: int
    psnr_db: float | None
    """The worst case's; None when the runner could not run."""
    max_abs: float | None
    correlation: float | None
    threshold_db: float
    passed: bool | None
    """None when the check could not run: `reason` says why."""
    reason: str = ""

    def to_dict(self) -> dict:
        row = asdict(self)
        if not self.reason:
            row.pop("reason")
        return row


def run_cases(runner: Runner, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Run inputs (T, ...) one at a time; output name -> (T, ...).

    Raises CheckFailed when the runtime gives up on the file.
    """
    try:
        with ThreadPoolExecutor(runner.workers) as pool:
            frames = list(pool.map(lambda row: runner.run(row[None]), inputs))
    except MobileAvatarError:
        raise
    except Exception as error:  # whatever a third-party runtime raises
        raise CheckFailed(f"{runner.name} stopped: {first_line(error)}") from error
    return {name: np.concatenate([frame[name] for frame in frames]) for name in frames[0]}


def compare(spec: TensorSpec, runner: str, result: np.ndarray, golden: np.ndarray, threshold: float) -> Parity:
    """Judge (T, ...) arrays of one output; NaN, Inf or another shape fail."""
    cases = len(golden)
    if result.shape != golden.shape:
        return unmeasured(spec, runner, cases, threshold, False, f"shape {result.shape} instead of {golden.shape}")
    if not np.isfinite(result).all():
        reason = f"{int((~np.isfinite(result)).sum())} values are NaN or Inf"
        return unmeasured(spec, runner, cases, threshold, False, reason)
    error = (result.astype(np.float64) - golden).reshape(cases, -1)
    psnr = min(decibels(spec.peak, row) for row in error)
    correlation = _correlation(result, golden)
    worst = float(np.abs(error).max())
    return Parity(
        spec.name, runner, cases, round(psnr, 2), round(worst, 6), round(correlation, 6), threshold, psnr >= threshold
    )


def unmeasured(spec: TensorSpec, runner: str, cases: int, threshold: float, passed: bool | None, reason: str) -> Parity:
    """A row without numbers: the file failed (`passed` False), or this machine cannot make the check (None)."""
    return Parity(spec.name, runner, cases, None, None, None, threshold, passed, reason)


def decibels(peak: float, error: np.ndarray) -> float:
    """PSNR of an error array, at most HIGHEST_PSNR."""
    mse = float(np.mean(np.square(error)))
    return HIGHEST_PSNR if mse == 0 else min(HIGHEST_PSNR, 10 * math.log10(peak**2 / mse))


def write_golden(folder: Path, keypoints: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
    """Write golden inputs and outputs as float32 .npy files into `folder`/golden."""
    (folder / "golden").mkdir()
    for name, array in {"keypoints": keypoints, **outputs}.items():
        np.save(folder / "golden" / f"{name}.npy", np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = (x.astype(np.float64).ravel() - x.mean(dtype=np.float64) for x in (a, b))
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else float(np.array_equal(a, b))
