"""Is this frame worth keeping: sharp, different from the one before, and with a mask that covers the face."""

import numpy as np

from mobile_avatar.keypoints.segmenter import resize_plane

# The face is judged at this size, so that a large soft face and a small sharp one are treated alike.
FACE_SIDE = 96
# Change of a 32x32 picture between two frames, in levels of 255: the largest, and what 5 % of it exceed. Encoding the
# same frame again stays below both (but for a new key frame); a blink exceeds the one, a camera's noise the other.
FROZEN_LARGEST, FROZEN_USUAL = 1.2, 0.3
FROZEN_SIDE = 32
LEAST_COVERED = 0.5


def sharpness(image: np.ndarray, points: np.ndarray) -> float:
    """Variance of the Laplacian of the face over the variance of its grey values: 0.3 to 0.6 for clear films.

    A blur of one pixel (sigma, of a face 96 pixels wide) makes about 0.045, of two pixels 0.01.

    Args:
        image: uint8 (H, W, 3) RGB.
        points: (68, 2) in its pixels.
    """
    import cv2

    (left, top), (right, bottom) = points.min(axis=0).clip(0).astype(int), np.ceil(points.max(axis=0)).astype(int)
    face = cv2.cvtColor(np.ascontiguousarray(image[top:bottom, left:right]), cv2.COLOR_RGB2GRAY)
    scale = FACE_SIDE / max(face.shape)
    if scale < 1:
        size = tuple(max(1, round(extent * scale)) for extent in face.shape[::-1])
        face = cv2.resize(face, size, interpolation=cv2.INTER_AREA)
    # One level of variance is added, or a black frame would divide by nothing.
    return float(cv2.Laplacian(face, cv2.CV_64F).var() / (face.astype(np.float64).var() + 1))


def reduced(crop: np.ndarray) -> np.ndarray:
    """What `is_frozen` compares: uint8 (S, S, 3) to float32 (32, 32) grey."""
    import cv2

    return resize_plane(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32), FROZEN_SIDE)


def is_frozen(now: np.ndarray, before: np.ndarray | None) -> bool:
    """Whether two results of `reduced` show the same moment: duplicated frames, a paused picture, a still photo."""
    if before is None:
        return False
    change = np.abs(now - before)
    return bool(change.max() < FROZEN_LARGEST and np.percentile(change, 95) < FROZEN_USUAL)


def covers_face(mask: np.ndarray, keypoints: np.ndarray) -> bool:
    """Whether a mask, uint8 (S, S), says "person" on at least half of the face given by (136,) in [-1, 1]."""
    import cv2

    pixels = (keypoints.reshape(68, 2) + 1) / 2 * mask.shape[0]
    face = cv2.fillConvexPoly(np.zeros_like(mask), cv2.convexHull(pixels.round().astype(np.int32)), 1)
    return bool(face.any()) and float(mask[face == 1].mean()) >= LEAST_COVERED * 255
