"""Codes to look at a ROME avatar with: turned, or with an expression, and framed as avatar models frame a face."""

import torch
from torch import Tensor

from mobile_avatar.models.rome.landmark_fit import AvatarLandmarks
from mobile_avatar.models.rome.mesh_heads import expression_names, looks
from mobile_avatar.rendering.tracks import RISE

OPEN_JAW = 0.3  # radians


def turned_codes(landmarks: AvatarLandmarks, source_codes: Tensor, yaw: float) -> Tensor:
    """The photo's codes (e + 9,), turned -> (1, e + 9); as large as from the front, whatever the crop rule says.

    Args:
        yaw: radians to the right of the picture; the head neither nods nor rolls.
    """
    first = landmarks.expressions
    both = source_codes.repeat(2, 1)
    both[:, first : first + 3] = both.new_tensor([[0.0, 0.0, 0.0], [0.0, yaw, 0.0]])
    # The crop rule would take the narrower box of the turned head's keypoints nearer.
    return framed(landmarks, both[1:], scale=framed(landmarks, both[:1])[:, -3])


def expressive_codes(landmarks: AvatarLandmarks, source_codes: Tensor) -> dict[str, Tensor]:
    """Some expressions from the front, by name: codes (1, e + 9)."""
    first = landmarks.expressions
    names = expression_names(first)
    front = turned_codes(landmarks, source_codes, 0.0)
    front[:, :first], front[:, first + 3 : first + 6] = 0, 0
    found = {}
    for label, look in looks(names).items():
        found[label] = front.clone()
        for name, weight in look.items():
            found[label][0, names.index(name)] = weight
    found["jaw open"] = front.clone()
    found["jaw open"][0, first + 3] = OPEN_JAW
    return {label: framed(landmarks, codes) for label, codes in found.items()}


def framed(landmarks: AvatarLandmarks, codes: Tensor, scale: Tensor | None = None) -> Tensor:
    """The same codes (n, e + 9) with the cameras that put the landmarks where the crop rule puts a face's keypoints.

    Args:
        scale: (n,) of the cameras; by default the larger side of the landmarks' box becomes 1, as the rule wants.
    """
    still = codes[:, : landmarks.expressions + 6]
    points = landmarks(torch.cat((still, codes.new_tensor([1.0, 0.0, 0.0]).expand(len(codes), 3)), dim=1))
    low, high = points.amin(1), points.amax(1)
    scale = 1 / (high - low).amax(1) if scale is None else scale
    x, y = ((low + high) / 2).unbind(1)
    return torch.cat((still, torch.stack((scale, -x, y - RISE / scale), dim=1)), dim=1)
