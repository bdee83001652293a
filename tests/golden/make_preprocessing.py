"""Regenerate the golden tensors and the picture of docs/preprocessing.md: python tests/golden/make_preprocessing.py

Writes preprocessing/preprocessing.npz beside this file and docs/images/preprocessing.png. Run it only after a change
of the rules that is meant: every port of the pre-processing is held to these numbers.
"""

from pathlib import Path

import cv2
import numpy as np
from skimage import data

from mobile_avatar.files import replace_file
from mobile_avatar.images import to_uint8, write_png
from mobile_avatar.keypoints.crop import CropBox, avatar_crop, crop_image, normalise_points
from mobile_avatar.keypoints.landmark_image import draw_landmarks
from mobile_avatar.keypoints.models import tracker_models
from mobile_avatar.keypoints.prepare import prepare_photo
from mobile_avatar.keypoints.tracker import Tracker

GOLDEN = Path(__file__).parent / "preprocessing" / "preprocessing.npz"
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "preprocessing.png"
LANDMARK_SIZE = 64
# Boxes that leave a 48x40 photo on every side, up and down scaling, and one that misses it.
CROPS = ((20, 24, 16), (4, 40, 30), (36, 6, 9), (100, 100, 20))
CROP_SIZE = 24


def pattern() -> np.ndarray:
    """A small photo that anybody can rebuild: uint8 (48, 40, 3)."""
    y, x = np.mgrid[:48, :40]
    return np.stack(((x * 6) % 256, (y * 5) % 256, (x * y) % 256), axis=-1).astype(np.uint8)


def faces(astronaut: np.ndarray) -> np.ndarray:
    """Variants of a real face: as found, moved out of the photo, tilted and large, tiny, and nearly on half pixels."""
    centre = astronaut.mean(axis=0)
    tilt = np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]])
    variants = (
        astronaut,
        astronaut - (260.3, 190.6),
        (astronaut - centre) @ tilt * 4.7 + centre,
        (astronaut - centre) * 0.11 + (33.25, 47.5),
        np.round(astronaut) + 0.5,
    )
    return np.stack(variants).astype(np.float32)


def golden(points: np.ndarray) -> dict[str, np.ndarray]:
    """All stages for float32 (N, 68, 2) in pixels."""
    boxes = [avatar_crop(face) for face in points]
    keypoints = np.stack([normalise_points(face, box) for face, box in zip(points, boxes, strict=True)])
    drawn = [to_uint8(draw_landmarks(face, LANDMARK_SIZE)) for face in keypoints]
    crops = [crop_image(pattern(), CropBox(*box), CROP_SIZE) for box in CROPS]
    return {
        "points": points,
        "boxes": np.array([(box.cx, box.cy, box.half) for box in boxes], dtype=np.int32),
        "keypoints": keypoints,
        "landmark_images": np.stack(drawn),
        "photo": pattern(),
        "photo_boxes": np.array(CROPS, dtype=np.int32),
        "photo_crops": np.stack(crops),
    }


def picture(photo: np.ndarray) -> np.ndarray:
    """Photo and its crop, the 68 numbered points, landmark image, mask and masked crop: uint8 (640, 1280, 3)."""
    large, small = 640, 320
    models = tracker_models()
    prepared = prepare_photo(photo, small, models)
    box = prepared.box
    left = photo.copy()
    corners = (box.cx - box.half, box.cy - box.half), (box.cx + box.half, box.cy + box.half)
    cv2.rectangle(left, *corners, (255, 220, 0), 3)
    left = cv2.resize(left, (small, small), interpolation=cv2.INTER_AREA)
    numbered = crop_image(photo, box, large)
    for number, (x, y) in enumerate(((prepared.keypoints.reshape(68, 2) + 1) / 2 * large).tolist()):
        place = round(x), round(y)
        cv2.circle(numbered, place, 3, (0, 255, 0), -1, cv2.LINE_AA)
        text = (place[0] + 4, place[1] - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.38
        cv2.putText(numbered, str(number), *text, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(numbered, str(number), *text, (255, 255, 255), 1, cv2.LINE_AA)
    landmarks = to_uint8(draw_landmarks(prepared.keypoints, small))
    mask = (prepared.mask[0, ..., None] * 255).round().astype(np.uint8).repeat(3, axis=2)
    masked = to_uint8(prepared.image * prepared.mask - (1 - prepared.mask))
    return np.hstack((np.vstack((left, masked)), numbered, np.vstack((landmarks, mask))))


def main() -> None:
    photo = data.astronaut()
    points = Tracker(tracker_models()).track_photo(photo).points
    with replace_file(GOLDEN) as temporary:
        np.savez_compressed(temporary, **golden(faces(points)))
    write_png(PICTURE, picture(photo))


if __name__ == "__main__":
    main()
