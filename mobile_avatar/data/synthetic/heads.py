"""Random people as a source of training data."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import BadInput
from .expression import draw_frames, join_frames
from .identity import draw_identities
from .render import render_heads

SPLITS = {"train": 0, "test": 1}
# Pixels rendered together on an accelerator; the CPU takes frame by frame, which stays in its cache.
CHUNK_PIXELS = 48 * 128 * 128


@dataclass(frozen=True)
class HeadBatch:
    """What `SyntheticHeads.sample` returns.

    images: (b, frames, 3, S, S) float32 RGB in [-1, 1], with background
    masks: (b, frames, 1, S, S) float32 in [0, 1], 1 = person
    keypoints: (b, frames, 136) float32, iBUG order x0, y0, x1, ...; the picture spans [-1, 1], x right, y down
    texture_uv: (b, frames, 2, S, S) float32, where each pixel's surface lies in the person's unwrapped texture,
        [-1, 1], channel 0 is x; NaN where the background is seen
    """

    images: Tensor
    masks: Tensor
    keypoints: Tensor
    texture_uv: Tensor


@dataclass(frozen=True)
class SyntheticHeads:
    """An endless set of synthetic people.

    image_size: side S of the square pictures in pixels
    split: "train" or "test"; no person occurs in both
    """

    image_size: int
    split: str = "train"

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise BadInput(f"unknown split {self.split!r} of the synthetic heads: use one of {', '.join(SPLITS)}")
        if not 16 <= self.image_size <= 1024:
            raise BadInput(f"synthetic heads cannot be drawn at {self.image_size} px: use 16 to 1024")

    def sample(
        self, identity_seeds: list[int], frames: int, frame_seed: int = 0, device: str | torch.device = "cpu"
    ) -> HeadBatch:
        """`frames` pictures of each person.

        A frame depends only on its person's seed, frame_seed and its number: not on the other people, nor on how many
        frames are drawn. The same call on the same device gives identical bits.

        Args:
            identity_seeds: one non-negative integer per person.
            frames: number of frames per person, at least 1.
            frame_seed: chooses other frames (poses, expressions) of the same people.
            device: where to render; the result stays there.
        """
        if not identity_seeds or frames < 1:
            raise BadInput("synthetic heads need at least one identity seed and at least one frame")
        device, split, size = torch.device(device), SPLITS[self.split], self.image_size
        people = draw_identities(identity_seeds, split).to(device)
        moments = join_frames([draw_frames(seed, frames, frame_seed, split) for seed in identity_seeds]).to(device)
        count = len(identity_seeds) * frames
        person = torch.arange(count, device=device) // frames
        images = torch.empty(count, 3, size, size, device=device)
        masks = torch.empty(count, 1, size, size, device=device)
        keypoints = torch.empty(count, 136, device=device)
        texture_uv = torch.empty(count, 2, size, size, device=device)
        step = 1 if device.type == "cpu" else max(1, CHUNK_PIXELS // (size * size))
        for start in range(0, count, step):
            part = slice(start, start + step)
            drawn = render_heads(
                people.take(person[part]), moments.take(torch.arange(count, device=device)[part]), size
            )
            images[part], masks[part], keypoints[part] = drawn.images, drawn.masks, drawn.keypoints
            texture_uv[part] = drawn.texture_uv
        shape = (len(identity_seeds), frames)
        return HeadBatch(
            images.view(*shape, 3, size, size),
            masks.view(*shape, 1, size, size),
            keypoints.view(*shape, 136),
            texture_uv.view(*shape, 2, size, size),
        )
