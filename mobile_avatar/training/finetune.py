"""Fine-tuning the avatar of one person on frames of a video: the folded per-frame network and the texture.

Of the folded network, the parameters that the projectors predicted for this person are trained first together with the
texture (the person-specific part of Zakharov et al., ECCV 2020), then everything. All that is random is a function of
the seed and the step, so a run that was cut off goes on exactly as if it had not been.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.avatar import Avatar
from mobile_avatar.data.frames import Frames, jitter, rareness
from mobile_avatar.errors import CheckFailed
from mobile_avatar.files import replace_file
from mobile_avatar.models.bilayer.inference_generator import masked
from mobile_avatar.training.losses import low_frequencies, structural_loss, total_variation
from mobile_avatar.training.portrait import Portrait

CLIP_NORM = 1.0
WARM_STEPS = 40
SMALLEST_SIZE = 1e-3
TRIAL_STEPS = 4


@dataclass(frozen=True)
class FinetuneOptions:
    """What decides the result of fine-tuning, together with the start and the frames."""

    steps: int = 1200
    """Optimiser steps at most."""
    batch_size: int = 4
    """Frames of the video per step."""
    other_poses: int = 1
    """Poses per step that the video may not show; there the warp should stay what it was."""
    texture_rate: float = 6e-3
    """Adam's peak learning rate of the texture, ..."""
    rate: float = 3e-3
    """... and of all else, in units of the root mean square of each tensor."""
    moved: float = 0.25
    """Share of the frames that are moved a little at the start; it falls to zero, because moving blurs."""
    first_stage: float = 0.1
    """Share of the steps that train only the texture and what was predicted for this person."""
    checks: int = 20
    """How often, over all steps, the validation frames are scored and a checkpoint is written."""
    patience: int = 8
    """Checks without a better score after which it stops."""
    seed: int = 0
    """Of the order of the frames and of their small random shifts."""


@dataclass(frozen=True)
class Finetuned:
    """The result of fine-tuning."""

    best: Avatar
    """At the step that showed the validation frames best."""
    best_step: int
    end: Avatar
    """At the last step."""
    history: list[dict[str, float]]
    """Per check: `step`, `loss` (mean since the check before) and `psnr` of the validation frames."""


def finetune(
    start: Avatar,
    train: Frames,
    poses: Tensor,
    score: Callable[[Avatar], float],
    options: FinetuneOptions,
    checkpoint: Path,
    progress: Callable[[range], Iterable[int]] = iter,
) -> Finetuned:
    """Fine-tune an avatar on the frames of a video.

    Args:
        start: the avatar to begin with.
        train: the frames, on the device to train on.
        poses: (P, 136) keypoints of other poses, at which the warp is held near that of `start`.
        score: PSNR in dB of an avatar on validation frames; decides which step is kept and when to stop.
        checkpoint: where the state is kept; where it exists, training goes on from it, and all else has to be the same.
        progress: wraps the range of steps that are left.

    Raises:
        CheckFailed: the loss became NaN or infinite; the last good checkpoint stays.
    """
    return _Finetuning(start, train, poses, options, checkpoint).run(score, progress)


def seconds_per_step(start: Avatar, train: Frames, poses: Tensor, options: FinetuneOptions) -> float:
    """Wall-clock time of one step on this machine, tried out on a copy."""
    trial = _Finetuning(start, train, poses, options, None)
    times = []
    for _ in range(TRIAL_STEPS):
        begin = time.perf_counter()
        trial.train_step()
        times.append(time.perf_counter() - begin)
    return float(np.median(times[1:]))  # the first one also prepares


