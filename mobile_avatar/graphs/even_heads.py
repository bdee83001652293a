"""The heads' outputs brought to one range, for runtimes that give a whole tensor one integer scale."""

import copy

import numpy as np
import torch
from torch import nn

from mobile_avatar.graphs.frame_generator import PARTS, FrameGenerator, Tail


@torch.no_grad()
def even_heads(module: nn.Module, keypoints: np.ndarray) -> nn.Module:
    """A copy of a deployment graph whose one head gives warp, image and mask with the same range.

    The warp moves by hundredths while the mask before its sigmoid reaches far: in one 8-bit tensor the warp would keep
    a handful of levels. Scaling filters and undoing it later is exact to float rounding, and cheaper than a convolution
    and a resize for each.

    Args:
        module: a deployment graph; one whose generator has not got one head is returned as it is.
        keypoints: float32 (N, 136), over which the ranges are taken.
    """
    if not isinstance(module.generator, FrameGenerator) or not isinstance(module.generator.heads, nn.Conv2d):
        return module
    module = copy.deepcopy(module)
    generator, seen = module.generator, []
    handle = generator.tail.register_forward_pre_hook(lambda _, args: seen.append(args[0].abs().amax((0, 2, 3))))
    for row in torch.from_numpy(np.asarray(keypoints, np.float32)).split(1):
        generator(row)
    handle.remove()
    peaks = [part.max().clamp_min(1e-6) for part in torch.stack(seen).amax(0).split(PARTS)]
    factors = [float(peak / max(peaks)) for peak in peaks]
    gains = torch.cat([torch.full((count,), 1 / factor) for count, factor in zip(PARTS, factors, strict=True)])
    generator.heads.weight.mul_(gains[:, None, None, None])
    generator.heads.bias.mul_(gains)
    generator.tail = Tail(tuple(factors))
    return module
