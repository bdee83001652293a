"""Image losses of training.

The thesis uses VGG19 and VGGFace features for the high-frequency layer. Without those networks the documented
substitute is `structural_loss`: multi-scale L1 + image gradients + structural similarity.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LOW = 8  # pixels over which the goal of the low-frequency layer is averaged


def structural_loss(image: Tensor, goal: Tensor, scales: int = 3) -> Tensor:
    """Substitute for a perceptual loss; images (N, 3, S, S) in [-1, 1] -> scalar, 0 for equal images."""
    total = image.new_zeros(())
    for _ in range(scales):
        total = total + F.l1_loss(image, goal) + 2 * gradient_loss(image, goal) + 0.5 * (1 - ssim(image, goal))
        image, goal = F.avg_pool2d(image, 2), F.avg_pool2d(goal, 2)
    return total / scales


def low_frequencies(goal: Tensor) -> Tensor:
    """What the low-frequency layer should show of images (N, 3, S, S): averaged over 8 pixels, smooth between."""
    return F.interpolate(F.avg_pool2d(goal, LOW), scale_factor=float(LOW), mode="bilinear")


def gradient_loss(image: Tensor, goal: Tensor) -> Tensor:
    """L1 between the finite differences of two images, both axes."""
    difference = image - goal
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute finite difference, both axes."""
    return gradient_loss(image, torch.zeros_like(image))


def ssim(image: Tensor, goal: Tensor, window: int = 7) -> Tensor:
    """Mean structural similarity with a box window (Wang et al., 2004), for images in [-1, 1]."""
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    stack = torch.cat([image, goal, image * image, goal * goal, image * goal], dim=1)
    mx, my, xx, yy, xy = F.avg_pool2d(stack, window, stride=1).chunk(5, dim=1)
    vx, vy, cov = xx - mx * mx, yy - my * my, xy - mx * my
    score = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return score.mean()


def wide(values: Tensor) -> Tensor:
    """Half precision as float32: autocast networks end in it, coordinates and losses need more. Others as they are."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def warp_decay(step: int, decay: float = 0.9, first: int = 50, then: int = 49) -> float:
    """Factor on the warp regulariser: x `decay` after the first 50 steps and every 49 from there; 0 when tiny."""
    times = 0 if step < first else 1 + (step - first) // then
    factor = decay**times
    return factor if factor > 1e-7 else 0.0
