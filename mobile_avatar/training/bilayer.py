"""Training the bi-layer model on a frame pool: the base networks first, then the texture updater.

Losses follow section 4 of the thesis where no downloaded network is needed; the perceptual losses are replaced by
`structural_loss`, and there is no adversarial loss here yet.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.data.clips import Clips
from mobile_avatar.keypoints.landmark_image import draw_landmarks_batched
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.models.bilayer.inference_generator import masked
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.models.bilayer.projector import Projector
from mobile_avatar.models.bilayer.spectral import add_spectral_norm, resolve_spectral_norm
from mobile_avatar.training.losses import structural_loss, total_variation
from mobile_avatar.training.pool import FramePool, PoolSpec
from mobile_avatar.training.run import Run, TrainOptions
from mobile_avatar.training.sheet import write_sheet

STANDING_BATCHES = 40
MOMENTUM = 0.1  # the official 1.0 makes every picture taken during training depend on a single batch
UPDATE_STEPS = 4
PROJECTOR_RATE = 0.1  # they read each pixel of an embedding sixteen times, so their steps count that much more
LOW = 8  # pixels over which the goal of the low-frequency layer is averaged


def train_base(options: TrainOptions, folder: Path, resume: bool, start: BilayerModel | None = None) -> BilayerModel:
    """Train everything but the updater; returns the averaged model in eval mode with standing statistics.

    `start` goes on from an earlier model instead of random weights.
    """
    torch.manual_seed(options.seed)
    model = (start or BilayerModel(PRESETS[options.preset])).to(options.device)
    model.texture_updater.requires_grad_(False)
    if options.spectral_norm:
        add_spectral_norm(model)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = MOMENTUM
    pool = _pool(model, options, folder)
    rates = [(part, PROJECTOR_RATE if isinstance(part, Projector) else 1.0) for part in model.children()]
    run = Run(folder, options, model, rates, resume)
    model.to(memory_format=torch.channels_last).train()

    held_out = _held_out(options, pool)

    def sheet(path: Path) -> None:
        model.eval()
        write_sheet(path, model, held_out)
        model.train()

    run.loop(lambda: _autocast(options, base_losses, model, _batch(run, pool)), sheet)
    model.load_state_dict(run.averaged())
    standing_statistics(model, lambda: _forward(model, _batch(run, pool)))
    return resolve_spectral_norm(model.eval())


def base_losses(model: BilayerModel, clips: Clips) -> dict[str, Tensor]:
    """Losses of one step: frame 0 of each clip is the source, all frames are driven.

    Synthetic frames know where each pixel lies in the texture, so the warp is supervised directly; without that, it
    has to be discovered through the images, which takes many times as long.
    """
    person, layers = _forward(model, clips)
    goal_mask = clips.masks.flatten(0, 1)
    goal = masked(clips.images.flatten(0, 1), goal_mask)
    blurred = F.interpolate(F.avg_pool2d(goal, LOW), scale_factor=float(LOW), mode="bilinear")
    losses = {
        "structural": structural_loss(masked(model.unmasked(layers, person.texture), goal_mask), goal),
        "lf": 0.3 * F.l1_loss(masked(layers.lf, goal_mask), blurred),
        "mask": F.binary_cross_entropy_with_logits(layers.logits, goal_mask),
        "smooth": 0.1 * total_variation(layers.delta),
    }
    if clips.texture_uv is not None:
        known = clips.texture_uv.flatten(0, 1)
        seen = ~known.isnan()
        error = (layers.uv().permute(0, 3, 1, 2) - known.nan_to_num()).abs() * seen
        losses["uv"] = 4 * error.sum() / seen.sum()
    return losses | {"total": sum(losses.values())}


def train_updater(options: TrainOptions, folder: Path, model: BilayerModel, resume: bool) -> BilayerModel:
    """Train the texture updater of a finished model, unrolled over its steps; the rest stays frozen in eval mode."""
    torch.manual_seed(options.seed)
    model = model.to(options.device).eval().requires_grad_(False)
    updater = model.texture_updater.requires_grad_(True)
    pool = _pool(model, options, folder)
    run = Run(folder, options, updater, [(updater, 1.0)], resume)
    held_out = _held_out(options, pool)
    run.loop(
        lambda: _autocast(options, updater_losses, model, _batch(run, pool)),
        lambda path: write_sheet(path, model, held_out, UPDATE_STEPS),
    )
    updater.load_state_dict(run.averaged())
    return model


def updater_losses(model: BilayerModel, clips: Clips) -> dict[str, Tensor]:
    """Reconstruction of the source and of other frames behind every update, later updates counting more."""
    clips = recolour(clips)
    with torch.no_grad():
        person, layers = _forward(model, clips)
    b, n = clips.images.shape[:2]
    first = torch.arange(b, device=clips.images.device) * n
    source = type(layers)(*(layer[first] for layer in layers))
    goal_mask = clips.masks.flatten(0, 1)
    goal = masked(clips.images.flatten(0, 1), goal_mask)
    textures = model.texture_updater(person.texture, source, clips.images[:, 0], UPDATE_STEPS)
    losses = {}
    for i, texture in enumerate(textures):
        image = masked(model.unmasked(layers, texture), goal_mask)
        losses[f"update{i + 1}"] = structural_loss(image, goal) * (i + 1) / len(textures)
    losses["squares"] = F.mse_loss(image[first], goal[first])
    losses["range"] = F.relu(textures[-1].abs() - 1.5).mean()
    return losses | {"total": sum(losses.values())}


def recolour(clips: Clips) -> Clips:
    """Random colour transform per person, the same in all frames: residuals as large as those of real photos."""
    b, device = clips.images.shape[0], clips.images.device
    matrix = torch.eye(3, device=device) + 0.15 * torch.randn(b, 3, 3, device=device)
    shift = 0.2 * torch.randn(b, 1, 3, 1, 1, device=device)
    gain = torch.empty(b, 1, 1, 1, 1, device=device).uniform_(0.6, 1.3)
    images = torch.einsum("bij,bnjhw->bnihw", matrix, clips.images) * gain + shift
    return replace(clips, images=images.clamp(-1, 1))


@torch.no_grad()
def standing_statistics(model: nn.Module, forward: Callable[[], object]) -> None:
    """Replace every batch norm's running statistics by averages over training batches with the present weights."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    for _ in range(STANDING_BATCHES):
        forward()
    model.eval()


