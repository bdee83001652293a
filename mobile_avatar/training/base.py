"""The base stage: every network but the updater, and the discriminator where there is one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.data.clips import Clips
from mobile_avatar.keypoints.landmark_image import draw_landmarks_batched
from mobile_avatar.models.bilayer.discriminator import Discriminator
from mobile_avatar.models.bilayer.inference_generator import Layers, masked, warp
from mobile_avatar.models.bilayer.model import BilayerModel, Person
from mobile_avatar.models.bilayer.projector import Projector
from mobile_avatar.models.bilayer.spectral import add_spectral_norm, resolve_spectral_norm
from mobile_avatar.training.adversarial import adversarial_losses, make_discriminator, save_discriminator
from mobile_avatar.training.batches import Augment, Batches, Stream
from mobile_avatar.training.distributed import (
    is_first,
    mean_over_processes,
    same_start,
    synchronise_batch_norms,
    world_size,
)
from mobile_avatar.training.losses import low_frequencies, structural_loss, total_variation, warp_decay, wide
from mobile_avatar.training.options import TrainOptions
from mobile_avatar.training.perceptual import PerceptualLoss, load_perceptual
from mobile_avatar.training.run import Run
from mobile_avatar.training.sheet import write_sheet
from mobile_avatar.training.sources import open_source
from mobile_avatar.training.statistics import standing_statistics
from mobile_avatar.training.step import Step, trained

MOMENTUM = 0.1  # the official 1.0 makes every picture taken during training depend on a single batch
L1_WEIGHT = BCE_WEIGHT = 10.0
DISCRIMINATOR_FILE = "discriminator.safetensors"
SHEET_PEOPLE = SHEET_FRAMES = 4


class Reconstruction(NamedTuple):
    """What a recipe makes of one batch."""

    losses: dict[str, Tensor]
    fake: Tensor
    """(N, 3, S, S): what the discriminator judges ..."""
    real: Tensor
    """... against this."""


class Objective:
    """What a stage minimises: the networks and, by `options.losses`, how images are made and compared."""

    recipes: ClassVar[dict[str, tuple[Callable, int]]]
    """Name of the losses -> what reconstructs and compares, and the first frame that is driven."""

    def __init__(
        self,
        model: BilayerModel,
        options: TrainOptions,
        discriminator: Discriminator | None = None,
        perceptual: dict[str, PerceptualLoss] | None = None,
    ) -> None:
        self.model, self.options, self.discriminator = model, options, discriminator
        self.perceptual = perceptual or {}
        self.reconstruct, first = self.recipes[options.losses]
        self.driven = slice(first, None)


def _thesis(objective: Objective, driven: Clips, person: Person, layers: Layers) -> Reconstruction:
    """Section 4 of the thesis: perceptual losses for the texture, L1 for low frequencies, cross-entropy for the mask.

    Everything is masked with the prediction, the real image too, so only the cross-entropy trains the mask.
    """
    model, mask = objective.model, layers.mask().detach()
    textures = person.texture.repeat_interleave(driven.images.shape[1], 0)
    hf = warp(textures, layers.uv(), model.config.align_corners)
    real = masked(driven.images.flatten(0, 1), mask)
    texture_only = masked(layers.lf.detach() + hf, mask)
    losses = {name: loss.recipe.weight * loss(texture_only, real) for name, loss in objective.perceptual.items()}
    losses["lf"] = L1_WEIGHT * F.l1_loss(masked(layers.lf, mask), real)
    losses["mask"] = BCE_WEIGHT * F.binary_cross_entropy_with_logits(layers.logits, driven.masks.flatten(0, 1))
    return Reconstruction(losses, masked(layers.lf + hf, mask), real)


def _substitute(objective: Objective, driven: Clips, person: Person, layers: Layers) -> Reconstruction:
    """For training without downloaded networks: `structural_loss` in place of the perceptual ones."""
    goal_mask = driven.masks.flatten(0, 1)
    goal = masked(driven.images.flatten(0, 1), goal_mask)
    blurred = low_frequencies(goal)
    image = masked(objective.model.unmasked(layers, person.texture), goal_mask)
    losses = {
        "structural": structural_loss(image, goal),
        "lf": 0.3 * F.l1_loss(masked(layers.lf, goal_mask), blurred),
        "mask": F.binary_cross_entropy_with_logits(layers.logits, goal_mask),
        "smooth": 0.1 * total_variation(layers.delta),
    }
    return Reconstruction(losses, image, goal)


class BaseObjective(Objective):
    """Losses of the base stage: frame 0 of each clip is the source.

    The recipe `thesis` drives the other frames; `substitute` also the source, which gives it a frame more for the same
    person.
    """

    recipes: ClassVar = {"thesis": (_thesis, 1), "substitute": (_substitute, 0)}

    def __call__(self, clips: Clips, step: int) -> dict[str, Tensor]:
        """Named weighted losses of a batch, and their `total`."""
        driven = select(clips, self.driven)
        person, layers = forward(self.model, clips, driven.keypoints)
        made = self.reconstruct(self, driven, person, layers)
        losses, options = dict(made.losses), self.options
        if weight := options.warp_weight * warp_decay(step):
            losses["warp"] = weight * layers.delta.abs().mean()
        if driven.texture_uv is not None and options.uv_weight:
            losses["uv"] = options.uv_weight * warp_error(layers, driven.texture_uv)
        if self.discriminator is not None:
            losses |= weighted_adversarial(self.discriminator, made, driven, options)
        return losses | {"total": sum(losses.values())}


def warp_error(layers: Layers, known: Tensor) -> Tensor:
    """Mean |uv - known| where it is known; `known` (b, t, 2, S, S), NaN elsewhere.

    Synthetic frames know where each pixel lies in the texture. Without that the warp has to be discovered through the
    images, which takes many times as long.
    """
    known = known.flatten(0, 1)
    seen = ~known.isnan()
    error = (layers.uv().permute(0, 3, 1, 2) - known.nan_to_num()).abs() * seen
    return error.sum() / mean_over_processes(seen.sum().float())


def weighted_adversarial(
    discriminator: Discriminator, made: Reconstruction, driven: Clips, options: TrainOptions
) -> dict[str, Tensor]:
    """The three losses of the discriminator's side of training, weighted."""
    landmarks = draw_landmarks_batched(driven.keypoints.flatten(0, 1), made.real.shape[-1])
    losses = adversarial_losses(discriminator, made.fake, made.real, landmarks)
    weights = {"matching": options.matching_weight}
    return {name: weights.get(name, options.adversarial_weight) * loss for name, loss in losses.items()}


