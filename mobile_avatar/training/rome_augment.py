"""Other framing and colours for the frames of synthetic people, so that networks cannot learn people by heart."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.training.rome_heads import RomeClips

ZOOM, SHIFT = 0.12, 0.12
"""Relative change of the scale, and shift in the picture, which is 2 wide."""
GAIN, GAMMA, NOISE = 0.25, 0.3, 0.02
"""Of colours: change of each channel's strength, of the curve's exponent, and deviation of the noise."""


def augmented(clips: RomeClips, generator: np.random.Generator, people: int, share: slice) -> RomeClips:
    """Every frame moved, zoomed and coloured by chance; keypoints and cameras say where things are now.

    Args:
        clips: this process's `share` of a batch of `people`; alike for any number of processes.
    """
    frames, device = clips.images.shape[1], clips.images.device

    def even(largest: float, columns: int) -> Tensor:
        return _even(generator, largest, (people, frames, columns), share).to(device)

    zoom, shift = 1 + even(ZOOM, 1), even(SHIFT, 2)
    gain, exponent = 1 + even(GAIN, 3), torch.exp(even(GAMMA, 1))
    seed = int(generator.integers(2**31))
    images, masks, head_masks = (
        _moved(part, zoom, shift, padding)
        for part, padding in ((clips.images, "border"), (clips.masks, "zeros"), (clips.head_masks, "zeros"))
    )
    images = _coloured(images, gain, exponent)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(device)
    scale = clips.camera[..., :1] * zoom
    moved = clips.camera[..., 1:] + shift * shift.new_tensor([1.0, -1.0]) / scale
    return replace(
        clips,
        images=(images + NOISE * noise).clamp(0, 1),
        masks=masks,
        head_masks=(head_masks > 0.5).float(),
        keypoints=clips.keypoints * zoom[..., None] + shift[:, :, None],
        camera=torch.cat((scale, moved), dim=-1),
    )


def recoloured(clips: RomeClips, generator: np.random.Generator, people: int, share: slice) -> RomeClips:
    """Every person in other colours, the same in all their frames: there are more skins and coats than in the data.

    Args: see `augmented`.
    """
    gain, exponent = (_even(generator, *limits, share) for limits in ((GAIN, (people, 1, 3)), (GAMMA, (people, 1, 1))))
    device = clips.images.device
    return replace(clips, images=_coloured(clips.images, 1 + gain.to(device), exponent.exp().to(device)).clamp(0, 1))


def _even(generator: np.random.Generator, largest: float, shape: tuple[int, ...], share: slice) -> Tensor:
    """Evenly between -largest and largest; drawn for all people, returned for this process's `share` of them."""
    return torch.from_numpy(largest * (2 * generator.random(shape) - 1)[share]).float()


def _coloured(images: Tensor, gain: Tensor, exponent: Tensor) -> Tensor:
    """Pictures (b, n, 3, S, S) with other strengths (b, n, 3) and another curve (b, n, 1) of their channels."""
    return (images.clamp(min=0) ** exponent[..., None, None]) * gain[..., None, None]


def _moved(images: Tensor, zoom: Tensor, shift: Tensor, padding: str) -> Tensor:
    """Pictures (b, n, c, S, S) of which p is seen at zoom * p + shift; zoom (b, n, 1), shift (b, n, 2)."""
    inverse = torch.eye(2).to(zoom) / zoom[..., None]
    theta = torch.cat((inverse, -(shift / zoom)[..., None]), dim=-1).flatten(0, 1)
    flat = images.flatten(0, 1)
    grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
    moved = F.grid_sample(flat, grid, padding_mode=padding, align_corners=False)
    return moved.unflatten(0, images.shape[:2])
