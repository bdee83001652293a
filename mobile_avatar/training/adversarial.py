"""The discriminator in training: relativistic average hinge loss and feature matching (thesis section 4)."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from mobile_avatar.files import replace_file
from mobile_avatar.models.bilayer.config import BilayerConfig
from mobile_avatar.models.bilayer.discriminator import Discriminator
from mobile_avatar.models.bilayer.spectral import add_spectral_norm
from mobile_avatar.models.bilayer.weights import load_state, read_safetensors
from mobile_avatar.training.distributed import mean_over_processes
from mobile_avatar.training.losses import wide

FORMAT, VERSION = "mobile-avatar-discriminator", 1


def relativistic_hinge(better: Tensor, worse: Tensor) -> Tensor:
    """Every `better` score should be at least 1 above the mean of `worse`, and the other way round -> scalar.

    The means are over the whole batch, of all processes (Jolicoeur-Martineau, 2019).
    """
    mean_better, mean_worse = (mean_over_processes(scores.mean()) for scores in (better, worse))
    return F.relu(1 - (better - mean_worse)).mean() + F.relu(1 + (worse - mean_better)).mean()


def adversarial_losses(discriminator: nn.Module, fake: Tensor, real: Tensor, landmarks: Tensor) -> dict[str, Tensor]:
    """Unweighted `discriminator`, `adversarial` and `matching` losses of images (N, 3, S, S) and their landmark images.

    The discriminator runs twice, as officially: on the detached fakes for its own loss, and with its parameters out of
    the graph for the generator's. Any number of frames per person will do: nothing is split by person.
    """
    n = len(fake)

    def judge(images: Tensor) -> tuple[Tensor, list[Tensor]]:
        # One batch, real first: its batch statistics mix both.
        scores, features = discriminator(torch.cat([real, images]), landmarks.repeat(2, 1, 1, 1))
        return wide(scores), [wide(feature) for feature in features]

    scores, _ = judge(fake.detach())
    own = relativistic_hinge(scores[:n], scores[n:])
    real_scores = scores[:n].detach()
    with frozen(discriminator):
        scores, features = judge(fake)
    matching = sum(F.l1_loss(feature[n:], feature[:n].detach()) for feature in features) / len(features)
    return {
        "discriminator": own,
        "adversarial": relativistic_hinge(scores[n:], real_scores),
        "matching": matching,
    }


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Keep the parameters out of the graph that is built inside; restored before anybody calls backward.

    (The official code never restores them, so its discriminator gets no gradient at all.)
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def make_discriminator(config: BilayerConfig) -> Discriminator:
    """A fresh discriminator under spectral norm, in training mode."""
    return add_spectral_norm(Discriminator(config)).train()


def save_discriminator(discriminator: Discriminator, config: BilayerConfig, path: Path) -> None:
    """Write it atomically, spectral norm included, for a later stage to go on with."""
    state = {key: value.detach().cpu().contiguous() for key, value in discriminator.state_dict().items()}
    metadata = {"format": FORMAT, "version": str(VERSION), "config": json.dumps(config.to_dict())}
    with replace_file(Path(path)) as temporary:
        save_file(state, temporary, metadata)


def load_discriminator(config: BilayerConfig, path: Path) -> Discriminator:
    """The discriminator of an earlier stage; BadInput where it does not fit `config`."""
    discriminator = make_discriminator(config)
    _, state = read_safetensors(Path(path), FORMAT, VERSION, "discriminator", "move it away to start with a new one")
    load_state(discriminator, state, Path(path))
    return discriminator