def forward(model: BilayerModel, clips: Clips, keypoints: Tensor) -> tuple[Person, Layers]:
    """Person from frame 0 of each clip, layers for keypoints (b, t, 136)."""
    landmarks = draw_landmarks_batched(clips.keypoints[:, 0], clips.images.shape[-1])
    person = model.person(clips.images[:, :1], clips.masks[:, :1], landmarks[:, None])
    layers = model.frame_layers(keypoints, person)
    return replace(person, texture=wide(person.texture)), Layers(*map(wide, layers))


def select(clips: Clips, frames: slice) -> Clips:
    """Some frames of every clip."""
    uv = None if clips.texture_uv is None else clips.texture_uv[:, frames]
    return Clips(clips.images[:, frames], clips.masks[:, frames], clips.keypoints[:, frames], uv)


def train_base(
    options: TrainOptions,
    folder: Path,
    resume: bool,
    start: BilayerModel | None = None,
    discriminator: Discriminator | None = None,
) -> BilayerModel:
    """Train everything but the updater; see `train_networks`."""
    options = replace(options, stage="bilayer")
    return train_networks(options, folder, resume, start, discriminator, Stage(BaseObjective))


class Stage(NamedTuple):
    """How a stage trains whole models."""

    objective: type[Objective]
    augment: Augment | None = None
    """Applied to the batches of synthetic people."""
    update_steps: int = 0
    """Updates of the texture in the objective and in the pictures; 0: the updater rests."""


