"""Random people as a source of training data."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ...errors import BadInput
from .expression import Frames, draw_frames, join_frames
from .identity import Identity, draw_identities
from .render import Mesh, head_mesh, render_heads

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
    parts: (b, frames, S, S) uint8, index into PARTS, 0 = background
    normals: (b, frames, 3, S, S) float32, unit, x right, y down, z to the viewer; 0 where the background is seen
    depth: (b, frames, 1, S, S) float32 in head units, larger is nearer; NaN where the background is seen
    """

    images: Tensor
    masks: Tensor
    keypoints: Tensor
    texture_uv: Tensor
    parts: Tensor
    normals: Tensor
    depth: Tensor


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

    @torch.no_grad()
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
        people, moments = self._rows(identity_seeds, frames, frame_seed, torch.device(device))
        return self.render(people, moments, frames)

    @torch.no_grad()
    def render(self, people: Identity, moments: Frames, frames: int) -> HeadBatch:
        """Pictures of people and moments of one's own choice: a row of both per picture, `frames` rows per person."""
        size, device, count = self.image_size, moments.jaw.device, len(moments.jaw)
        step = 1 if device.type == "cpu" else max(1, CHUNK_PIXELS // (size * size))
        whole: dict[str, Tensor] = {}
        for start in range(0, count, step):
            part = torch.arange(start, min(start + step, count), device=device)
            drawn = render_heads(people.take(part), moments.take(part), size)
            for field in fields(drawn):
                rows = getattr(drawn, field.name)
                if field.name not in whole:
                    whole[field.name] = rows.new_empty((count, *rows.shape[1:]))
                whole[field.name][part] = rows
        return HeadBatch(**{name: rows.unflatten(0, (count // frames, frames)) for name, rows in whole.items()})

    @torch.no_grad()
    def meshes(
        self, identity_seeds: list[int], frames: int, frame_seed: int = 0, device: str | torch.device = "cpu"
    ) -> Mesh:
        """The meshes behind `sample`'s pictures, one row per frame: frames of the first person, then of the next."""
        return head_mesh(*self._rows(identity_seeds, frames, frame_seed, torch.device(device)))

    def _rows(
        self, identity_seeds: list[int], frames: int, frame_seed: int, device: torch.device
    ) -> tuple[Identity, Frames]:
        """Identity and frame parameters, one row per picture."""
        if not identity_seeds or frames < 1:
            raise BadInput("synthetic heads need at least one identity seed and at least one frame")
        split = SPLITS[self.split]
        people = draw_identities(identity_seeds, split).to(device)
        moments = join_frames([draw_frames(seed, frames, frame_seed, split) for seed in identity_seeds]).to(device)
        return people.take(torch.arange(len(identity_seeds) * frames, device=device) // frames), moments
