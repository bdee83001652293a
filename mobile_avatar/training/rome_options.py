"""Options of a ROME training run: the mesh avatar and, from it, the linear model."""

from dataclasses import dataclass, replace

import torch

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.presets import PRESETS
from mobile_avatar.training.options import FROM_WEIGHTS, SCHEDULES

STAGES = ("rome", "linear-rome")
DATA = ("synthetic",)
"""Codes of a frame (expression, pose, camera) are known for synthetic people only; photos would need DECA's."""
REGRESSORS = PHOTO, FRAME = ("basis_regressor", "frame_regressor")
"""Of the linear model: what reads a photo and what reads every frame."""
FRESH_PRESET = "small"
SEEN = 25
"""How often a person of the pool is seen by default."""


def preset_config(preset: str, head: HeadModel) -> RomeConfig:
    """The numbers of a member of the family for a head model."""
    counts = {"n_shape": head.shape_basis.shape[2], "n_exp": head.expression_basis.shape[2]}
    return RomeConfig(**PRESETS[preset], **counts, n_vertices=len(head.template), photo_shape=True)


@dataclass(frozen=True)
class RomeTrainOptions:
    """Options of a run; stored in its folder as options.yaml. None: see `resolved`."""

    stage: str = "rome"
    """`rome` (all networks of the full mode) or `linear-rome` (the basis and the regressors, from a full model)."""
    data: str = "synthetic"
    """A name in DATA: a pool beside the run."""
    preset: str | None = None
    """A key of PRESETS; `small` by default."""
    weights: str | None = None
    """Weights to start from; `linear-rome` needs those of the full model."""
    steps: int = 4000
    """Optimiser steps."""
    batch_size: int = 4
    """People per step, over all processes."""
    pictures_every: int = 1
    """Steps of which one judges pictures, too; the others train the mesh alone and take a third of the time."""
    targets: int = 1
    """Frames per person and step besides the photo itself: outline views first, in `linear-rome` more photos first."""
    seed: int = 0
    """Of everything random."""
    identities: int | None = None
    """Synthetic people in the pool; by default enough to see each about 25 times, 16 to 1200."""
    frames: int = 6
    """Frames of each; half of them are outline views."""
    vgg19: str | None = None
    """Weights of the VGG19 perceptual network; the substitute is the structural loss."""
    face_network: str | None = None
    """A ResNet-50 that knows faces, in torchvision's format, for the identity loss; there is none without it."""
    adversarial: bool = False
    """Train with a discriminator."""
    resnet50: str | None = None
    """Linear: weights in torchvision's format that the regressor of a photo starts from."""
    mobilenet_v2: str | None = None
    """Linear: the same of the regressor of a frame."""
    frame_size: int | None = None
    """Linear: side in pixels of the frames that their regressor reads; by default what it was, or image_size."""
    only: str | None = None
    """Linear: the one regressor in training, a key of PARTS; both by default."""
    basis_people: int = 300
    """Linear: people behind the basis."""
    lr: float = 1e-3
    """Adam's peak learning rate; officially 1e-4, for networks sixteen times as wide."""
    beta1: float = 0.9
    """Adam's first beta; officially 0, for the sake of a discriminator."""
    schedule: str = "cosine"
    """A key of SCHEDULES."""
    clip_norm: float = 0.0
    """Largest norm of a network's gradient; 0 for any: standardised weights have gradients of any size."""
    ema: float = 0.995
    """How much of the averaged weights stays per step."""
    standing_batches: int = 50
    """Linear: batches behind the final batch-norm statistics, but not more than steps."""
    device: str = "auto"
    """Torch device; `auto` is a GPU where there is one."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    sheet_every: int = 100
    """Steps between contact sheets and files of the averaged weights."""
    log_every: int = 10
    """Steps between rows of metrics.jsonl."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "pictures_every", "checkpoint_every", "sheet_every", "log_every"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} {getattr(self, name)} is too small; use 1 or more")
        for name in ("targets", "seed"):
            if getattr(self, name) < 0:
                raise BadInput(f"{name} {getattr(self, name)} is negative; use 0 or more")
        if self.frames <= self.targets:
            raise BadInput(f"{self.frames} frames per person are too few for a source and {self.targets} targets")
        if self.identities is not None and self.identities < self.batch_size:
            raise BadInput(f"{self.identities} identities are too few for a batch of {self.batch_size}")
        if self.only not in (None, *REGRESSORS):
            raise BadInput(f"{self.only!r} is no regressor of linear ROME; use {' or '.join(REGRESSORS)}")
        for name, known in (("stage", STAGES), ("data", DATA), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise BadInput(f"ROME cannot be trained with {name} {getattr(self, name)!r}; use {', '.join(known)}")
        if self.preset not in (None, FROM_WEIGHTS, *PRESETS):
            raise BadInput(f"ROME has no preset {self.preset!r}; use one of {', '.join(PRESETS)}")

    def resolved(self) -> "RomeTrainOptions":
        """The same with every None replaced by what it stands for (unless it stands for none)."""
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        wanted = max(16, -(-self.steps * self.batch_size // SEEN))
        return replace(
            self,
            device=device,
            preset=self.preset or (FROM_WEIGHTS if self.weights else FRESH_PRESET),
            identities=self.identities or max(self.batch_size, min(1200, wanted)),
        )

    @property
    def regressors(self) -> tuple[str, ...]:
        """Those of the linear model that are in training."""
        return REGRESSORS if self.only is None else (self.only,)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        return self.lr * SCHEDULES[self.schedule](step, self.steps)