def train_networks(
    options: TrainOptions,
    folder: Path,
    resume: bool,
    start: BilayerModel | None,
    discriminator: Discriminator | None,
    stage: Stage,
) -> BilayerModel:
    """Train whole models; returns the averaged model in eval mode with standing statistics.

    Args:
        options: see TrainOptions; what is left open is resolved.
        folder: of the run; with a discriminator, its weights are there at the end.
        resume: go on from the folder's checkpoint if there is one.
        start, discriminator: earlier networks to go on from instead of random weights.
        stage: what is trained, on what.

    Raises:
        BadInput: options, data or folder do not fit; CheckFailed: the numbers became NaN or Inf.
    """
    options = options.resolved()
    torch.manual_seed(options.seed)
    model = (start or BilayerModel(options.config())).to(options.device)
    model.texture_updater.requires_grad_(stage.update_steps > 0)
    if options.spectral_norm:
        for part in model.children():
            if part is not model.texture_updater:  # one that rests must come out as it went in
                add_spectral_norm(part)
    judge = prepare_discriminator(model, options, discriminator)
    networks = [model] if judge is None else [model, judge]
    prepare_networks(networks)
    source = open_source(options, folder, model.config.image_size)
    batches = Batches(source, options, stage.augment if options.synthetic else None)
    rates = [(part, options.projector_rate if isinstance(part, Projector) else 1.0) for part in model.children()]
    parts = {"model": trained(model, options.lr, options.beta1, options.clip_norm, rates)}
    if judge is not None:
        parts["discriminator"] = trained(judge, options.lr, options.beta1, options.clip_norm)
    perceptual = load_perceptual({"vgg19": options.vgg19, "vggface": options.vggface}, options.device)
    objective = stage.objective(model, options, judge, perceptual)
    run = Run(folder, options, parts, resume)
    held_out = held_out_clips(options, folder, model)

    def sheet(path: Path) -> None:
        model.eval()
        write_sheet(path, model, held_out, stage.update_steps)
        model.train()

    model.train()
    run.loop(Step(objective, list(parts.values()), options.device, options.bf16), batches, sheet)
    model.load_state_dict(run.average)
    kind = torch.device(options.device).type

    def pass_through(number: int) -> None:
        clips = batches.read(number, Stream.STATISTICS)
        with torch.autocast(kind, torch.bfloat16, enabled=options.bf16):
            forward(model, clips, clips.keypoints)

    standing_statistics(model, pass_through, min(options.standing_batches, options.steps))
    if judge is not None and is_first():
        save_discriminator(judge, model.config, Path(folder) / DISCRIMINATOR_FILE)
    return resolve_spectral_norm(model.eval())


def prepare_discriminator(
    model: BilayerModel, options: TrainOptions, earlier: Discriminator | None
) -> Discriminator | None:
    """The discriminator of a run: the earlier one, a new one, or none."""
    if not options.adversarial:
        return None
    return (earlier or make_discriminator(model.config)).to(options.device).train()


def prepare_networks(networks: list[nn.Module]) -> None:
    """Make networks the same in all processes, with common batch statistics, laid out for fast convolutions."""
    same_start(networks)
    for network in networks:
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = MOMENTUM
        if world_size() > 1:
            synchronise_batch_norms(network)
        network.to(memory_format=torch.channels_last)


def held_out_clips(options: TrainOptions, folder: Path, model: BilayerModel) -> Clips | None:
    """A few people for contact sheets that are not trained on; only the first process shows them."""
    if not is_first():
        return None
    source = open_source(options, folder, model.config.image_size, "test")
    return source.load(source.draw(np.random.default_rng(0), SHEET_PEOPLE, SHEET_FRAMES), options.device)