class _Finetuning:
    def __init__(
        self, start: Avatar, train: Frames, poses: Tensor, options: FinetuneOptions, checkpoint: Path | None
    ) -> None:
        self.start, self.train, self.poses, self.options = start, train, poses, options
        self.checkpoint = checkpoint
        device = train.images.device
        portrait = Portrait(start.generator, start.texture)
        self.portrait = portrait.to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.portrait).requires_grad_(False)
        with torch.no_grad():
            self.held_delta = torch.cat([self.portrait.layers(one[None])[0] for one in poses])
        groups = [
            {"params": [value], "name": name, "lr": 0.0, "peak": self._peak(name, value)}
            for name, value in self.portrait.named_parameters()
        ]
        self.optimizer = torch.optim.Adam(groups, eps=1e-7)
        self.personal = self.portrait.personal()
        self.rareness = rareness(train.keypoints)
        self.step = self.best_step = 0
        self.best = copy.deepcopy(self.average.state_dict())
        self.history: list[dict[str, float]] = []
        if checkpoint and checkpoint.exists():
            self._restore()

    def run(self, score: Callable[[Avatar], float], progress: Callable[[range], Iterable[int]]) -> Finetuned:
        options = self.options
        every = max(1, options.steps // options.checks)
        losses = []
        if not self.history:
            self._check(score, math.nan)
        for _ in progress(range(self.step, options.steps)):
            if self._patience_is_over():
                break
            losses.append(self.train_step())
            if self.step % every == 0 or self.step == options.steps:
                self._check(score, sum(losses) / len(losses))
                losses = []
        end = self._avatar(self.average.state_dict())
        return Finetuned(self._avatar(self.best), self.best_step, end, self.history)

    def train_step(self) -> float:
        self._set_rates()
        loss = portrait_loss(self.portrait, *self._batch())
        if not torch.isfinite(loss):
            raise CheckFailed(
                f"the loss became {loss.item()} at step {self.step}; the last good state is in "
                f"{self.checkpoint.parent}; give another --seed or fewer --steps"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.portrait.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.step += 1
        keep = min(0.99, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.portrait.parameters(), strict=True):
                mean.lerp_(value, 1 - keep)
        return loss.item()

    def _batch(self) -> tuple[Frames, Tensor, Tensor, Tensor]:
        """Frames of this step, shifted a little, where they are known, and the poses with their warps."""
        options, count = self.options, len(self.train)
        random = np.random.default_rng((options.seed, self.step, 1))
        # Half of the frames in turn, so that each counts; half by how rare the face in them is.
        evenly = -(-options.batch_size // 2)
        chosen = [
            int(np.random.default_rng((options.seed, position // count)).permutation(count)[position % count])
            for position in range(self.step * evenly, (self.step + 1) * evenly)
        ] + random.choice(count, options.batch_size - evenly, p=self.rareness).tolist()
        frames, known = jitter(self.train[chosen], random, options.moved * (1 - self.step / options.steps))
        others = random.integers(0, len(self.poses), options.other_poses)
        return frames, known, self.poses[others], self.held_delta[others]

    def _set_rates(self) -> None:
        options = self.options
        decay = 0.02 + 0.98 * (1 + math.cos(math.pi * self.step / options.steps)) / 2
        switch = options.first_stage * options.steps
        for group in self.optimizer.param_groups:
            begin = 0 if group["name"] in self.personal else switch
            warm = min(1.0, max(0.0, (self.step + 1 - begin) / WARM_STEPS))
            group["lr"] = group["peak"] * warm * decay

    def _check(self, score: Callable[[Avatar], float], loss: float) -> None:
        psnr = score(self._avatar(self.average.state_dict()))
        if not self.history or psnr > max(row["psnr"] for row in self.history):
            self.best, self.best_step = copy.deepcopy(self.average.state_dict()), self.step
        self.history.append({"step": self.step, "loss": loss, "psnr": psnr})
        self._save()

    def _patience_is_over(self) -> bool:
        """Never before both stages have had a chance."""
        best = max(range(len(self.history)), key=lambda i: self.history[i]["psnr"])
        late = self.history[-1]["step"] >= 2 * self.options.first_stage * self.options.steps
        return late and len(self.history) - 1 - best >= self.options.patience

    def _peak(self, name: str, value: Tensor) -> float:
        """Peak learning rate. Folded tensors differ in size a thousandfold, and each should move by the same share."""
        if name == "texture":
            return self.options.texture_rate
        return self.options.rate * max(float(value.detach().square().mean().sqrt()), SMALLEST_SIZE)

    def _avatar(self, state: dict[str, Tensor]) -> Avatar:
        portrait = copy.deepcopy(self.average)
        portrait.load_state_dict(state)
        generator, texture = portrait.folded()
        return Avatar(generator, texture, self.start.source_keypoints, self.start.facts)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "portrait": self.portrait.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "best_step": self.best_step,
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
        }
        with replace_file(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def _restore(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.train.images.device, weights_only=True)
        self.step, self.best, self.best_step = state["step"], state["best"], state["best_step"]
        self.history = state["history"]
        self.portrait.load_state_dict(state["portrait"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def portrait_loss(portrait: Portrait, frames: Frames, known: Tensor, poses: Tensor, held: Tensor) -> Tensor:
    """The loss of one step.

    Args:
        frames: N frames of the video.
        known: (N, 1, S, S), 1 where the frames are known; elsewhere nothing is compared.
        poses: (P, 136) other poses.
        held: (P, 2, S, S) warp that `poses` should keep: what no frame shows would otherwise tear.
    """
    delta, lf, unmasked, mask = portrait.layers(torch.cat([frames.keypoints, poses]))
    count = len(frames)
    goal = masked(frames.images, frames.masks)

    def seen(image: Tensor) -> Tensor:
        return torch.where(known > 0, image, goal)

    blurred = low_frequencies(goal)
    shown = masked(unmasked[:count], mask[:count])
    inside = masked(unmasked[:count], frames.masks)
    cross = F.binary_cross_entropy(mask[:count].clamp(1e-6, 1 - 1e-6), frames.masks, weight=known)
    return (
        structural_loss(seen(inside), goal)
        + 20 * F.mse_loss(seen(shown), goal)  # small in area, but large: mouth and eyes
        + 0.1 * (seen(masked(lf[:count], frames.masks)) - blurred).abs().mean()
        + 0.3 * cross
        + 0.1 * total_variation(delta)
        + (delta[count:] - held).abs().mean()
    )
