"""Standing statistics: batch norms that hold averages over many training batches with the final weights."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def standing_statistics(model: nn.Module, forward: Callable[[int], object], batches: int) -> None:
    """Replace the running statistics of every batch norm by their averages over `batches` calls of forward(number).

    Mean and unbiased variance of each batch are averaged; power iterations rest. (The official code means to do this
    before every test, but puts its batch norms to sleep first, and nothing changes.) Leaves the model in eval mode.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    for number in range(batches):
        forward(number)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
