"""CSIM: does the rendered face belong to the same person? Cosine of face-recognition features, from a user's network.

The network is any ArcFace-like one (Deng et al., CVPR 2019; InsightFace) as ONNX: RGB faces of 112 px, aligned to five
standard points, (value - 127.5) / 127.5.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.errors import BadInput, first_line
from mobile_avatar.graphs.onnx_runtime import load_onnxruntime
from mobile_avatar.images import to_signed, to_uint8
from mobile_avatar.keypoints.contract import GROUPS
from mobile_avatar.models.bilayer.inference_generator import masked
from mobile_avatar.training.metrics import Driven

FACE_SIZE = 112
# InsightFace's standard places: both eyes, tip of the nose, corners of the mouth; x, y in pixels of the 112 px face,
# counted from pixel centres. The first eye is the person's right one, on the left of the picture.
STANDARD = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)


class FaceSimilarity:
    """Cosine similarity of two faces: 1 for the same picture."""

    def __init__(self, path: Path) -> None:
        """Load the network.

        Raises:
            BadInput: the file is missing, ONNX Runtime does not load it, or it does not take (N, 3, 112, 112).
            MissingTool: ONNX Runtime is not installed.
        """
        if not path.is_file():
            raise BadInput(f"{path}: there is no such face-recognition network")
        onnxruntime = load_onnxruntime()
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = torch.get_num_threads()
        settings.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types
            raise BadInput(f"{path} is not an ONNX file that ONNX Runtime loads ({first_line(error)})") from error
        self._path, inputs = path, self._session.get_inputs()
        fits = len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].type == "tensor(float)"
        sides = zip(inputs[0].shape[1:], (3, FACE_SIZE, FACE_SIZE), strict=True) if fits else ()
        if not fits or any(isinstance(side, int) and side != want for side, want in sides):
            shown = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
            raise BadInput(
                f"{path} takes {shown}, but float32 (N, 3, 112, 112) is needed: an ArcFace-like recognition network"
            )

    def __call__(self, driven: Driven) -> dict[str, Tensor]:
        """`csim` (N,) in [-1, 1]: each frame against its own photo, both on black, both aligned by the photo's points.

        NaN where a face has no features (all zero) or its points do not span a face.
        """
        goals, rows = masked(driven.goals, driven.goal_masks), []
        for image, goal, points in zip(driven.images, goals, driven.keypoints, strict=True):
            a, b = (self.features(aligned_face(to_uint8(picture), points.cpu().numpy())) for picture in (image, goal))
            length = float(np.linalg.norm(a) * np.linalg.norm(b))
            rows.append(float(a @ b) / length if length > 0 else float("nan"))
        return {"csim": torch.tensor(rows)}

    def features(self, face: np.ndarray) -> np.ndarray:
        """uint8 (112, 112, 3) RGB, aligned -> float64 (D,)."""
        try:
            values = self._session.run(None, {self._session.get_inputs()[0].name: to_signed(face)[None]})[0]
        except Exception as error:  # as above
            raise BadInput(f"{self._path} fails on a face of 112 px ({first_line(error)})") from error
        return np.asarray(values, dtype=np.float64).ravel()


def aligned_face(image: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """The face of a crop, turned, scaled and moved to the five standard points.

    Args:
        image: uint8 (S, S, 3).
        keypoints: (136,) in [-1, 1] of the crop.

    Returns:
        uint8 (112, 112, 3), black beyond the crop.
    """
    import cv2

    points = (five_points(keypoints) + 1) * image.shape[0] / 2 - 0.5
    return cv2.warpAffine(image, similarity(points, STANDARD), (FACE_SIZE, FACE_SIZE), flags=cv2.INTER_LINEAR)


def five_points(keypoints: np.ndarray) -> np.ndarray:
    """Middles of the eyes, tip of the nose and corners of the mouth: (136,) -> float64 (5, 2)."""
    points = np.asarray(keypoints, dtype=np.float64).reshape(-1, 2)
    eyes = [points[GROUPS[side]].mean(0) for side in ("right_eye", "left_eye")]
    return np.stack([*eyes, points[30], points[48], points[54]])


def similarity(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The turn, scale and shift (2, 3) that brings points (K, 2) nearest to others (least squares, no mirror)."""
    a, b = start @ (1, 1j), goal @ (1, 1j)
    centred = a - a.mean()
    factor = np.vdot(centred, b) / max(np.vdot(centred, centred).real, 1e-12)
    shift = b.mean() - factor * a.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])
