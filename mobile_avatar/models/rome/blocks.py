"""Layers that ROME's convolutional networks share: weight-standardised convolutions, group norms, and their folding."""

import copy

import torch
from torch import Tensor, nn

EPS = 1e-5  # of group norms, and added to (not inside) the standard deviation of filters


def standardise(weight: Tensor) -> Tensor:
    """Filters (O, I, kh, kw) with zero mean and a standard deviation of one (Qiao et al., 2019).

    The deviation is the unbiased one plus 1e-5. The mean is taken axis by axis: the order of additions matters in the
    last bits, and this is the one the released weights were trained with.
    """
    centred = weight - weight.mean(1, keepdim=True).mean(2, keepdim=True).mean(3, keepdim=True)
    return centred / (centred.flatten(1).std(1) + EPS).view(-1, 1, 1, 1)


class StandardisedConv(nn.Conv2d):
    """Convolution without bias whose filters are standardised at every use; the stored weight is the free one."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, standardise(self.weight), None)


def norm(channels: int, groups: int) -> nn.GroupNorm:
    """Group norm with so many groups, or with one per channel where there are fewer channels."""
    return nn.GroupNorm(min(groups, channels), channels, eps=EPS)


@torch.no_grad()
def fold_standardisation(module: nn.Module) -> nn.Module:
    """A copy of `module` with plain convolutions that hold the standardised filters: what is exported.

    Outputs are equal to the last bit. Folding is for good: a folded network is not trained and not stored as weights.
    """
    folded = copy.deepcopy(module)
    for name, layer in list(folded.named_modules()):
        if not isinstance(layer, StandardisedConv):
            continue
        plain = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, padding=layer.padding, bias=False, device="meta"
        )
        plain.weight = nn.Parameter(standardise(layer.weight), requires_grad=False)
        parent, _, child = name.rpartition(".")
        setattr(folded.get_submodule(parent), child, plain.train(layer.training))
    return folded
