"""One official training step, with the code that trains: losses, gradients, buffers, parameters behind Adam."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.data.clips import Clips
from mobile_avatar.models.bilayer.adaptive import AdaptiveBatchNorm, AdaptiveSpade
from mobile_avatar.models.bilayer.convert_official import convert, network_pairs
from mobile_avatar.models.bilayer.discriminator import Discriminator
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.models.bilayer.official_runs import BASE_NETWORKS, find_runs, import_official, read_checkpoint
from mobile_avatar.models.bilayer.spectral import add_spectral_norm
from mobile_avatar.training.base import BaseObjective
from mobile_avatar.training.options import TrainOptions
from mobile_avatar.training.perceptual import load_perceptual
from mobile_avatar.training.step import Step, trained

NAMES = {
    "D_ADV": "discriminator",
    "G_ADV": "adversarial",
    "G_FM": "matching",
    "G_VGG19": "vgg19",
    "G_VGGFace": "vggface",
    "G_L1": "lf",
    "G_BCE": "mask",
    "G_WPR": "warp",
    "total": "total",
}


# Biases in front of a batch norm change nothing; what is stored as their gradient is rounding.
NOISE = 1e-3


def dead(name: str) -> bool:
    """The half block behind the last embedding: officially there, connected to nothing (ours leaves it out)."""
    return name.startswith(
        ("identity_embedder.net.dec_blocks.3.block.0.", "identity_embedder.net.dec_blocks.3.skip.0.")
    )


class Golden:
    """The official small run, loaded for training, and one step made from the stored batch."""

    def __init__(self, folder: Path) -> None:
        runs = find_runs(folder / "runs")
        config = import_official(runs)[0].config
        self.model = add_spectral_norm(BilayerModel(config)).train()
        self.discriminator = add_spectral_norm(Discriminator(config)).train()
        state, self.plain, self.plain_discriminator = (
            self.model.state_dict(),
            BilayerModel(config),
            Discriminator(config),
        )
        for network in BASE_NETWORKS:
            state |= convert(read_checkpoint(runs.files[network]), self.plain, network, network, True)
        self.model.load_state_dict(state)
        self.discriminator.load_state_dict(
            convert(read_checkpoint(runs.files["discriminator"]), self.plain_discriminator, "discriminator", "D", True)
        )
        self.model.texture_updater.requires_grad_(False)
        networks = folder / "pretrained_weights" / "perceptual"
        options = TrainOptions(
            vgg19=str(networks / "vgg19_imagenet_pytorch.pth"),
            vggface=str(networks / "vgg16_face_caffe.pth"),
            warp_weight=0.1,
            device="cpu",
        ).resolved()
        perceptual = load_perceptual({"vgg19": options.vgg19, "vggface": options.vggface}, "cpu")
        self.case = {key: torch.as_tensor(value) for key, value in np.load(folder / "train_step.npz").items()}
        parts = [
            trained(network, options.lr, options.beta1, options.clip_norm)
            for network in (self.model, self.discriminator)
        ]
        step = Step(BaseObjective(self.model, options, self.discriminator, perceptual), parts)
        self.before = self.official_parameters()
        self.losses = step.gradients(self.clips(), 0)
        self.gradients = {name: p.grad for name, p in self.official_tensors().items()}
        self.buffers = {name: value.clone() for name, value in self.official_buffers().items()}
        step.update()

    def clips(self) -> Clips:
        """Source and target as the two frames of a clip."""
        case = self.case
        parts = ([case[f"in.{word}_{kind}"] for word in ("source", "target")] for kind in ("imgs", "segs", "poses"))
        return Clips(*(torch.cat(pair, dim=1) for pair in parts))

    def layers(self) -> dict[str, nn.Module | Tensor]:
        """Official name of a layer -> ours."""
        found = {}
        for network in (*BASE_NETWORKS, "discriminator"):
            is_judge = network == "discriminator"
            holder = self.discriminator if is_judge else self.model
            for official, path in network_pairs(self.plain_discriminator if is_judge else self.plain, network):
                parent, _, name = path.rpartition(".")
                found[f"{network}.{official}"] = getattr(holder.get_submodule(parent), name)
        return found

    def official_tensors(self) -> dict[str, Tensor]:
        """Parameters by their official names."""
        found = {}
        for name, layer in self.layers().items():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                found |= {f"{name}.bias": layer.bias, f"{name}.weight_orig": layer.parametrizations.weight.original}
            elif isinstance(layer, AdaptiveSpade):
                found[f"{name}.pixel_feats"] = layer.pixel_features
            elif isinstance(layer, nn.BatchNorm2d):
                found |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
            elif isinstance(layer, Tensor):
                found[name] = layer
        return found

    def official_parameters(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.official_tensors().items()}

    def official_buffers(self) -> dict[str, Tensor]:
        found = {}
        for name, layer in self.layers().items():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                found[f"{name}.weight_u"] = layer.parametrizations.weight[0].u
            elif isinstance(layer, AdaptiveSpade | AdaptiveBatchNorm):
                found |= {f"{name}.norm_layer.{k}": v for k, v in layer.stats.state_dict().items()}
            elif isinstance(layer, nn.BatchNorm2d):
                found |= {f"{name}.{k}": v for k, v in layer.state_dict().items()}
        return found

    def stored(self, kind: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{kind}."): value for key, value in self.case.items() if key.startswith(f"{kind}.")}


# Where the step is not differentiable and rounding decides: of 1.4 million activations and differences these lie so
# near their kink that the official run saw the other sign than we do, and one such element alone moves the gradients
# behind it by up to 1 %. (call of the function, element) -> the official side.
LEAKY_RELU_SIDES = {(34, 19566): 1, (36, 177566): 1}
L1_SIDES = {(12, 16225): -1}


def take_sides(patch: pytest.MonkeyPatch) -> None:
    """Give the derivative of the official side at the elements above; values stay as they are."""
    leaky_relu, l1_loss = F.leaky_relu, F.l1_loss
    calls = {"leaky_relu": 0, "l1": 0}

    def masks(name: str, x: Tensor, sides: dict) -> Tensor:
        number = calls[name]
        calls[name] += 1
        change = torch.zeros(x.numel())
        for (call, element), side in sides.items():
            if call == number:
                value = x.detach().flatten()[element]
                assert value.abs() < 1e-5 * x.std(), "not at the kink: something else differs"
                change[element] = (side - value.sign()) / 2
        return change.view_as(x)

    def patched_relu(x: Tensor, slope: float) -> Tensor:
        other = masks("leaky_relu", x, LEAKY_RELU_SIDES) * (1 - slope) * x
        return leaky_relu(x, slope) + (other - other.detach())

    def patched_l1(a: Tensor, b: Tensor) -> Tensor:
        other = (masks("l1", a - b, L1_SIDES) * 2 * (a - b)).sum() / a.numel()
        return l1_loss(a, b) + (other - other.detach())

    patch.setattr(F, "leaky_relu", patched_relu)
    patch.setattr(F, "l1_loss", patched_l1)


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    with pytest.MonkeyPatch.context() as patch:
        take_sides(patch)
        return Golden(shared / "parity" / "bilayer")


def test_losses(golden):
    stored = golden.stored("loss")
    assert stored.keys() == NAMES.keys()
    assert golden.losses.keys() == {*NAMES.values(), "gradient"}
    for official, ours in NAMES.items():
        assert golden.losses[ours] == pytest.approx(stored[official].item(), rel=1e-6), official


def test_every_gradient_has_the_official_norm(golden):
    """The discriminator's too: the official code drops them by mistake, the stored run has that mended."""
    norms = golden.stored("gradnorm")
    assert {name for name, gradient in golden.gradients.items() if gradient is None} == set()
    assert {name for name in norms if not dead(name)} == set(golden.gradients)
    for name, stored in norms.items():
        if dead(name):
            continue
        ours = golden.gradients[name].double().norm().item()
        if stored < NOISE:
            assert name.endswith(".bias"), name
            assert ours < 2 * NOISE, name
        else:
            assert ours == pytest.approx(stored.item(), rel=1e-4), name


def test_full_gradients(golden):
    for name, stored in golden.stored("grad").items():
        assert (golden.gradients[name] - stored).norm() < 1e-4 * stored.norm(), name


def test_buffers(golden):
    """Power iterations and last-batch statistics, after two passes through the discriminator."""
    compared = 0
    for name, stored in golden.stored("buf").items():
        if not dead(name):
            torch.testing.assert_close(golden.buffers[name], stored, rtol=1e-5, atol=1e-5)
            compared += 1
    assert compared > 200


def test_parameters_after_adam(golden):
    """Adam's first step is the rate times the sign of the gradient, so where that is noise it may go either way."""
    now = golden.official_parameters()
    for name, stored in golden.stored("after").items():
        gradient = golden.case[f"grad.{name}"]
        clear = gradient.abs() > 1e-3 * gradient.abs().max()
        torch.testing.assert_close(now[name][clear], stored[clear], rtol=0, atol=1e-6)
        assert ((stored - golden.before[name]).abs()[clear] > 1e-4).all(), "Adam moved them"
        assert clear.float().mean() > 0.9, name
