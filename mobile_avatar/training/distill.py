"""Distillation: a lighter per-frame network learns what a finished model (the teacher) shows, warp field included.

Everything that runs once per person is the teacher's and stays frozen: embedder, texture generator and updater. Only
the projector of the per-frame layers, the keypoints embedder and the inference generator are trained.
"""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.data.clips import Clips
from mobile_avatar.errors import BadInput
from mobile_avatar.keypoints.landmark_image import draw_landmarks_batched
from mobile_avatar.models.bilayer.config import PRESETS, BilayerConfig
from mobile_avatar.models.bilayer.inference_generator import Layers, masked
from mobile_avatar.models.bilayer.model import BilayerModel, Person
from mobile_avatar.training.base import held_out_clips, prepare_networks, warp_error
from mobile_avatar.training.batches import Batches, Stream
from mobile_avatar.training.joint import MASK_WEIGHT, SQUARES_WEIGHT, recolour_half
from mobile_avatar.training.losses import structural_loss, wide
from mobile_avatar.training.options import TrainOptions
from mobile_avatar.training.run import Run
from mobile_avatar.training.sheet import write_sheet
from mobile_avatar.training.sources import open_source
from mobile_avatar.training.statistics import standing_statistics
from mobile_avatar.training.step import Step, trained
from mobile_avatar.training.updater import UPDATE_STEPS

LEARNS = ("inference_projector", "keypoints_embedder", "inference_generator")
PER_FRAME = ("inf_channels", "inf_max_channels", "inf_scale", "inf_activation")
"""What a student takes from its preset; the rest is the teacher's."""


def student_config(teacher: BilayerConfig, preset: str) -> BilayerConfig:
    """The teacher's config with the per-frame network of a preset."""
    return replace(teacher, **{name: getattr(PRESETS[preset], name) for name in PER_FRAME})


def make_student(teacher: BilayerModel, config: BilayerConfig) -> BilayerModel:
    """A model that starts with every tensor of the teacher that fits.

    A decoder that stops early also inherits the norm in front of its heads: the teacher's next block begins with it.
    """
    student = BilayerModel(config)
    mine, given = student.state_dict(), teacher.state_dict()
    mine |= {name: value for name, value in given.items() if name in mine and mine[name].shape == value.shape}
    decoder = "inference_generator.decoder"
    for name, value in given.items():
        own = name.replace(f"{decoder}.blocks.{config.inf_blocks}.norm1.", f"{decoder}.norm.")
        if own != name and mine[own].shape == value.shape:
            mine[own] = value
    student.load_state_dict(mine)
    return student


class DistillObjective:
    """Losses of the distillation: the teacher's layers, and the images of training that the teacher learnt from too."""

    def __init__(self, model: BilayerModel, teacher: BilayerModel, options: TrainOptions) -> None:
        self.model, self.teacher, self.options = model, teacher, options

    def __call__(self, clips: Clips, step: int) -> dict[str, Tensor]:
        """Named weighted losses of a batch, and their `total`; frame 0 of each clip is the source, all are driven."""
        model, teacher = self.model, self.teacher
        with torch.no_grad():
            embeddings = embed(teacher, clips)
            texture = wide(teacher.texture_generator(teacher.texture_projector(embeddings)))
            known = teacher.frame_layers(clips.keypoints, Person(texture, teacher.inference_projector(embeddings)))
            known = Layers(*map(wide, known))
        layers = model.frame_layers(clips.keypoints, Person(texture, model.inference_projector(embeddings)))
        layers = Layers(*map(wide, layers))
        with torch.no_grad():
            source = Layers(*(layer.unflatten(0, clips.images.shape[:2])[:, 0] for layer in layers))
            texture = model.texture_updater(texture, source, clips.images[:, 0], UPDATE_STEPS)[-1]
        goal_mask, shown = clips.masks.flatten(0, 1), known.mask()
        goal = masked(clips.images.flatten(0, 1), goal_mask)
        unmasked = model.unmasked(layers, texture)
        losses = {
            "delta": 20 * ((layers.delta - known.delta).abs() * shown).sum() / (2 * shown.sum()),
            "lf": ((layers.lf - known.lf).abs() * shown).sum() / (3 * shown.sum()),
            "mask": MASK_WEIGHT / 2 * F.binary_cross_entropy_with_logits(layers.logits, goal_mask)
            + MASK_WEIGHT / 2 * F.binary_cross_entropy_with_logits(layers.logits, shown),
            "image": structural_loss(masked(unmasked, goal_mask), goal),
            "composite": SQUARES_WEIGHT * F.mse_loss(masked(unmasked, layers.mask()), goal),
        }
        if clips.texture_uv is not None and self.options.uv_weight:
            losses["uv"] = self.options.uv_weight * warp_error(layers, clips.texture_uv)
        return losses | {"total": sum(losses.values())}


def embed(model: BilayerModel, clips: Clips) -> list[Tensor]:
    """Identity embeddings of frame 0 of each clip."""
    landmarks = draw_landmarks_batched(clips.keypoints[:, 0], clips.images.shape[-1])
    return model.identity_embedder(clips.images[:, :1], clips.masks[:, :1], landmarks[:, None])


def train_distill(options: TrainOptions, folder: Path, resume: bool, teacher: BilayerModel) -> BilayerModel:
    """Train a student of the family member `options.preset`; returns it in eval mode with standing statistics.

    Args:
        options: see TrainOptions; what is left open is resolved.
        folder: of the run.
        resume: go on from the folder's checkpoint if there is one.
        teacher: a finished model in eval mode with spectral norm resolved; the student has its image size.

    Raises:
        BadInput: options, data or folder do not fit; CheckFailed: the numbers became NaN or Inf.
    """
    options = replace(options, stage="distill").resolved()
    if options.losses == "thesis" or options.adversarial:
        raise BadInput("distillation learns from a teacher; leave --losses thesis, --vgg19 and --adversarial out")
    torch.manual_seed(options.seed)
    teacher = teacher.to(options.device).eval().requires_grad_(False)
    model = make_student(teacher, student_config(teacher.config, options.preset)).to(options.device).eval()
    learns: list[nn.Module] = [getattr(model, name) for name in LEARNS]
    model.requires_grad_(False)
    for part in learns:
        part.train().requires_grad_(True)
    prepare_networks([model, teacher])
    source = open_source(options, folder, model.config.image_size)
    batches = Batches(source, options, recolour_half if options.synthetic else None)
    rates = [(part, options.projector_rate if part is model.inference_projector else 1.0) for part in learns]
    part = trained(model, options.lr, options.beta1, options.clip_norm, rates)
    objective = DistillObjective(model, teacher, options)
    run = Run(folder, options, {"model": part}, resume)
    held_out = held_out_clips(options, folder, model)

    def sheet(path: Path) -> None:
        model.eval()
        write_sheet(path, model, held_out, UPDATE_STEPS)
        for part in learns:
            part.train()

    run.loop(Step(objective, [part], options.device, options.bf16), batches, sheet)
    model.load_state_dict(run.average)
    kind = torch.device(options.device).type

    def pass_through(number: int) -> None:
        clips = batches.read(number, Stream.STATISTICS)
        with torch.autocast(kind, torch.bfloat16, enabled=options.bf16):
            person = Person(clips.images, model.inference_projector(embed(model, clips)))
            model.frame_layers(clips.keypoints, person)

    standing_statistics(model.inference_generator, pass_through, min(options.standing_batches, options.steps))
    return model.eval()
