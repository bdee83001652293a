"""From a photo to 68 points: detector, a levelled face crop, 468 landmarks, and the 68 of them that iBUG names."""

from dataclasses import dataclass

import numpy as np

from mobile_avatar.errors import BadInput
from mobile_avatar.keypoints.detector import Detector, Face
from mobile_avatar.keypoints.litert import LiteModel
from mobile_avatar.keypoints.models import TrackerModels

INPUT_SIZE = 192
# The crop shown to the landmark model, relative to the larger side of the face box.
CROP_SCALE = 1.5
# Rows of MediaPipe's 468-point mesh, in iBUG order.
MESH_TO_68 = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),  # jaw
    *(71, 63, 105, 66, 107),  # right brow
    *(336, 296, 334, 293, 301),  # left brow
    *(168, 197, 5, 4),  # nose
    *(75, 97, 2, 326, 305),  # nostrils
    *(33, 160, 158, 133, 153, 144),  # right eye
    *(362, 385, 387, 263, 373, 380),  # left eye
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # outer lips
    *(78, 82, 13, 312, 308, 317, 14, 87),  # inner lips
)


@dataclass(frozen=True)
class FaceMesh:
    """Landmarks of one face, in pixels of the photo."""

    mesh: np.ndarray
    """float32 (468, 2): all points of the model."""
    presence: float
    """Logit of "this is a face": accept above 0; clear faces reach 10 to 30."""

    @property
    def points(self) -> np.ndarray:
        """float32 (68, 2) in iBUG order."""
        return self.mesh[list(MESH_TO_68)]

    def as_face(self) -> Face:
        """Where to look for this face in the next frame."""
        (left, top), (right, bottom) = self.mesh.min(axis=0).tolist(), self.mesh.max(axis=0).tolist()
        eyes = tuple(tuple(self.mesh[list(corners)].mean(axis=0).tolist()) for corners in ((33, 133), (362, 263)))
        return Face((left, top, right, bottom), eyes, 1.0)


@dataclass(frozen=True)
class TrackedFace:
    """The face that was chosen in a photo."""

    points: np.ndarray
    """float32 (68, 2) in pixels of the photo."""
    faces_found: int
    """How many faces the photo shows (far smaller ones do not count); above 1, this is the largest."""
    score: float
    """The detector's confidence in [0, 1]."""
    presence: float
    """The landmark model's logit."""


class Tracker:
    """The face tracker on LiteRT: about 4 ms per photo on one core, beyond reading the photo."""

    def __init__(self, models: TrackerModels) -> None:
        self._detector = Detector(models.detector)
        self._landmarks = LiteModel(models.landmarks)

    def detect(self, image: np.ndarray, tiles: bool = True) -> list[Face]:
        """Faces in uint8 (H, W, 3) RGB, the largest first; see `Detector.detect`."""
        return self._detector.detect(image, tiles)

    def landmarks(self, image: np.ndarray, face: Face) -> FaceMesh:
        """Landmarks of `face` in uint8 (H, W, 3) RGB; `presence` says whether it is a face at all."""
        crop, to_photo = _levelled_crop(image, face)
        points, presence = self._landmarks(crop / np.float32(255))
        mesh = points.reshape(-1, 3)[:, :2] @ to_photo[:, :2].T + to_photo[:, 2]
        return FaceMesh(mesh.astype(np.float32), float(presence.squeeze()))

    def confirm(self, image: np.ndarray, face: Face) -> FaceMesh | None:
        """Landmarks from a second crop, placed by the landmarks of the first; None when either shows no face.

        The second crop makes the points depend less on the detector's box (half the error under rotation), is what
        tracking a video does anyway, and exposes things that resemble a face only in the first crop.
        """
        found = self.landmarks(image, face)
        if found.presence > 0:
            found = self.landmarks(image, found.as_face())
        return found if found.presence > 0 else None

    def track_photo(self, image: np.ndarray, source: str = "photo") -> TrackedFace:
        """Find the largest face of uint8 (H, W, 3) RGB.

        Raises:
            BadInput: no face; the sentence begins with `source`.
        """
        seen = [(face, found) for face in self.detect(image) if (found := self.confirm(image, face))]
        if not seen:
            raise BadInput(f"{source}: no face was found; use a photo that shows one face from the front, well lit")
        face, found = seen[0]
        return TrackedFace(found.points, len(seen), face.score, found.presence)


def _levelled_crop(image: np.ndarray, face: Face) -> tuple[np.ndarray, np.ndarray]:
    """The face with its eyes level: uint8 (192, 192, 3), and the (2, 3) map from its pixels to those of the photo."""
    import cv2

    side = max(face.side * CROP_SCALE, 1.0)
    (x0, y0), (x1, y1) = face.eyes
    angle = np.arctan2(y1 - y0, x1 - x0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * (side / INPUT_SIZE)
    to_photo = np.column_stack((turn, face.centre - turn @ (INPUT_SIZE / 2, INPUT_SIZE / 2)))

    # A large face is first shrunk by a whole factor, or the sampling below would skip pixels.
    shrink = int(side / INPUT_SIZE)
    origin = np.zeros(2)
    if shrink > 1:
        origin = np.floor(np.clip(np.subtract(face.centre, side), 0, None))
        far = np.ceil(np.add(face.centre, side)).clip(1)
        image = image[int(origin[1]) : int(far[1]), int(origin[0]) : int(far[0])]
        height, width = (extent // shrink * shrink for extent in image.shape[:2])
        if height and width:
            size = (width // shrink, height // shrink)
            image = cv2.resize(image[:height, :width], size, interpolation=cv2.INTER_AREA)
    shrink = max(shrink, 1)
    # OpenCV counts from pixel centres, this module from pixel corners.
    sample = to_photo.copy()
    sample[:, 2] += turn @ (0.5, 0.5)
    sample[:, 2] -= origin
    sample /= shrink
    sample[:, 2] -= 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, sample, (INPUT_SIZE, INPUT_SIZE), flags=flags), to_photo
