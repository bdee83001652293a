"""Harmonic encoding of keypoints, shared by the keypoints embedder and its folded copy."""

import math

import torch
from torch import Tensor, nn

KEYPOINTS = 136


class HarmonicEncoding(nn.Module):
    """x -> cat(sin, cos) of x * pi * 2^h, h = 0 .. harmonics - 1, keypoint-major; identity for 0 harmonics."""

    def __init__(self, harmonics: int) -> None:
        super().__init__()
        self.harmonics = harmonics
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(harmonics)[None, None], persistent=False)

    @property
    def out_features(self) -> int:
        return KEYPOINTS * 2 * self.harmonics if self.harmonics else KEYPOINTS

    def forward(self, keypoints: Tensor) -> Tensor:
        """(N, 136) in [-1, 1] -> (N, out_features)."""
        if not self.harmonics:
            return keypoints
        phase = (keypoints[:, :, None] * self.frequencies).flatten(1)
        return torch.cat([phase.sin(), phase.cos()], dim=1)
