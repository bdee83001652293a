"""Calibration keypoints: what the ranges of a quantised graph's tensors are taken from."""

import importlib.resources
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_avatar.errors import BadInput
from mobile_avatar.files import sha256
from mobile_avatar.keypoints.contract import read_keypoints

FEWEST, MOST = 8, 512  # frames; more cost time and add nothing to minima and maxima


@dataclass(frozen=True)
class Calibration:
    """Keypoint vectors and where they came from."""

    keypoints: np.ndarray
    """float32 (N, 136) in [-1, 1]."""
    name: str
    """File name, for the manifest."""
    sha256: str

    def describe(self) -> dict:
        """The manifest's `quantization.calibration`."""
        return {"file": self.name, "frames": len(self.keypoints), "sha256": self.sha256}


def load_calibration(path: Path | None = None) -> Calibration:
    """The user's vectors (.npy, (N, 136) or (N, 68, 2)), evenly thinned to MOST, or those of `calibration_data/`.

    Raises:
        BadInput: the file does not hold keypoints, or fewer than FEWEST frames.
    """
    path = Path(path or str(importlib.resources.files("mobile_avatar.calibration_data") / "keypoints.npy"))
    keypoints = read_keypoints(path)
    if len(keypoints) < FEWEST:
        raise BadInput(f"{path} holds {len(keypoints)} frames; calibration needs at least {FEWEST} varied ones")
    if len(keypoints) > MOST:
        keypoints = keypoints[np.linspace(0, len(keypoints) - 1, MOST).round().astype(int)]
    return Calibration(keypoints, path.name, sha256(path))
