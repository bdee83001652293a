"""Everything the avatar models want to know about a photo: crop, mask, keypoints and landmark image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_avatar.images import read_photo, to_signed
from mobile_avatar.keypoints.crop import CropBox, avatar_crop, crop_image, normalise_points
from mobile_avatar.keypoints.landmark_image import draw_landmarks
from mobile_avatar.keypoints.models import TrackerModels
from mobile_avatar.keypoints.segmenter import INPUT_SIZE, Segmenter, resize_plane
from mobile_avatar.keypoints.tracker import Tracker


@dataclass(frozen=True)
class PreparedPhoto:
    """A photo, ready for the identity embedder; S is the model's image size."""

    image: np.ndarray
    """float32 (3, S, S), RGB in [-1, 1], background as photographed."""
    mask: np.ndarray
    """float32 (1, S, S) in [0, 1], soft: 1 is the person."""
    keypoints: np.ndarray
    """float32 (136,) in [-1, 1] of the crop."""
    landmark_image: np.ndarray
    """float32 (3, S, S), RGB in [-1, 1]."""
    faces_found: int
    """Faces in the photo; above 1, the largest was taken, and the user should be told."""
    box: CropBox
    """Where the crop lies in the photo."""


def prepare_photo(
    photo: str | Path | np.ndarray, image_size: int, models: TrackerModels, source: str = "photo"
) -> PreparedPhoto:
    """Track, crop and segment one photo.

    Args:
        photo: a file, or upright uint8 (H, W, 3) RGB.
        image_size: S, the side of the results.
        models: from `tracker_models`.
        source: what messages call a photo that comes as an array; a file is called by its path.

    Raises:
        BadInput: the file is no usable photo (`read_photo`) or shows no face.
    """
    if isinstance(photo, np.ndarray):
        image = photo
    else:
        image, source = read_photo(photo), str(photo)
    face = Tracker(models).track_photo(image, source)
    box = avatar_crop(face.points)
    keypoints = normalise_points(face.points, box)
    # The mask comes from the segmenter's own resolution; a smaller crop would cost detail at the outline.
    mask = Segmenter(models.segmenter).segment(crop_image(image, box, INPUT_SIZE))
    return PreparedPhoto(
        image=to_signed(crop_image(image, box, image_size)),
        mask=resize_plane(mask, image_size)[None],
        keypoints=keypoints,
        landmark_image=draw_landmarks(keypoints, image_size),
        faces_found=face.faces_found,
        box=box,
    )
