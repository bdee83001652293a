"""Distillation of ROME's rendering network: a compact renderer learns to show what the U-Net of a finished model shows.

The student is the renderer with a texture encoder of its own, which starts as the teacher's; mesh and codes are the
teacher's and frozen. A share of what it should show are the true pictures, and the photo's colours are in its textures:
where the teacher is wrong or blurred it need not be.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.appearance import Appearance
from mobile_avatar.models.rome.appearance_weights import load_appearance, save_appearance
from mobile_avatar.models.rome.compact_renderer import CompactConfig
from mobile_avatar.models.rome.networks import RomeNetworks
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.training.base import prepare_networks
from mobile_avatar.training.batches import Batches, Stream
from mobile_avatar.training.distributed import is_first
from mobile_avatar.training.losses import structural_loss
from mobile_avatar.training.rome import SURE, facts
from mobile_avatar.training.rome_augment import recoloured
from mobile_avatar.training.rome_heads import RomeClips, open_pool, unseen_clips
from mobile_avatar.training.rome_losses import dice_loss
from mobile_avatar.training.rome_person import per_frame
from mobile_avatar.training.rome_renderer_options import RendererTrainOptions
from mobile_avatar.training.rome_renderer_sheet import write_renderer_sheet
from mobile_avatar.training.rome_renderer_teacher import Teacher, invented_codes
from mobile_avatar.training.rome_sheet import SHEET_FRAMES, SHEET_PEOPLE
from mobile_avatar.training.run import Run
from mobile_avatar.training.statistics import standing_statistics
from mobile_avatar.training.step import Step, trained

RENDERER_FILE = "renderer.safetensors"
COLOUR_WEIGHT, MASK_WEIGHT = 5.0, 2.0
ENCODER_RATE = 0.5
"""Factor on the learning rate of the texture encoder, which has learnt before."""


class RendererObjective:
    """Losses of the distillation, in all frames of a batch and in invented ones.

    Args:
        teacher: frozen.
        student: in training.
        invented: frames per person with random codes; for these there is no true picture.
        true_share: of the true pictures in the total, the rest is the teacher's.
    """

    def __init__(self, teacher: Teacher, student: Appearance, invented: int, true_share: float) -> None:
        self.teacher, self.student, self.true_share = teacher, student, true_share
        self.invented = invented if true_share < 1 else 0  # of which there is no truth

    def __call__(self, clips: RomeClips, step: int) -> dict[str, Tensor]:
        """Named weighted losses of a batch, and their `total`."""
        person, shown = self.teacher.person(clips), clips.images.shape[1]
        texture = self.student.texture(*self.teacher.sources(clips, person))
        people, codes, textures = [per_frame(person, shown)], [clips.codes()], [texture.repeat_interleave(shown, 0)]
        if self.invented:
            people.append(per_frame(person, self.invented))
            codes.append(invented_codes(clips, self.invented))
            textures.append(texture.repeat_interleave(self.invented, 0))
        lesson = self.teacher(_joined(people), _joined(codes), pictures=self.true_share < 1)
        image, mask = self.student(lesson.features(torch.cat(textures)))
        losses = {}
        if self.true_share < 1:
            taught = differences(image, mask, lesson.image, lesson.mask)
            losses = {name: (1 - self.true_share) * loss for name, loss in taught.items()}
        goal, goal_mask = clips.images.flatten(0, 1), clips.masks.flatten(0, 1)
        true = differences(image[: len(goal)], mask[: len(goal)], goal, goal_mask)
        losses |= {f"true_{name}": self.true_share * loss for name, loss in true.items()}
        return losses | {"total": sum(losses.values())}


def differences(image: Tensor, mask: Tensor, goal: Tensor, goal_mask: Tensor) -> dict[str, Tensor]:
    """Named weighted losses of pictures (n, 3, S, S) and masks (n, 1, S, S) in [0, 1].

    Colours count inside the goal's mask only; for the structure both stand on the same random colour, cut out alike.
    """
    colour = torch.rand(len(image), 3, 1, 1).to(image.device)
    inside = (image - goal).abs() * goal_mask
    return {
        "colour": COLOUR_WEIGHT * inside.sum() / (3 * goal_mask.sum()).clamp(min=1),
        "picture": structural_loss(*(2 * (colour + goal_mask * (part - colour)) - 1 for part in (image, goal))),
        "mask": MASK_WEIGHT * (mask - goal_mask).abs().mean(),
        "dice": MASK_WEIGHT * dice_loss(torch.logit(mask, SURE), goal_mask),
    }


def _joined(parts: list) -> object:
    """Dataclasses of tensors (n, ...) one behind the other."""
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return type(parts[0])(*(None if column[0] is None else torch.cat(column) for column in columns))


def _student(networks: RomeNetworks, config: CompactConfig, earlier: str | None) -> tuple[Appearance, dict[str, str]]:
    """A fresh renderer and the teacher's texture encoder, or what an earlier run made with the facts of its file."""
    student = Appearance(networks.config, config)
    if earlier is None:
        student.texture_encoder.load_state_dict(networks.part("texture_encoder").state_dict())
        student.leave_colours()
        return student, {}
    before, facts = load_appearance(Path(earlier))
    known = replace(before.config, frame_size=networks.config.frame_size)
    if known != networks.config or replace(before.renderer.config, image_size=config.image_size) != config:
        raise BadInput(f"{earlier} was made for other networks or has another --width; leave --renderer out")
    # Convolutions take pictures of any size.
    student.load_state_dict(before.state_dict())
    return student, facts


