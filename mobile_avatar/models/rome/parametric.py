"""The FLAME computation: shape, expression and pose to vertices and landmarks; batched, differentiable, exportable.

Shapes are fixed and nothing branches on data, so a graph of it can be exported. As in ROME the root's rotation stays
out of the skinning: meshes and normals are in head space, and `camera.turn` comes after.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mobile_avatar.models.rome.head_model import CONTOUR_ROWS, HeadModel

OFFSET = 1e-8  # of the official angle, |p + 1e-8|; keeps the gradient finite at zero
SMALLEST_ANGLE = 1e-12  # p = (-1e-8, -1e-8, -1e-8) divides by zero in the official code
JAW = 2  # joint whose rotation ROME predicts beside the root's
WIDEST = CONTOUR_ROWS // 2  # degrees of yaw that have a contour of their own


def rotation_matrices(axis_angle: Tensor) -> Tensor:
    """Axis-angle (..., 3) in radians -> rotation matrices (..., 3, 3).

    The angle is |p + 1e-8| and the axis p / angle, so for tiny rotations the axis is not of unit length: as official.
    """
    angle = (axis_angle + OFFSET).norm(dim=-1, keepdim=True).clamp(min=SMALLEST_ANGLE)
    x, y, z = (axis_angle / angle).unbind(-1)
    zero = torch.zeros_like(x)
    rows = (torch.stack(row, -1) for row in ((zero, -z, y), (z, zero, -x), (-y, x, zero)))
    cross = torch.stack(tuple(rows), -2)
    sine, cosine = torch.sin(angle)[..., None], torch.cos(angle)[..., None]
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + sine * cross + (1 - cosine) * (cross @ cross)


def contour_row(rotation: Tensor) -> Tensor:
    """Rows (n,) int64 of the contour embedding for head rotations (n, 3, 3).

    The yaw is that of R R, as if neck and root both turned by R: the official landmarks are made so.
    """
    twice = rotation @ rotation
    length = torch.sqrt(twice[:, 0, 0] ** 2 + twice[:, 1, 0] ** 2)
    degrees = torch.rad2deg(torch.atan2(-twice[:, 2, 0], length)).clamp(max=WIDEST).round().to(torch.int64)
    return torch.where(degrees < 0, WIDEST - degrees, degrees).clamp(max=CONTOUR_ROWS - 1)


class PosedHead(NamedTuple):
    """A head with expression and open jaw, not yet turned; n heads.

    vertices (n, v, 3) in head space; root (n, 3), the joint that the head turns about; rotation (n, 3, 3), by how much.
    """

    vertices: Tensor
    root: Tensor
    rotation: Tensor


class ParametricHead(nn.Module):
    """The computation of one head model; its arrays move with `.to` and are not part of a state dict."""

    def __init__(self, model: HeadModel) -> None:
        super().__init__()
        v = model.template.shape[0]
        self.parents = model.parents
        self.shape_count, self.expression_count = model.shape_basis.shape[2], model.expression_basis.shape[2]
        blend = torch.cat((model.shape_basis, model.expression_basis), dim=2)
        arrays = {
            "template": model.template,
            # Transposed and flattened once: coefficients times a matrix.
            "blend_basis": blend.reshape(3 * v, -1).T,
            "pose_basis": model.pose_basis.reshape(3 * v, -1).T,
            "joint_regressor": model.joint_regressor,
            "skin_weights": model.skin_weights,
            "landmark_corners": model.faces[model.landmark_faces],
            "landmark_weights": model.landmark_weights,
            "contour_corners": model.faces[model.contour_faces],
            "contour_weights": model.contour_weights,
        }
        for name, value in arrays.items():
            self.register_buffer(name, value.contiguous(), persistent=False)

    def blended(self, shape: Tensor, expression: Tensor) -> Tensor:
        """Shape (n, s) and expression (n, e) coefficients -> meshes (n, v, 3) in rest pose."""
        offsets = torch.cat((shape, expression), dim=1) @ self.blend_basis
        return self.template + offsets.view(-1, *self.template.shape)

    def skinned(self, blended: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
        """Pose meshes: the joints' rotations move them, corrected by the pose blend shapes.

        Args:
            blended: (n, v, 3) from `blended`.
            rotations: (n, j, 3, 3), each relative to its parent joint.

        Returns:
            vertices (n, v, 3) and posed joints (n, j, 3).
        """
        joints = self.joint_regressor @ blended
        identity = torch.eye(3, dtype=blended.dtype, device=blended.device)
        corrections = (rotations[:, 1:] - identity).flatten(1) @ self.pose_basis
        posed = blended + corrections.view_as(blended)
        turned, placed = [rotations[:, 0]], [joints[:, 0]]
        for joint, parent in enumerate(self.parents[1:], start=1):
            arm = joints[:, joint] - joints[:, parent]
            placed.append(placed[parent] + (turned[parent] @ arm[..., None])[..., 0])
            turned.append(turned[parent] @ rotations[:, joint])
        turns, places = torch.stack(turned, 1), torch.stack(placed, 1)
        # Blending the maps p -> T p + t of the joints, each about its own rest position.
        shifts = places - (turns @ joints[..., None])[..., 0]
        turn = (self.skin_weights @ turns.flatten(2)).unflatten(2, (3, 3))
        shift = self.skin_weights @ shifts
        return (turn @ posed[..., None])[..., 0] + shift, places

    def forward(self, shape: Tensor, expression: Tensor, pose: Tensor) -> PosedHead:
        """What ROME predicts -> a posed head.

        Args:
            shape: (n, s). expression: (n, e).
            pose: (n, 6) axis-angle in radians: the whole head's rotation, which is only returned as a matrix, and the
                jaw's. Neck and eyes rest.
        """
        whole, jaw = rotation_matrices(pose.unflatten(1, (2, 3))).unbind(1)
        rest = torch.eye(3, dtype=pose.dtype, device=pose.device).expand_as(jaw)
        rotations = torch.stack([jaw if joint == JAW else rest for joint in range(len(self.parents))], dim=1)
        vertices, joints = self.skinned(self.blended(shape, expression), rotations)
        return PosedHead(vertices, joints[:, 0], whole)

    def landmarks(self, vertices: Tensor, rotation: Tensor) -> Tensor:
        """The 68 landmarks (n, 68, 3) of meshes (n, v, 3): 17 of the contour, which slides with the head's rotation
        (n, 3, 3), then 51 fixed points of the surface."""
        row = contour_row(rotation)
        corners = self.contour_corners[row]
        items = torch.arange(vertices.shape[0], device=vertices.device)[:, None, None]
        contour = (vertices[items, corners] * self.contour_weights[row][..., None]).sum(2)
        fixed = (vertices[:, self.landmark_corners] * self.landmark_weights[..., None]).sum(2)
        return torch.cat((contour, fixed), dim=1)
