"""Spectral norm on every convolution and linear layer: present in training, resolved into plain weights elsewhere."""

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from mobile_avatar.models.bilayer.config import EPS


def add_spectral_norm(module: nn.Module) -> nn.Module:
    """Put spectral norm (one power iteration per training forward) on all layers of `module`, in place."""
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear) and not parametrize.is_parametrized(layer):
            spectral_norm(layer, eps=EPS)
    return module


def resolve_spectral_norm(module: nn.Module) -> nn.Module:
    """Replace every normalised weight by its present value, in place; exact, since evaluation never iterates."""
    was_training = module.training
    module.eval()
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")
    return module.train(was_training)