def train_renderer(
    options: RendererTrainOptions, folder: Path, resume: bool, networks: RomeNetworks, told: dict[str, str]
) -> Appearance:
    """Train a compact renderer and its texture encoder; returns the averaged ones in eval mode with standing
    statistics, not folded.

    `renderer.safetensors` in the folder holds them from the first contact sheet on.

    Args:
        options: see RendererTrainOptions; what is left open is resolved.
        folder: of the run.
        resume: go on from the folder's checkpoint if there is one.
        networks: the teacher's, with a texture encoder.
        told: facts of its file; the student has its licence.

    Raises:
        BadInput: options, networks, data or folder do not fit; CheckFailed: the numbers became NaN or Inf.
    """
    options = options.resolved()
    torch.manual_seed(options.seed)
    config, device = options.config(networks.config.image_size), options.device
    teacher = Teacher(networks, synthetic_head(), config.image_size).to(device)
    student, before = _student(networks, config, options.renderer)
    student.train().to(device)
    prepare_networks([student])
    pool = open_pool(options, folder, config.image_size, photos_first=True)
    batches = Batches(pool, options, recoloured)
    objective = RendererObjective(teacher, student, options.invented, options.true_share)
    rates = ((student.texture_encoder, ENCODER_RATE), (student.renderer, 1.0))
    part = trained(student, options.lr, options.beta1, options.clip_norm, rates)
    averaged = Appearance(networks.config, config).eval().requires_grad_(False).to(device)
    run = Run(folder, options, {"model": part}, resume)  # last: it puts the random numbers where they were
    held_out = unseen_clips(config.image_size, SHEET_PEOPLE, SHEET_FRAMES, device) if is_first() else None

    def keep(appearance: Appearance) -> None:
        own = facts(options, run.step, (before or told).get("trained_on", ""))
        own["license"] = told.get("license", "unknown")
        save_appearance(appearance, Path(folder) / RENDERER_FILE, told | own)

    def sheet(path: Path) -> None:
        averaged.load_state_dict(run.average)
        write_renderer_sheet(path, teacher, averaged, held_out)
        keep(averaged)

    run.loop(Step(objective, [part], device), batches, sheet)
    student.load_state_dict(run.average)
    standing_statistics(
        student,
        lambda number: objective(batches.read(number, Stream.STATISTICS), 0),
        min(options.standing_batches, options.steps),
    )
    if is_first():
        keep(student)
    return student.cpu()
