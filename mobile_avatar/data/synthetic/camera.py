"""What a camera does to a picture: white balance, contrast, blur, sensor noise, compression."""

from functools import lru_cache
from math import cos, pi, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8
# Quantisation of the brightness coefficients grows with their frequency roughly as in common JPEG tables; colour
# differences are kept at half resolution and coarser.
COARSEST_LUMA, COARSEST_CHROMA = 0.11, 0.16
FLATTEST = 0.15  # of the coarsest step, for the mean of a block


def develop(image: Tensor, grade: Tensor, noise_seed: Tensor, noise_level: Tensor) -> Tensor:
    """Images (n, 3, S, S) in [0, 1] as a camera would have stored them.

    grade (n, 5): gain of red, of blue, contrast, blur in pixels at 128, compression; noise_seed (n,) int64; level (n,).
    """
    size = image.shape[-1]
    red, blue, contrast, blur, compression = (v[:, None, None, None] for v in grade.unbind(-1))
    image = image * torch.cat((red, torch.ones_like(red), blue), dim=1)
    image = (0.5 + (image - 0.5) * contrast).clamp(0, 1)
    image = _blurred(image, blur * (size / 128))
    image = (image + sensor_noise(noise_seed, noise_level, size)).clamp(0, 1)
    return _compressed(image, compression).clamp(0, 1)


def sensor_noise(seed: Tensor, level: Tensor, size: int) -> Tensor:
    """(n, 3, size, size) noise from an integer hash of the pixel's number; the same on every device."""
    index = torch.arange(3 * size * size, device=seed.device, dtype=torch.int64)
    x = (index + seed[:, None] * 2654435761) & 0xFFFFFFFF
    for shift, factor in ((16, 0x45D9F3B), (15, 0x2C1B3C6D), (16, 1)):
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
    pair = ((x & 0xFFFF) + (x >> 16)).float() * (1 / 65536) - 1  # triangular distribution on (-1, 1)
    return pair.view(-1, 3, size, size) * level[:, None, None, None] * 2.4


def _blurred(image: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian of at most two pixels' reach; sigma (n, 1, 1, 1)."""
    near, far = (torch.exp(-(d * d) / (2 * sigma * sigma + 1e-6)) for d in (1.0, 2.0))
    total = 1 + 2 * near + 2 * far
    for axis in (2, 3):
        padded = F.pad(image, (0, 0, 2, 2) if axis == 2 else (2, 2, 0, 0), mode="replicate")
        p = [padded.narrow(axis, k, image.shape[axis]) for k in range(5)]
        image = (p[2] + near * (p[1] + p[3]) + far * (p[0] + p[4])) / total
    return image


@lru_cache(maxsize=8)
def _cosines(device: str) -> tuple[Tensor, Tensor]:
    """The orthonormal DCT matrix (8, 8), frequencies in rows, and the growth of the step with frequency (8, 8)."""
    rows = [
        [sqrt((1 if k == 0 else 2) / BLOCK) * cos(pi * (2 * i + 1) * k / (2 * BLOCK)) for i in range(BLOCK)]
        for k in range(BLOCK)
    ]
    k = torch.arange(BLOCK)
    growth = FLATTEST + (1 - FLATTEST) * ((k[:, None] + k[None]) / (2 * BLOCK - 2))
    return torch.tensor(rows, device=device), growth.to(device)


def _apply(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix (8, 8) times the last dimension of x; sums of eight, so the result does not depend on the batch."""
    return (x[..., None, :] * matrix).sum(-1)


def _quantised(plane: Tensor, step: Tensor) -> Tensor:
    """8x8 blocks of planes (n, c, S, S) through a cosine transform with coefficients rounded to `step` (n, 1, 1, 1)."""
    size = plane.shape[-1]
    rest = -size % BLOCK
    matrix, growth = _cosines(str(plane.device))
    x = F.pad(plane, (0, rest, 0, rest), mode="replicate")
    n, c, side, _ = x.shape
    x = x.view(n, c, side // BLOCK, BLOCK, side // BLOCK, BLOCK).transpose(3, 4)
    x = _apply(matrix, _apply(matrix, x).transpose(-1, -2)).transpose(-1, -2)
    step = step[..., None, None] * growth + 1e-6
    exact = x / step
    x = (exact + (exact.round() - exact).detach()) * step  # gradients pass the rounding
    back = matrix.t()
    x = _apply(back, _apply(back, x).transpose(-1, -2)).transpose(-1, -2)
    return x.transpose(3, 4).reshape(n, c, side, side)[..., :size, :size]


def _compressed(image: Tensor, strength: Tensor) -> Tensor:
    """JPEG-like compression of (n, 3, S, S) in [0, 1]; strength (n, 1, 1, 1) in [0, 1]."""
    r, g, b = image.unbind(1)
    luma = (0.299 * r + 0.587 * g + 0.114 * b)[:, None]
    chroma = torch.stack(((b - luma[:, 0]) / 1.772, (r - luma[:, 0]) / 1.402), dim=1)
    amount = 0.03 + 0.97 * strength * strength
    luma = _quantised(luma, COARSEST_LUMA * amount * BLOCK / 2)
    size = image.shape[-1]
    half = F.avg_pool2d(chroma, 2, ceil_mode=True)
    half = _quantised(half, COARSEST_CHROMA * amount * BLOCK / 2)
    chroma = half.repeat_interleave(2, -1).repeat_interleave(2, -2)[..., :size, :size]
    blue, red = chroma.unbind(1)
    r, b = luma[:, 0] + 1.402 * red, luma[:, 0] + 1.772 * blue
    return torch.stack((r, (luma[:, 0] - 0.299 * r - 0.114 * b) / 0.587, b), dim=1)
