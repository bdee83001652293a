"""The joint stage: base and updater together, on images of the generated and of the updated texture.

Not in the thesis, where the updater trains on a frozen base. But then the warp never learns what an updated texture
shows when it is read in the wrong place; trained together, it does. Run it behind the other two stages.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.data.clips import Clips
from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.discriminator import Discriminator
from mobile_avatar.models.bilayer.inference_generator import Layers, masked
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.training.base import (
    BaseObjective,
    Reconstruction,
    Stage,
    forward,
    train_networks,
    warp_error,
    weighted_adversarial,
)
from mobile_avatar.training.losses import low_frequencies, structural_loss, total_variation
from mobile_avatar.training.options import TrainOptions
from mobile_avatar.training.updater import LARGEST_TEXTURE, UPDATE_STEPS, recolour

GENERATED_WEIGHT = 0.3  # of the image before the updates, next to 1 behind them
SQUARES_WEIGHT = 6.0
MASK_WEIGHT = 5.0  # on synthetic people a wrong outline costs as much as everything inside it


class JointObjective(BaseObjective):
    """Losses of the joint stage: frame 0 of each clip is the source, all frames are driven."""

    def __call__(self, clips: Clips, step: int) -> dict[str, Tensor]:
        """Named weighted losses of a batch, and their `total`."""
        model, options = self.model, self.options
        person, layers = forward(model, clips, clips.keypoints)
        source = Layers(*(layer.unflatten(0, clips.images.shape[:2])[:, 0] for layer in layers))
        textures = model.texture_updater(
            person.texture, source, clips.images[:, 0], UPDATE_STEPS, options.checkpointing
        )
        goal_mask = clips.masks.flatten(0, 1)
        goal = masked(clips.images.flatten(0, 1), goal_mask)
        losses = {}
        for name, texture, weight in (("generated", person.texture, GENERATED_WEIGHT), ("updated", textures[-1], 1.0)):
            unmasked = model.unmasked(layers, texture)
            image = masked(unmasked, goal_mask)
            losses[name] = weight * structural_loss(image, goal)
        # What the avatar will show: here, unlike in the thesis, the mask learns from the image as well.
        losses["composite"] = SQUARES_WEIGHT * F.mse_loss(masked(unmasked, layers.mask()), goal)
        blurred = low_frequencies(goal)
        losses["lf"] = 0.15 * F.l1_loss(masked(layers.lf, goal_mask), blurred)
        losses["mask"] = MASK_WEIGHT * F.binary_cross_entropy_with_logits(layers.logits, goal_mask)
        losses["smooth"] = 0.1 * total_variation(layers.delta)
        losses["range"] = 0.3 * F.relu(textures[-1].abs() - LARGEST_TEXTURE).mean()
        if clips.texture_uv is not None and options.uv_weight:
            losses["uv"] = options.uv_weight * warp_error(layers, clips.texture_uv)
        if self.discriminator is not None:
            losses |= weighted_adversarial(self.discriminator, Reconstruction({}, image, goal), clips, options)
        return losses | {"total": sum(losses.values())}


def recolour_half(clips: Clips, generator: np.random.Generator, people: int, share: slice) -> Clips:
    """`recolour` for every second person: the updater meets large residuals, the base still sees real colours."""
    changed = recolour(clips, generator, people, share).images
    chosen = torch.arange(people, device=changed.device)[share] % 2 == 0
    return replace(clips, images=torch.where(chosen.view(-1, 1, 1, 1, 1), changed, clips.images))


def train_joint(
    options: TrainOptions,
    folder: Path,
    resume: bool,
    start: BilayerModel,
    discriminator: Discriminator | None = None,
) -> BilayerModel:
    """Train a finished model on, updater included; see `train_networks`.

    Raises:
        BadInput: as there, and for the losses of the thesis, which know no such stage.
    """
    if options.resolved().losses == "thesis":
        raise BadInput("the joint stage is trained with --losses substitute only; the thesis has no such stage")
    stage = Stage(JointObjective, recolour_half, UPDATE_STEPS)
    return train_networks(replace(options, stage="joint"), folder, resume, start, discriminator, stage)