def _forward(model: BilayerModel, clips: Clips) -> tuple:
    """Person from frame 0 of each clip, layers of all frames."""
    landmarks = draw_landmarks_batched(clips.keypoints[:, 0], clips.images.shape[-1])
    person = model.person(clips.images[:, :1], clips.masks[:, :1], landmarks[:, None])
    layers = model.frame_layers(clips.keypoints, person)
    # Under autocast the networks end in bfloat16; coordinates and losses need more.
    return person, type(layers)(*(layer.float() for layer in layers))


def _batch(run: Run, pool: FramePool) -> Clips:
    """The next batch of a run: a source and its targets for every person."""
    options = run.options
    return pool.load(pool.draw(run.generator, options.batch_size, options.targets + 1), options.device)


def _autocast(options: TrainOptions, losses: Callable, model: BilayerModel, clips: Clips) -> dict[str, Tensor]:
    with torch.autocast(options.device.split(":")[0], torch.bfloat16, enabled=options.bf16):
        return losses(model, clips)


def _pool(model: BilayerModel, options: TrainOptions, folder: Path) -> FramePool:
    size = model.config.image_size
    pool = FramePool(Path(folder).parent / f"pool-{size}", PoolSpec(size, options.identities, options.frames))
    pool.fill(options.device)
    return pool


def _held_out(options: TrainOptions, pool: FramePool) -> Clips:
    from mobile_avatar.data.synthetic import SyntheticHeads

    batch = SyntheticHeads(pool.spec.image_size, "test").sample([0, 1, 2, 3], 4, device=options.device)
    return Clips(batch.images, batch.masks, batch.keypoints, batch.texture_uv)
