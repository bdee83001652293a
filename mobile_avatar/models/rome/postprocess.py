"""What official inference does to a rendered frame before it shows it."""

import torch.nn.functional as F
from torch import Tensor

THRESHOLD = 0.6  # the official notebook has 0.5
KERNEL = (9, 1)
"""Rows and columns of the opening. Meant were 9 x 9, but the mask is handed over as a picture of one row with many
channels, so that each column is opened for itself."""


def opened_mask(mask: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """Mask (n, 1, H, W) in [0, 1] -> the same shape, 1 or 0: above the threshold, without specks lower than 9 pixels.

    An erosion that sees ones beyond the border, then a dilation that sees zeros there.
    """
    padding = tuple(side // 2 for side in KERNEL)
    hard = (mask > threshold).to(mask.dtype)
    eroded = 1 - F.max_pool2d(1 - hard, KERNEL, stride=1, padding=padding)
    return F.max_pool2d(eroded, KERNEL, stride=1, padding=padding)


def on_white(image: Tensor, mask: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """Image (n, 3, H, W) and soft mask (n, 1, H, W), both in [0, 1] -> the person on white."""
    hard = opened_mask(mask, threshold)
    return image * hard + (1 - hard)
