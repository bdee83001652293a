"""From 68 keypoints to the codes of a ROME avatar: where its own head shows its landmarks nearest to them.

For drivers without pictures: the built-in track and keypoint files. Damped least squares over expression, rotations and
camera, all frames at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.avatar_mesh import AvatarMesh, render_vertices, rotation_series
from mobile_avatar.models.rome.camera import fit_camera
from mobile_avatar.models.rome.head_model import HeadModel

POINTS = 68
STEPS = 12
LARGEST_TURN = 0.3  # radians of one step
NUDGE = 1e-3  # of a code, for differences
# How far codes may go from those of the photo: expression (deviations), head and jaw (radians).
REACH = {"expression": 3.0, "head": 1.3, "jaw": (0.6, 0.1, 0.1)}
SMALLEST_SCALE = 0.2  # of the photo's
NOISE = 0.015  # of keypoints, in the picture's unit: what a deviation of the following is weighed against
DEVIATION = {"expression": 1.0, "head": 2.0, "jaw": (0.3, 0.02, 0.02)}
# The contour of a real face slides with its rotation, and lids of this head do not move: both say less.
CONTOUR, LIDS = 0.4, 0.1
LID_POINTS = (37, 38, 40, 41, 43, 44, 46, 47)


@dataclass(frozen=True)
class AvatarLandmarks:
    """The 68 landmarks of one avatar's mesh as a function of its codes; arrays are those of `AvatarMesh` at the corners
    of the landmarks' triangles, c = 204 of them."""

    neutral: Tensor
    """(c, 3)."""
    offsets: Tensor
    """(c, 3)."""
    blend: Tensor
    """(3 c, e + 9)."""
    jaw_weight: Tensor
    """(c, 1)."""
    joints: Tensor
    """(2, 3)."""
    joint_blend: Tensor
    """(6, e)."""
    weights: Tensor
    """(68, 3, 1): where in its triangle each landmark lies."""

    @classmethod
    def of(cls, mesh: AvatarMesh, head: HeadModel) -> "AvatarLandmarks":
        """The landmarks of an avatar of `head`; a contour that slides with the rotation stays where it is in front.

        Raises:
            BadInput: the avatar was made with another head model, whose landmarks are not known.
        """
        vertex, _, corners = render_vertices(head.faces, head.uv_faces)
        if not (torch.equal(vertex, mesh.vertex.long()) and torch.equal(corners, mesh.corners.long())):
            raise BadInput(
                f"keypoints cannot drive this avatar: its head is not {head.source}, whose landmarks are known; "
                "pass --video"
            )
        triangles = torch.cat((head.contour_faces[0], head.landmark_faces))
        weights = torch.cat((head.contour_weights[0], head.landmark_weights))
        chosen = corners[triangles].flatten()
        own = {name: getattr(mesh, name)[chosen] for name in ("neutral", "offsets", "jaw_weight")}
        blend = mesh.blend.view(len(mesh.vertex), 3, -1)[chosen].flatten(0, 1)
        return cls(**own, blend=blend, joints=mesh.joints, joint_blend=mesh.joint_blend, weights=weights[..., None])

    @property
    def expressions(self) -> int:
        return self.joint_blend.shape[1]

    def __call__(self, codes: Tensor) -> Tensor:
        """Codes (n, e + 9) -> landmarks (n, 68, 2) in the picture: what `AvatarMesh` computes, for many frames."""
        e, n = self.expressions, len(codes)
        expression, camera = codes[:, :e], codes[:, None, e + 6 :]
        whole, jaw = rotation_series(codes[:, e : e + 6].reshape(-1, 3)).view(n, 2, 3, 3).unbind(1)
        posed = (torch.cat((expression, jaw.flatten(1)), dim=1) @ self.blend.T).view(n, -1, 3) + self.neutral
        joints = (expression @ self.joint_blend.T).view(n, 2, 3) + self.joints
        posed = posed + self.jaw_weight * ((posed - joints[:, 1:]) @ jaw.transpose(1, 2)) + self.offsets
        points = (posed.view(n, POINTS, 3, 3) * self.weights).sum(2)
        turned = points + (points - joints[:, :1]) @ whole.transpose(1, 2)
        return (turned[..., :2] + camera[..., 1:]) * camera[..., :1] * codes.new_tensor([1.0, -1.0])


@torch.no_grad()
def fit_codes(landmarks: AvatarLandmarks, keypoints: Tensor, source_codes: Tensor) -> Tensor:
    """The codes (n, e + 9) that show keypoints (n, 68, 2) in [-1, 1] of the picture.

    Gauss-Newton from the photo's codes (e + 9,), to which expression and jaw are held the more, the less the keypoints
    say about them. Codes stay within REACH, so that keypoints that are no face give no broken mesh.
    """
    e, n = landmarks.expressions, len(keypoints)
    deviation, reach = (_row(values, e) for values in (DEVIATION, REACH))
    trust = torch.ones(POINTS, 1)
    trust[:17], trust[list(LID_POINTS)] = CONTOUR, LIDS
    start = source_codes.expand(n, -1)
    low, high = start - reach, start + reach
    low[:, e + 6] = SMALLEST_SCALE * start[:, e + 6].abs()
    codes = _seen(landmarks, start, keypoints).clamp(low, high)
    count = codes.shape[1]
    pull, nudges = NOISE / deviation, NUDGE * torch.eye(count)
    for _ in range(STEPS):
        shown = landmarks(codes)
        nudged = landmarks((codes[:, None] + nudges).flatten(0, 1)).unflatten(0, (n, count))
        slope = ((nudged - shown[:, None]) * (trust / NUDGE)).flatten(2)
        error = ((shown - keypoints) * trust).flatten(1)
        normal = slope @ slope.transpose(1, 2) + torch.diag(pull**2 + 1e-6)
        downhill = (slope @ error[..., None])[..., 0] + pull**2 * (codes - start)
        change = torch.linalg.solve(normal, -downhill)
        turned = change[:, e : e + 6].abs().amax(1, keepdim=True)
        codes = (codes + change / (turned / LARGEST_TURN).clamp(min=1)).clamp(low, high)
    return codes


def _seen(landmarks: AvatarLandmarks, codes: Tensor, keypoints: Tensor) -> Tensor:
    """The same codes with the cameras that see the head where the keypoints are."""
    e = landmarks.expressions
    plain = torch.cat((codes[:, : e + 6], codes.new_tensor([1.0, 0.0, 0.0]).expand(len(codes), 3)), dim=1)
    camera = fit_camera(landmarks(plain) * plain.new_tensor([1.0, -1.0]), keypoints)
    return torch.cat((codes[:, : e + 6], camera), dim=1)


def _row(values: dict, expressions: int) -> Tensor:
    """(e + 9,) of a table by kind of code; the camera is free."""
    head, jaw = torch.full((3,), values["head"]), torch.tensor(values["jaw"])
    return torch.cat((torch.full((expressions,), values["expression"]), head, jaw, torch.full((3,), torch.inf)))
