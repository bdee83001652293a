"""NME: does the rendered face have the pose and expression that drove it? The tracker, which made neither, judges."""

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.images import to_uint8
from mobile_avatar.keypoints.tracker import Tracker
from mobile_avatar.training.metrics import Driven

# Outer corners of the eyes, in iBUG order.
RIGHT_EYE, LEFT_EYE = 36, 45


class LandmarkError:
    """Normalised mean error of the 68 points that the tracker finds in a rendered frame."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def __call__(self, driven: Driven) -> dict[str, Tensor]:
        """Of each frame, (N,): `nme_percent`, NaN where no face was found, and `no_face`, 1 there and else 0."""
        rows = zip(driven.images, driven.keypoints, strict=True)
        errors = torch.tensor([self._error(to_uint8(image), points.cpu().numpy()) for image, points in rows])
        return {"nme_percent": errors, "no_face": errors.isnan().float()}

    def _error(self, image: np.ndarray, keypoints: np.ndarray) -> float:
        found = (self._tracker.confirm(image, face) for face in self._tracker.detect(image))
        mesh = next((mesh for mesh in found if mesh is not None), None)
        if mesh is None:
            return float("nan")
        return normalised_error(2 * mesh.points / image.shape[0] - 1, keypoints.reshape(-1, 2))


def normalised_error(points: np.ndarray, goal: np.ndarray) -> float:
    """Mean distance of points (68, 2) in percent of the distance of the goal's outer eye corners."""
    eyes = np.linalg.norm(goal[RIGHT_EYE] - goal[LEFT_EYE])
    return float(100 * np.linalg.norm(points - goal, axis=1).mean() / max(eyes, 1e-6))
