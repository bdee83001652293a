"""A short animation for a mesh file: the mouth opens and closes, with everything that belongs to it.

Viewers turn joints and weight morph targets, but none derives the one from the other as the jaw's correctives need it;
an animation carries both, so the mouth looks right in any viewer, and shows whoever scripts the file how it is done.
"""

from collections.abc import Sequence

import numpy as np
import torch

from mobile_avatar.models.rome.parametric import rotation_matrices
from mobile_avatar.rendering.glb import GlbWriter

OPENING = 0.32  # radians
SECONDS, STEPS = 2.0, 16  # keyframes are joined by straight lines: enough of them for the cosine
NAME = "jaw_open"


def add_jaw_motion(writer: GlbWriter, jaw_node: int, targets: Sequence[str], correctives: Sequence[str]) -> None:
    """Add the animation.

    Args:
        jaw_node: number of the joint's node.
        targets: names of all morph targets, in order; those of the mesh of node 0.
        correctives: those of them that follow the jaw; their names end in row and column of the rotation matrix.
    """
    from pygltflib import Animation, AnimationChannel, AnimationChannelTarget, AnimationSampler

    times = np.linspace(0, SECONDS, STEPS + 1, dtype=np.float32)
    angles = OPENING * (1 - np.cos(2 * np.pi * times / SECONDS)) / 2
    zero = np.zeros_like(angles)
    turns = rotation_matrices(torch.from_numpy(np.stack((angles, zero, zero), axis=1))).numpy() - np.eye(3)
    weights = np.zeros((len(times), len(targets)), dtype=np.float32)
    for name in correctives:
        weights[:, targets.index(name)] = turns[:, int(name[-2]), int(name[-1])]
    quaternions = np.stack((np.sin(angles / 2), zero, zero, np.cos(angles / 2)), axis=1).astype(np.float32)
    begin = writer.array(times)
    samplers = [
        AnimationSampler(input=begin, output=writer.array(values), interpolation="LINEAR")
        for values in (quaternions, weights.reshape(-1))
    ]
    channels = [
        AnimationChannel(sampler=number, target=AnimationChannelTarget(node=node, path=path))
        for number, (node, path) in enumerate(((jaw_node, "rotation"), (0, "weights")))
    ]
    writer.document.animations.append(Animation(name=NAME, samplers=samplers, channels=channels))
