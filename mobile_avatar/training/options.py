"""Options of a training run: their defaults, which follow from each other, and the options.yaml of a run folder."""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import torch
import yaml

from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.config import PRESETS, BilayerConfig

SYNTHETIC = ("synthetic", "synthetic-stream")
SUBSTITUTE = "structural-substitute"
FRESH_PRESET = "compact"
STUDENT = "mobile"
FROM_WEIGHTS = "of-the-weights"
# What may change when a run goes on: how long, where and how it is computed, not what.
CHANGEABLE = ("steps", "device", "lr", "bf16", "checkpointing", "checkpoint_every", "sheet_every", "log_every")
PATHS = ("weights", "vgg19", "vggface", "face_network", "resnet50", "mobilenet_v2")

# Defaults that belong together. `thesis`: section 4 of the thesis and the official scripts. `substitute`: for training
# without downloaded networks; it has no adversarial loss unless asked for.
RECIPES: dict[str, dict[str, object]] = {
    "thesis": {
        "adversarial": True,
        "adversarial_weight": 0.5,
        "matching_weight": 10.0,
        "warp_weight": 10.0,
        "lr": 2e-4,
        "beta1": 0.5,
        "schedule": "constant",
        "clip_norm": 0.0,
        "projector_rate": 1.0,
        "spectral_norm": True,
    },
    "substitute": {
        "adversarial": False,
        "adversarial_weight": 0.05,
        "matching_weight": 1.0,
        "warp_weight": 0.0,
        "lr": 4e-4,
        "beta1": 0.9,
        "schedule": "cosine",
        "clip_norm": 1.0,
        "projector_rate": 0.1,
        "spectral_norm": False,
    },
}


