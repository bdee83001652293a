"""Whether a mesh file moves as the head does: read back, posed by the format's rules, compared with the head."""

import numpy as np
import torch

from mobile_avatar.models.rome.camera import turn
from mobile_avatar.models.rome.mesh_rig import Rig
from mobile_avatar.models.rome.parametric import rotation_matrices
from mobile_avatar.rendering.rigged_mesh import RiggedMesh

TOLERANCE = 1e-5
"""Largest distance allowed, in the head's unit (metres)."""
POSES = 8
EXPRESSION, ROTATION = 1.0, 0.4  # standard deviations of the poses


def jaw_pose(mesh: RiggedMesh, expression: np.ndarray, whole: np.ndarray, jaw: np.ndarray) -> tuple:
    """Arguments for `RiggedMesh.posed`: what a program that follows the file's `extras` computes.

    Args:
        expression: (e,) coefficients. whole, jaw: (3, 3) rotations of the head and of the jaw.

    Returns:
        weights (m,), rotations (j, 3, 3), drift (j, 3).
    """
    rules = mesh.extras["mesh"]["jaw_correctives"]
    change = jaw - np.eye(3)
    weights = [change[rules[name]["row"], rules[name]["column"]] for name in mesh.targets[len(expression) :]]
    rotations = np.tile(np.eye(3), (len(mesh.joints), 1, 1))
    rotations[0], rotations[mesh.joints.index("jaw")] = whole, jaw
    drift = np.tensordot(np.asarray(mesh.extras["skin"]["joint_offsets"]), expression, (0, 0))
    return np.concatenate((expression, weights)), rotations, drift


@torch.no_grad()
def largest_distance(mesh: RiggedMesh, rig: Rig, poses: int = POSES, seed: int = 0) -> tuple[float, float]:
    """The largest distance of a vertex from where the head has it, over random expressions, jaws and head rotations.

    Returns:
        For a program that follows `extras`, and for one that lets the joints rest whatever the expression.
    """
    generator = torch.Generator().manual_seed(seed)
    expression = torch.randn(poses, len(rig.expression_names), generator=generator) * EXPRESSION
    pose = torch.randn(poses, 6, generator=generator) * ROTATION
    posed = rig.posed(expression, pose)
    jaw = rotation_matrices(pose[:, 3:])
    # In the file offsets follow the skin; where the jaw moves nothing, that is ROME's plain sum.
    share = rig.jaw_share[:, None, None] * (jaw - torch.eye(3))[:, None]
    offsets = rig.offsets + (share @ rig.offsets[..., None])[..., 0]
    wanted = turn(posed.vertices + offsets, posed.rotation, posed.root)
    followed = plain = 0.0
    for number in range(poses):
        numbers = (x.double().numpy() for x in (expression[number], posed.rotation[number], jaw[number]))
        weights, rotations, drift = jaw_pose(mesh, *numbers)
        exact, resting = (mesh.posed(weights, rotations, d)[0] for d in (drift, None))
        followed = max(followed, float(np.linalg.norm(exact - wanted[number].numpy(), axis=1).max()))
        plain = max(plain, float(np.linalg.norm(resting - wanted[number].numpy(), axis=1).max()))
    return followed, plain
