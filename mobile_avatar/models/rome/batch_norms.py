"""Batch norms behind convolutions, merged into them: what inference and every exported file use."""

import copy

import torch
from torch import nn


@torch.no_grad()
def fold_batch_norms(module: nn.Module) -> nn.Module:
    """A frozen copy in eval mode without the batch norms that follow a convolution in a `Sequential`.

    Equal up to rounding; folding is for good, the copy is not trained further.
    """
    folded = copy.deepcopy(module).eval().requires_grad_(False)
    for layers in list(folded.modules()):
        if not isinstance(layers, nn.Sequential):
            continue
        for i, (layer, norm) in enumerate(zip(list(layers), list(layers)[1:], strict=False)):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                layers[i] = torch.nn.utils.fuse_conv_bn_eval(layer, norm)
                layers[i + 1] = nn.Identity()
    return folded
