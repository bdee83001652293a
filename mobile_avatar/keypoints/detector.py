"""Finding faces: MediaPipe's short-range detector, and a second look through tiles for small faces."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_avatar.keypoints.litert import LiteModel

INPUT_SIZE = 128
SMALLEST_SCORE = 0.5
# Boxes that overlap this much are the same face.
SAME_FACE = 0.3
# Anchors: cells per side of a grid, and boxes per cell.
GRIDS = ((16, 2), (8, 6))
# The tiles of a second look halve in side this many times; the detector sees faces from a fifth of a tile.
TILE_LEVELS = 3


@dataclass(frozen=True)
class Face:
    """A detected face, in pixels of the photo."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom."""
    eyes: tuple[tuple[float, float], tuple[float, float]]
    """(x, y) of the person's right eye, which is the one on the left of the photo, and of the left eye."""
    score: float
    """Confidence in [0, 1]."""

    @property
    def side(self) -> float:
        """The larger side of the box."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


class Detector:
    """The face detector; see `detect`."""

    def __init__(self, model: Path) -> None:
        self._model = LiteModel(model)
        self._anchors = _anchors()

    def detect(self, image: np.ndarray, tiles: bool = True) -> list[Face]:
        """Faces in uint8 (H, W, 3) RGB, the largest first.

        Args:
            image: the photo.
            tiles: when the whole photo shows no face, look again at overlapping tiles, which finds small ones.
        """
        rows = self._look(image, 0, 0, max(image.shape[:2]))
        if not len(rows) and tiles:
            for windows in _tilings(*image.shape[:2]):
                rows = np.concatenate([self._look(image, *window) for window in windows])
                if len(rows):
                    break
        return sorted(_merge(rows), key=lambda face: face.side, reverse=True)

    def _look(self, image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
        """Raw detections of one square window, (count, 9): box, eyes, score, in pixels of the photo."""
        import cv2

        part = image[top : top + side, left : left + side]
        height, width = part.shape[:2]
        # What the square has beyond the photo is black, in equal parts on both sides.
        scale = INPUT_SIZE / max(height, width)
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        x, y = (INPUT_SIZE - size[0]) // 2, (INPUT_SIZE - size[1]) // 2
        square = np.zeros((INPUT_SIZE, INPUT_SIZE, 3), dtype=np.uint8)
        square[y : y + size[1], x : x + size[0]] = cv2.resize(part, size, interpolation=cv2.INTER_AREA)

        values, logits = self._model(square / np.float32(127.5) - 1)
        chosen = logits[0, :, 0] > 0  # a sigmoid of 0.5
        values, scores = values[0, chosen], 1 / (1 + np.exp(-logits[0, chosen, 0]))
        anchors = self._anchors[chosen]
        centre, extent = values[:, 0:2] + anchors, values[:, 2:4]
        corners = (centre - extent / 2, centre + extent / 2, values[:, 4:6] + anchors, values[:, 6:8] + anchors)
        points = (np.concatenate(corners, axis=1).reshape(-1, 4, 2) - (x, y)) / scale + (left, top)
        return np.concatenate((points.reshape(-1, 8), scores[:, None]), axis=1)


def _anchors() -> np.ndarray:
    """Cell centres of the two grids in pixels of the input, float32 (896, 2)."""
    centres = []
    for cells, per_cell in GRIDS:
        steps = (np.arange(cells) + 0.5) * (INPUT_SIZE / cells)
        y, x = np.meshgrid(steps, steps, indexing="ij")
        centres.append(np.stack((x, y), axis=-1).reshape(-1, 2).repeat(per_cell, axis=0))
    return np.concatenate(centres).astype(np.float32)


def _tilings(height: int, width: int) -> Iterator[list[tuple[int, int, int]]]:
    """Sets of half-overlapping square windows (left, top, side), from large to small."""
    side = max(height, width)
    for _ in range(TILE_LEVELS):
        side //= 2
        if side < INPUT_SIZE // 2:
            return
        lefts, tops = (_starts(extent, side) for extent in (width, height))
        yield [(left, top, side) for top in tops for left in lefts]


def _starts(extent: int, side: int) -> list[int]:
    """Where windows of `side` begin so that they cover `extent` and overlap by half."""
    if extent <= side:
        return [0]
    count = -(-2 * (extent - side) // side) + 1
    return [round(i * (extent - side) / (count - 1)) for i in range(count)]


def _merge(rows: np.ndarray) -> list[Face]:
    """One face per group of overlapping detections: their average, weighted by score."""
    rows = rows[np.argsort(-rows[:, 8])]
    faces = []
    while len(rows):
        same = _overlap(rows[0], rows) > SAME_FACE
        same[0] = True
        group, rows = rows[same], rows[~same]
        mean = (group[:, :8] * group[:, 8:]).sum(axis=0) / group[:, 8].sum()
        box, eyes = tuple(mean[:4].tolist()), (tuple(mean[4:6].tolist()), tuple(mean[6:8].tolist()))
        faces.append(Face(box, eyes, float(group[0, 8])))
    return faces


def _overlap(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with others."""
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:4], many[:, 2:4])
    shared = (high - low).clip(min=0).prod(axis=1)
    areas = [(rows[..., 2:4] - rows[..., :2]).clip(min=0).prod(axis=-1) for rows in (one, many)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)
