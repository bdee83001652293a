"""What the processes of the data-parallel tests do; in a module of its own, so that spawned processes can import it."""

import os
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from mobile_avatar.data.clips import Clips
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.models.bilayer.spectral import add_spectral_norm
from mobile_avatar.training import sources
from mobile_avatar.training.adversarial import make_discriminator
from mobile_avatar.training.base import BaseObjective, prepare_networks, train_base
from mobile_avatar.training.batches import Batches
from mobile_avatar.training.distributed import share, synchronise_batch_norms
from mobile_avatar.training.step import Step, trained
from mobile_avatar.training.updater import UpdaterObjective, recolour
from tests.models.bilayer.official import random_model
from tests.training.conftest import OPTIONS, MadeUp

PEOPLE = 4
TINY = PRESETS["tiny"]


def run(rank: int, world: int, place: str) -> None:
    """Everything, in process `rank` of `world`; results go to `place`/WORLD.pt."""
    torch.set_num_threads(1)
    sources.SOURCES["made-up"] = lambda options, folder, size, split: MadeUp()
    if world > 1:
        os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "29617"}
        dist.init_process_group("gloo", rank=rank, world_size=world)
    result = {"norm": batch_norm(), "base": base_gradients(), "updater": updater_gradients()}
    options = replace(OPTIONS, batch_size=PEOPLE, steps=2, adversarial=True)
    train_base(options, Path(place) / f"run{world}", resume=False)
    if world > 1:
        dist.destroy_process_group()
    if rank == 0:
        torch.save(result, Path(place) / f"{world}.pt")


def batch_norm() -> list[torch.Tensor]:
    """Output, gradients and statistics of two batch norms on this process's share; the outputs of its first sample."""
    torch.manual_seed(0)
    x = (3 + torch.randn(PEOPLE, 3, 5, 5)) * torch.tensor([1.0, 10, 0.1]).view(3, 1, 1)
    mine = x[share(PEOPLE)].requires_grad_()
    layers = nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3, affine=False, momentum=0.3))
    with torch.no_grad():
        layers[0].weight.copy_(torch.tensor([1.0, -2, 0.5]))
    if dist.is_initialized():
        synchronise_batch_norms(layers)
    for _ in range(2):
        y = layers(mine)
    weights = torch.arange(y.numel() // len(y)).view(y.shape[1:]).sin()
    (weights * y.square()).mean().backward()
    gradient = mine.grad[:1] / (dist.get_world_size() if dist.is_initialized() else 1)
    return [y[:1].detach(), gradient, *(value.clone() for value in layers.buffers())]


def base_gradients() -> dict[str, object]:
    """Losses and gradients of a step with all that looks at the whole batch: batch norms, hinge, supervised warp."""
    torch.manual_seed(0)
    options = replace(OPTIONS, batch_size=PEOPLE, adversarial=True, warp_weight=1.0).resolved()
    model = add_spectral_norm(BilayerModel(TINY)).train()
    model.texture_updater.requires_grad_(False)
    judge = make_discriminator(TINY)
    prepare_networks([model.double(), judge.double()])
    parts = [trained(network, 1e-3, 0.5, 0.0) for network in (model, judge)]
    step = Step(BaseObjective(model, options, judge), parts)
    losses = step.gradients(_double(Batches(MadeUp(), options).read(0)), 0)
    return {"losses": losses, "gradients": _gradients(model, judge)}


def updater_gradients() -> dict[str, object]:
    """The same of the updater stage, with colours drawn for the whole batch."""
    options = replace(OPTIONS, batch_size=PEOPLE, stage="updater").resolved()
    model = random_model(TINY).requires_grad_(False)
    model.texture_updater.requires_grad_(True)
    prepare_networks([model.double()])
    step = Step(UpdaterObjective(model, options), [trained(model.texture_updater, 1e-3, 0.5, 0.0)])
    losses = step.gradients(_double(Batches(MadeUp(), options, recolour).read(0)), 0)
    return {"losses": losses, "gradients": _gradients(model.texture_updater)}


def _double(clips: Clips) -> Clips:
    """In float64, so that rounding moves no activation over the kink of its leaky ReLU."""
    return Clips(clips.images.double(), clips.masks.double(), clips.keypoints.double(), clips.texture_uv)


def _gradients(*networks: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for network in networks for p in network.parameters() if p.grad is not None]
