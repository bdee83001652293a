"""Coordinates as waves: what lets a convolution tell places on the mesh apart."""

import torch
from torch import Tensor

OCTAVES = 6


def harmonic_encoding(x: Tensor, octaves: int = OCTAVES, dim: int = -1) -> Tensor:
    """Values followed by their sines and cosines at 1, 2, 4, ... times the value, in radians.

    Args:
        x: float tensor of any shape; its axis `dim` holds the n numbers to be encoded.
        octaves: how many doublings.
        dim: the axis that grows: -1 for points (..., n), 1 for maps (N, n, H, W).

    Returns:
        Tensor like x with n * (1 + 2 * octaves) numbers along `dim`: [x, sin x, cos x, sin 2x, cos 2x, sin 4x, ...],
        each item all n numbers. Zeros give zeros and, in the cosines, ones.
    """
    waves = [x]
    for octave in range(octaves):
        scaled = x * 2.0**octave
        waves += [torch.sin(scaled), torch.cos(scaled)]
    return torch.cat(waves, dim=dim)
