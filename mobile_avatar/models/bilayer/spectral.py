"""Spectral norm on every convolution and linear layer: present in training, resolved into plain weights elsewhere."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mobile_avatar.models.bilayer.config import EPS

WARM_UP = 15  # iterations on a fresh layer; random vectors can give a sigma near zero


class SpectralNorm(nn.Module):
    """weight / sigma with sigma = u . (W v), one power iteration per training forward (Miyato et al., 2018).

    torch's own parametrization updates u before v; the official weights were trained v first, and with a single
    iteration the order changes sigma, so this one keeps it.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        flat = weight.detach().flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(flat.shape[0]).to(flat), dim=0, eps=EPS))
        self.register_buffer("v", F.normalize(torch.randn(flat.shape[1]).to(flat), dim=0, eps=EPS))
        for _ in range(WARM_UP):
            self.iterate(weight)

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """One power iteration."""
        flat = weight.flatten(1)
        with _full_precision(weight):
            # Out of place, so that an earlier forward of the same step keeps its vectors for the backward pass.
            self.v = F.normalize(flat.t() @ self.u, dim=0, eps=EPS)
            self.u = F.normalize(flat @ self.v, dim=0, eps=EPS)

    def forward(self, weight: Tensor) -> Tensor:
        if self.training:
            self.iterate(weight)
        with _full_precision(weight):
            return weight / torch.dot(self.u, weight.flatten(1) @ self.v)


def _full_precision(weight: Tensor) -> torch.autocast:
    """Autocast off: in bfloat16 the vectors would be stored rounded and sigma would be wrong by a percent."""
    return torch.autocast(weight.device.type, enabled=False)


def add_spectral_norm(module: nn.Module) -> nn.Module:
    """Put spectral norm on all layers of `module`, in place."""
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear) and not parametrize.is_parametrized(layer):
            parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))
    return module


def advance_spectral_norm(module: nn.Module) -> None:
    """One power iteration of every normalised layer, for modules in eval mode that nevertheless train."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer):
            for norm in layer.parametrizations.weight:
                norm.iterate(layer.parametrizations.weight.original)


def resolve_spectral_norm(module: nn.Module) -> nn.Module:
    """Replace every normalised weight by its present value, in place; exact, since evaluation never iterates."""
    was_training = module.training
    module.eval()
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")
    return module.train(was_training)
