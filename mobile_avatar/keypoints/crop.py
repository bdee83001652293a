"""The square crop around a head that the avatar models see, with the rounding of the official release."""

from dataclasses import dataclass

import numpy as np

from mobile_avatar.keypoints.contract import POINT_COUNT


@dataclass(frozen=True)
class CropBox:
    """A square in whole pixels: columns cx - half to cx + half, rows cy - half to cy + half."""

    cx: int
    cy: int
    half: int


def avatar_crop(points: np.ndarray) -> CropBox:
    """The crop of a face: twice the larger side of its 68-point box, moved up by a sixth of that side.

    Args:
        points: float (68, 2) in pixels of the photo. Pixel (0, 0) covers 0 to 1 in both directions.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    cx, cy = np.round((low + high) / 2).astype(int)
    size = max(int((high - low).max()), 1)
    return CropBox(int(cx), int(cy) - size // 6, size)


def crop_image(image: np.ndarray, box: CropBox, size: int) -> np.ndarray:
    """Cut `box` out of uint8 (H, W, 3), black outside the photo, and resize it bicubically to uint8 (size, size, 3)."""
    from PIL import Image

    square = np.zeros((2 * box.half, 2 * box.half, 3), dtype=np.uint8)
    left, top = box.cx - box.half, box.cy - box.half
    part = image[max(top, 0) : max(top + 2 * box.half, 0), max(left, 0) : max(left + 2 * box.half, 0)]
    if part.size:
        row, column = max(-top, 0), max(-left, 0)
        square[row : row + part.shape[0], column : column + part.shape[1]] = part
    return np.array(Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC))


def normalise_points(points: np.ndarray, box: CropBox) -> np.ndarray:
    """Pixels of the photo to the keypoint vector: float (..., 68, 2) to float32 (..., 136), [-1, 1] over the box."""
    centred = (np.asarray(points, dtype=np.float64) - (box.cx, box.cy)) / box.half
    return centred.reshape(*centred.shape[:-2], 2 * POINT_COUNT).astype(np.float32)
