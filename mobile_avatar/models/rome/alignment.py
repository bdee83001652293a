"""Alignment of the source photo: the square around eyes and mouth, as in the FFHQ data set; closed form.

The official code fits the same transform by an optimiser; the two agree to 1.4e-5.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WIDENING = 1.25  # of the square when it is applied
RIGHT_EYE, LEFT_EYE, MOUTH_CORNERS = slice(36, 42), slice(42, 48), (48, 54)


def alignment(keypoints: Tensor, size: int | Tensor) -> Tensor:
    """The square of faces, as affine maps from the aligned picture to the photo, both [-1, 1].

    Args:
        keypoints: (n, 68, 2) pixels of square photos.
        size: side of the photos in pixels; a number, or (n,).

    Returns:
        (n, 2, 3), for `widened` and `align`.
    """
    right, left = keypoints[:, RIGHT_EYE].mean(1), keypoints[:, LEFT_EYE].mean(1)
    mouth = keypoints[:, MOUTH_CORNERS].mean(1)
    eyes = (right + left) / 2
    across, down = left - right, mouth - eyes
    x = across - _quarter_turn(down)
    reach = torch.maximum(2.0 * across.norm(dim=1), 1.8 * down.norm(dim=1))
    x = x * (reach / x.norm(dim=1))[:, None]
    half = torch.as_tensor(size, dtype=keypoints.dtype, device=keypoints.device).expand(len(keypoints))[:, None] / 2
    centre = (eyes + 0.1 * down) / half - 1
    return torch.stack((x / half, _quarter_turn(x) / half, centre), dim=2)


def widened(theta: Tensor) -> Tensor:
    """The maps (n, 2, 3) with their square widened as official inference applies them."""
    return theta * theta.new_tensor([WIDENING, WIDENING, 1.0])


def inverse(theta: Tensor) -> Tensor:
    """Maps (n, 2, 3) back: from the photo to the aligned picture."""
    linear = torch.linalg.inv(theta[:, :, :2])
    return torch.cat((linear, -linear @ theta[:, :, 2:]), dim=2)


def alignment_grid(theta: Tensor, size: int) -> Tensor:
    """Sampling positions (n, size, size, 2) in the photo; rows and columns span [-1, 1] from edge to edge."""
    steps = torch.linspace(-1, 1, size, dtype=theta.dtype, device=theta.device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    places = torch.stack((x, y, torch.ones_like(x)), dim=-1).view(-1, 3)
    return (places @ theta.transpose(1, 2)).view(-1, size, size, 2)


def align(images: Tensor, theta: Tensor, size: int) -> Tensor:
    """Sample photos (n, c, H, W), or their mattes, along maps (n, 2, 3) -> (n, c, size, size); 0 outside."""
    grid = alignment_grid(theta, size)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _quarter_turn(vectors: Tensor) -> Tensor:
    """(n, 2) vectors (x, y) -> (-y, x)."""
    return torch.stack((-vectors[:, 1], vectors[:, 0]), dim=1)
