"""How close a rendered frame is to the photo it should show: PSNR, SSIM, overlap of masks.

`masked` is about the picture: rendering and photo are put behind the same mask, the photo's, and the error is averaged
inside it. (The official code also puts both behind one mask before it compares them, the predicted one.) `shown` and
`raw` are about what an app shows, the rendering behind its own mask on black, so that a wrong outline counts too:
`shown` averages inside the photo's mask, `raw` over the whole frame, where empty black counts as right.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.creation import psnr_inside
from mobile_avatar.models.bilayer.inference_generator import masked

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5


@dataclass(frozen=True)
class Driven:
    """Driven frames of one person, and what they should show."""

    pictures: Tensor
    """(N, 3, S, S): the renderings before compositing; what lies outside [-1, 1] is cut."""
    masks: Tensor
    """(N, 1, S, S) in [0, 1]: their own masks."""
    goals: Tensor
    """(N, 3, S, S) in [-1, 1]: the photos, with their background."""
    goal_masks: Tensor
    """(N, 1, S, S) in [0, 1]: the masks of the photos."""
    keypoints: Tensor
    """(N, 136) in [-1, 1]: the points of the photos, which drove the frames."""

    @property
    def images(self) -> Tensor:
        """(N, 3, S, S) in [-1, 1]: what an app shows, on the black background."""
        return masked(self.pictures, self.masks).clamp(-1, 1)


def pixel_metrics(driven: Driven) -> dict[str, Tensor]:
    """What needs no network, (N,) each: PSNR and SSIM of pictures and of what is shown, and `mask_iou`."""
    goals, goal_masks = driven.goals, driven.goal_masks
    pictures = score_frames(masked(driven.pictures.clamp(-1, 1), goal_masks), goals, goal_masks)
    shown = score_frames(driven.images, goals, goal_masks)
    return {
        "psnr_masked": pictures["psnr_masked"],
        "psnr_shown": shown["psnr_masked"],
        "psnr_raw": shown["psnr_raw"],
        "ssim_masked": pictures["ssim_masked"],
        "ssim_raw": shown["ssim_raw"],
        "mask_iou": mask_iou(driven.masks, goal_masks),
    }


def score_frames(images: Tensor, goals: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """PSNR in dB and SSIM of every frame.

    Args:
        images: (N, 3, S, S) in [-1, 1], on the black background.
        goals: (N, 3, S, S) in [-1, 1]: the photos, with their background.
        masks: (N, 1, S, S) in [0, 1], of the photos.

    Returns:
        `psnr_masked`, `ssim_masked` (means inside the masks), `psnr_raw`, `ssim_raw` (of whole frames): (N,) each. PSNR
        is cut at 126 dB.
    """
    images, goals = images.clamp(-1, 1), masked(goals, masks)
    whole = torch.ones_like(masks)
    similarity = ssim_map(images, goals)
    margin = SSIM_WINDOW // 2
    inner = masks[..., margin:-margin, margin:-margin]
    return {
        "psnr_masked": _psnr(images, goals, masks),
        "psnr_raw": _psnr(images, goals, whole),
        "ssim_masked": (similarity * inner).sum((1, 2, 3)) / inner.sum((1, 2, 3)).clamp_min(1e-6),
        "ssim_raw": similarity.mean((1, 2, 3)),
    }


def _psnr(images: Tensor, goals: Tensor, masks: Tensor) -> Tensor:
    rows = zip(images.split(1), goals.split(1), masks.split(1), strict=True)
    return torch.tensor([psnr_inside(*row) for row in rows])


def ssim_map(images: Tensor, goals: Tensor) -> Tensor:
    """Structural similarity (Wang et al., 2004) of every place whose window lies in the frame, mean over colours.

    Gaussian window of 11 pixels with sigma 1.5, k1 0.01, k2 0.03, data range 2; the same as scikit-image's
    `structural_similarity(gaussian_weights=True, use_sample_covariance=False)`.

    Args:
        images, goals: (N, 3, S, S) in [-1, 1], S at least 11.

    Returns:
        (N, 1, S - 10, S - 10), at most 1.
    """
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    offset = torch.arange(SSIM_WINDOW, dtype=torch.float64, device=images.device) - SSIM_WINDOW // 2
    line = torch.exp(-(offset**2) / (2 * SSIM_SIGMA**2))
    line = line / line.sum()

    def blur(values: Tensor) -> Tensor:
        flat = values.flatten(0, 1)[:, None]
        flat = F.conv2d(F.conv2d(flat, line[None, None, None]), line[None, None, :, None])
        return flat[:, 0].unflatten(0, values.shape[:2])

    x, y = images.double(), goals.double()
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    score = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return score.mean(1, keepdim=True)


def mask_iou(masks: Tensor, goals: Tensor) -> Tensor:
    """Overlap of soft masks (N, 1, S, S), intersection over union: (N,) in [0, 1]."""
    both, either = torch.minimum(masks, goals), torch.maximum(masks, goals)
    return both.sum((1, 2, 3)) / either.sum((1, 2, 3)).clamp_min(1e-6)
