"""Options of the distillation of ROME's rendering network into one for phones."""

from dataclasses import dataclass, replace

import torch

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.compact_renderer import CompactConfig
from mobile_avatar.training.options import SCHEDULES
from mobile_avatar.training.rome_options import DATA, SEEN

STAGE = "rome-renderer"


@dataclass(frozen=True)
class RendererTrainOptions:
    """Options of a run; stored in its folder as options.yaml. None: see `resolved`."""

    stage: str = STAGE
    data: str = "synthetic"
    """A name in DATA: a pool beside the run, the same that the teacher was trained on if it lies there."""
    weights: str | None = None
    """Of the teacher. With the linear model's parts in it, the student sees the meshes that a phone draws."""
    renderer: str | None = None
    """What an earlier run made, to go on from; its pictures may have had another size."""
    image_size: int | None = None
    """Side of the pictures in pixels; the teacher's by default."""
    width: int = 16
    """Channels of the student at full resolution, doubled per level."""
    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 4
    """People per step, over all processes."""
    targets: int = 1
    """Frames per person and step besides the photo itself: more photos first, then outline views."""
    invented: int = 1
    """Frames per person and step with random codes; only the teacher knows what they should show."""
    true_share: float = 0.8
    """Of the true pictures in the losses, the rest is the teacher's: where it is wrong its student need not be. With 1
    the teacher draws no pictures, which saves a third of the time."""
    seed: int = 0
    """Of everything random."""
    identities: int | None = None
    """Synthetic people in the pool; by default enough to see each about 25 times, 16 to 600."""
    frames: int = 6
    """Frames of each; half of them are outline views."""
    lr: float = 2e-3
    """Adam's peak learning rate."""
    beta1: float = 0.9
    """Adam's first beta."""
    schedule: str = "cosine"
    """A key of SCHEDULES."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 for any."""
    ema: float = 0.99
    """How much of the averaged weights stays per step."""
    standing_batches: int = 100
    """Batches behind the final batch-norm statistics, but not more than steps."""
    device: str = "auto"
    """Torch device; `auto` is a GPU where there is one."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""
    sheet_every: int = 250
    """Steps between contact sheets and files of the averaged renderer."""
    log_every: int = 10
    """Steps between rows of metrics.jsonl."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "standing_batches", "checkpoint_every", "sheet_every", "log_every"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} {getattr(self, name)} is too small; use 1 or more")
        for name in ("targets", "invented", "seed"):
            if getattr(self, name) < 0:
                raise BadInput(f"{name} {getattr(self, name)} is negative; use 0 or more")
        if not 0 <= self.true_share <= 1:
            raise BadInput(f"true_share {self.true_share} is not between 0 and 1")
        if self.frames <= self.targets:
            raise BadInput(f"{self.frames} frames per person are too few for a source and {self.targets} targets")
        if self.identities is not None and self.identities < self.batch_size:
            raise BadInput(f"{self.identities} identities are too few for a batch of {self.batch_size}")
        for name, known in (("stage", (STAGE,)), ("data", DATA), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise BadInput(f"a renderer is not trained with {name} {getattr(self, name)!r}; use {', '.join(known)}")

    def resolved(self) -> "RendererTrainOptions":
        """The same with device and identities replaced by what they stand for."""
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        wanted = max(16, min(600, -(-self.steps * self.batch_size // SEEN)))
        return replace(self, device=device, identities=self.identities or max(self.batch_size, wanted))

    def config(self, teacher_size: int) -> CompactConfig:
        """Of the student; BadInput for sizes that it cannot have."""
        return CompactConfig(self.image_size or teacher_size, self.width)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        return self.lr * SCHEDULES[self.schedule](step, self.steps)
