"""The updater stage: the base is frozen, the texture updater is trained through its unrolled steps (thesis eq. 5.7)."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.data.clips import Clips
from mobile_avatar.models.bilayer.discriminator import Discriminator
from mobile_avatar.models.bilayer.inference_generator import Layers, masked
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.models.bilayer.spectral import add_spectral_norm, advance_spectral_norm, resolve_spectral_norm
from mobile_avatar.training.base import (
    Objective,
    Reconstruction,
    forward,
    held_out_clips,
    prepare_discriminator,
    prepare_networks,
    select,
    weighted_adversarial,
)
from mobile_avatar.training.batches import Batches
from mobile_avatar.training.losses import structural_loss
from mobile_avatar.training.options import TrainOptions
from mobile_avatar.training.perceptual import load_perceptual
from mobile_avatar.training.run import Run
from mobile_avatar.training.sheet import write_sheet
from mobile_avatar.training.sources import open_source
from mobile_avatar.training.step import Step, trained

UPDATE_STEPS = 4
LARGEST_TEXTURE = 1.5  # beyond it the substitute pulls textures back: FP16 files and 8-bit textures hold little more


def _thesis(objective: Objective, driven: Clips, layers: Layers, textures: list[Tensor]) -> Reconstruction:
    """Perceptual losses on the image of the last texture, masked like the real one with the prediction."""
    mask = layers.mask()
    real = masked(driven.images.flatten(0, 1), mask)
    image = masked(objective.model.unmasked(layers, textures[-1]), mask)
    losses = {name: loss.recipe.weight * loss(image, real) for name, loss in objective.perceptual.items()}
    return Reconstruction(losses, image, real)


def _substitute(objective: Objective, driven: Clips, layers: Layers, textures: list[Tensor]) -> Reconstruction:
    """Reconstruction of the source and of other frames behind every update, later updates counting more."""
    goal_mask = driven.masks.flatten(0, 1)
    goal = masked(driven.images.flatten(0, 1), goal_mask)
    losses = {}
    for i, texture in enumerate(textures):
        image = masked(objective.model.unmasked(layers, texture), goal_mask)
        losses[f"update{i + 1}"] = structural_loss(image, goal) * (i + 1) / len(textures)
    people, frames = driven.images.shape[:2]
    own = torch.arange(people, device=goal.device) * frames
    losses["squares"] = F.mse_loss(image[own], goal[own])
    losses["range"] = F.relu(textures[-1].abs() - LARGEST_TEXTURE).mean()
    return Reconstruction(losses, image, goal)


class UpdaterObjective(Objective):
    """Losses of the updater stage, all on images of the updated texture.

    Frame 0 of each clip is the source, whose error the updater reads. (The official script trains nothing here: it
    renders no source, and its losses look at images that the updater does not touch.)
    """

    recipes: ClassVar = {"thesis": (_thesis, 1), "substitute": (_substitute, 0)}

    def __call__(self, clips: Clips, step: int) -> dict[str, Tensor]:
        """Named weighted losses of a batch, and their `total`."""
        model, options = self.model, self.options
        with torch.no_grad():
            # One pass renders the sources too; the recipe picks the frames that it compares.
            person, layers = forward(model, clips, clips.keypoints)
        if options.spectral_norm:
            advance_spectral_norm(model.texture_updater)
        frames = [layer.unflatten(0, clips.images.shape[:2]) for layer in layers]
        source = Layers(*(frame[:, 0] for frame in frames))
        textures = model.texture_updater(
            person.texture, source, clips.images[:, 0], UPDATE_STEPS, options.checkpointing
        )
        driven = select(clips, self.driven)
        layers = Layers(*(frame[:, self.driven].flatten(0, 1) for frame in frames))
        made = self.reconstruct(self, driven, layers, textures)
        losses = dict(made.losses)
        if self.discriminator is not None:
            losses |= weighted_adversarial(self.discriminator, made, driven, options)
        return losses | {"total": sum(losses.values())}


def recolour(clips: Clips, generator: np.random.Generator, people: int, share: slice) -> Clips:
    """Random colour transform per person, the same in all frames: residuals as large as those of real photos.

    Args:
        clips: this process's `share` of a batch of so many `people`.
        generator: the same in every process.
    """

    def own(values: np.ndarray, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(values[share]).float().view(-1, *shape).to(clips.images.device)

    matrix = own(np.eye(3) + 0.15 * generator.standard_normal((people, 3, 3)), (3, 3))
    shift = own(0.2 * generator.standard_normal((people, 3)), (1, 3, 1, 1))
    gain = own(generator.uniform(0.6, 1.3, people), (1, 1, 1, 1))
    images = torch.einsum("bij,bnjhw->bnihw", matrix, clips.images) * gain + shift
    return replace(clips, images=images.clamp(-1, 1))


def train_updater(
    options: TrainOptions,
    folder: Path,
    model: BilayerModel,
    resume: bool,
    discriminator: Discriminator | None = None,
) -> BilayerModel:
    """Train the texture updater of a finished model; the rest stays frozen in eval mode. Returns `model`.

    Args:
        options: see TrainOptions; what is left open is resolved.
        folder: of the run.
        model: from the base stage.
        resume: go on from the folder's checkpoint if there is one.
        discriminator: of the base stage; a new one where the options ask for one and none is given.

    Raises:
        BadInput: options, data or folder do not fit; CheckFailed: the numbers became NaN or Inf.
    """
    options = replace(options, stage="updater").resolved()
    torch.manual_seed(options.seed)
    model = model.to(options.device).eval().requires_grad_(False)
    updater = model.texture_updater.requires_grad_(True)
    if options.spectral_norm:
        # It stays in eval mode, with one power iteration per step of training: an unrolled updater whose weights
        # changed between its calls could not be computed again.
        add_spectral_norm(updater)
    judge = prepare_discriminator(model, options, discriminator)
    prepare_networks([model] if judge is None else [model, judge])
    source = open_source(options, folder, model.config.image_size)
    # Synthetic people resemble their reconstruction more than real ones do.
    batches = Batches(source, options, recolour if options.synthetic else None)
    parts = {"model": trained(updater, options.lr, options.beta1, options.clip_norm)}
    if judge is not None:
        parts["discriminator"] = trained(judge, options.lr, options.beta1, options.clip_norm)
    perceptual = load_perceptual({"vgg19": options.vgg19, "vggface": options.vggface}, options.device)
    objective = UpdaterObjective(model, options, judge, perceptual)
    run = Run(folder, options, parts, resume)
    held_out = held_out_clips(options, folder, model)
    run.loop(
        Step(objective, list(parts.values()), options.device, options.bf16),
        batches,
        lambda path: write_sheet(path, model, held_out, UPDATE_STEPS),
    )
    updater.load_state_dict(run.average)
    resolve_spectral_norm(updater)
    return model