def _rate(step: int, steps: int) -> float:
    """Linear warm-up over 100 steps or a fifth of a short run, and a cosine down to a twentieth."""
    return min(1.0, (step + 1) / min(100, steps // 5 + 1)) * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)


# Factor on the learning rate at a step of so many.
SCHEDULES = {"constant": lambda step, steps: 1.0, "cosine": _rate}


@dataclass(frozen=True)
class TrainOptions:
    """Options of a run; stored in its folder as options.yaml. None: see `resolved`."""

    stage: str = "bilayer"
    """`bilayer` (all base networks), `updater`, `joint` (both together), or `distill` (a lighter per-frame network)."""
    data: str = "synthetic"
    """A name in `sources.SOURCES` or the folder of a dataset in the layout of VoxCeleb2."""
    preset: str | None = None
    """Member of the model family; `compact` by default."""
    image_size: int | None = None
    """Side of images in pixels; the preset's by default."""
    tex_spade: bool | None = None
    """Adaptive SPADE in the texture generator; the preset's (on) by default."""
    adaptive_skips: bool | None = None
    """Predicted skips; the preset's (on) by default."""
    weights: str | None = None
    """Weights to start from (`distill`: the teacher's); only `bilayer` does without."""
    steps: int = 4000
    """Optimiser steps."""
    batch_size: int = 8
    """People per step, over all processes."""
    targets: int = 3
    """Driven frames per person and step."""
    seed: int = 0
    """Of everything random."""
    identities: int | None = None
    """Synthetic identities in the pool; by default enough to see each about 25 times, 16 to 1200."""
    frames: int = 8
    """Frames of each."""
    losses: str | None = None
    """A key of RECIPES; by default `thesis` where perceptual networks are given."""
    vgg19: str | None = None
    """Weights of the VGG19 perceptual network."""
    vggface: str | None = None
    """Weights of the VGGFace (VGG16) perceptual network."""
    perceptual: str | None = None
    """Which perceptual networks are in use; `structural-substitute` for none."""
    adversarial: bool | None = None
    """Train with a discriminator."""
    adversarial_weight: float | None = None
    """Weight of the relativistic average hinge losses of both sides."""
    matching_weight: float | None = None
    """Weight of feature matching."""
    warp_weight: float | None = None
    """Weight of mean |delta uv| at the start; it decays."""
    uv_weight: float = 4.0
    """Weight of the supervised warp; only synthetic frames know it, with real data there is no such loss."""
    lr: float | None = None
    """Adam's (peak) learning rate."""
    beta1: float | None = None
    """Adam's first beta; the second is 0.999 and epsilon 1e-7."""
    schedule: str | None = None
    """A key of SCHEDULES."""
    clip_norm: float | None = None
    """Largest norm of a network's gradient; 0 for any."""
    projector_rate: float | None = None
    """Factor on the learning rate of the projectors: they read each pixel of an embedding many times."""
    spectral_norm: bool | None = None
    """Normalise every layer of the trained generator networks; the discriminator always is."""
    ema: float = 0.995
    """How much of the averaged weights stays per step."""
    standing_batches: int = 100
    """Batches behind the standing statistics, but not more than steps (officially 500)."""
    device: str = "auto"
    """Torch device; `auto` is a GPU where there is one."""
    bf16: bool | None = None
    """Compute convolutions in bfloat16 (losses and weights stay float32); by default where the device has it."""
    checkpointing: bool = False
    """Updater: recompute the inside of each update in the backward pass, for less memory."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""
    sheet_every: int = 250
    """Steps between contact sheets."""
    log_every: int = 10
    """Steps between rows of metrics.jsonl."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "targets", "checkpoint_every", "sheet_every", "log_every"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} {getattr(self, name)} is too small; use 1 or more")
        if self.seed < 0:
            raise BadInput(f"seed {self.seed} is negative; use 0 or more")
        if self.frames <= self.targets:
            raise BadInput(f"{self.frames} frames per person are too few for a source and {self.targets} targets")
        if self.identities is not None and self.identities < self.batch_size:
            raise BadInput(f"{self.identities} identities are too few for a batch of {self.batch_size}")
        for name, known in (("losses", RECIPES), ("schedule", SCHEDULES)):
            if getattr(self, name) not in (None, *known):
                raise BadInput(f"unknown {name} {getattr(self, name)!r}; use one of {', '.join(known)}")
        if self.preset not in (None, FROM_WEIGHTS, *PRESETS):
            raise BadInput(f"unknown preset {self.preset!r}; use one of {', '.join(PRESETS)}")
        if self.losses == "thesis" and not (self.vgg19 or self.vggface):
            raise BadInput("the thesis' losses need --vgg19 and --vggface; leave --losses out for the substitute")
        if self.losses == "substitute" and (self.vgg19 or self.vggface):
            raise BadInput("the substitute uses no perceptual network; leave --vgg19 and --vggface or --losses out")

    @property
    def synthetic(self) -> bool:
        """Whether the frames are rendered here."""
        return self.data in SYNTHETIC

    def resolved(self) -> "TrainOptions":
        """The same with every None replaced by what it stands for (unless it stands for none)."""
        given = [name for name in ("vgg19", "vggface") if getattr(self, name)]
        losses = self.losses or ("thesis" if given else "substitute")
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        defaults = RECIPES[losses] | {
            "losses": losses,
            "perceptual": "+".join(given) if losses == "thesis" else SUBSTITUTE,
            "preset": STUDENT if self.stage == "distill" else FROM_WEIGHTS if self.weights else FRESH_PRESET,
            "identities": max(self.batch_size, min(1200, max(16, -(-self.steps * self.batch_size // 25)))),
            "bf16": has_bf16(device),
        }
        missing = {key: value for key, value in defaults.items() if getattr(self, key) is None}
        return replace(self, device=device, **missing)

    def config(self) -> BilayerConfig:
        """Model config of a run that starts from nothing."""
        config = PRESETS[self.preset or FRESH_PRESET]
        if self.image_size is not None:
            config = config.at_size(self.image_size)
        switches = {key: getattr(self, key) for key in ("tex_spade", "adaptive_skips")}
        return replace(config, **{key: value for key, value in switches.items() if value is not None})

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        return self.lr * SCHEDULES[self.schedule](step, self.steps)


Options = TypeVar("Options")


def has_bf16(device: str) -> bool:
    """Whether bfloat16 is fast there: on GPUs, and on CPUs with instructions for it (elsewhere it is emulated)."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16"))


def read_options(folder: Path, resume: bool, overrides: dict, kind: type[Options] = TrainOptions) -> Options:
    """Resolved options of a run: from the command line, or when resuming those it was started with.

    What is in CHANGEABLE may change on the way; BadInput names any other option that would. `kind` is the class of the
    options: a dataclass with `resolved`.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    stored = Path(folder) / "options.yaml"
    if not (resume and stored.is_file()):
        return kind(**given).resolved()
    before = yaml.safe_load(stored.read_text())
    if not isinstance(before, dict):
        raise BadInput(f"{stored} is damaged; choose another --run")
    for key, value in given.items():
        if key not in CHANGEABLE and not _same(key, before.get(key), value):
            raise BadInput(f"{stored} has {key} {before.get(key)}, not {value}; leave the option out to resume")
    known = {field.name for field in fields(kind)}
    if given.get("device", before.get("device")) != before.get("device"):
        before.pop("bf16", None)  # it belongs to the device
    return kind(**{key: value for key, value in before.items() if key in known} | given).resolved()


def _same(key: str, before: object, value: object) -> bool:
    if key in PATHS and before is not None:
        return Path(before).absolute() == Path(value).absolute()
    return before == value
