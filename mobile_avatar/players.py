"""How to play an avatar of any model: what drives it per frame, and how a frame is drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.avatar import Avatar
from mobile_avatar.images import to_uint8
from mobile_avatar.keypoints.crop import CropBox, avatar_crop, crop_image
from mobile_avatar.models.rome.avatar import RomeAvatar, is_rome_avatar
from mobile_avatar.models.rome.landmark_fit import POINTS, AvatarLandmarks, fit_codes
from mobile_avatar.models.rome.synthetic_rig import synthetic_head

if TYPE_CHECKING:
    from mobile_avatar.keypoints.video import VideoTrack


@dataclass(frozen=True)
class Player:
    """One avatar, ready to be driven. A driver is a row of numbers per frame: the keypoints, or what comes of them."""

    neutral: Callable[[], np.ndarray]
    """float32 (136,): keypoints of the photo, to which built-in tracks adapt."""
    from_keypoints: Callable[[np.ndarray], np.ndarray]
    """Keypoints (T, 136) in [-1, 1] -> drivers (T, n)."""
    from_video: Callable[[Path, "VideoTrack"], np.ndarray]
    """A video and the face tracked through it -> drivers (T, n)."""
    draw: Callable[[np.ndarray], np.ndarray]
    """A driver (n,) -> uint8 (S, S, 3) RGB."""


def load_player(path: Path) -> Player:
    """The player of an avatar file.

    Raises:
        BadInput: as the loaders of avatars.
    """
    return rome_player(RomeAvatar.load(path)) if is_rome_avatar(path) else bilayer_player(Avatar.load(path))


def bilayer_player(avatar: Avatar) -> Player:
    """Keypoints drive it as they are."""

    def draw(keypoints: np.ndarray) -> np.ndarray:
        return to_uint8(avatar.render(torch.from_numpy(keypoints)[None]).image[0])

    return Player(
        neutral=lambda: avatar.source_keypoints.numpy(),
        from_keypoints=lambda keypoints: keypoints,
        from_video=lambda path, track: track.keypoints,
        draw=draw,
    )


def rome_player(avatar: RomeAvatar) -> Player:
    """Codes drive it: its encoder reads them off the frames of a video, and keypoints are fitted.

    Keypoints need the landmarks of the default head; an avatar of another one is refused when they are asked for.
    """

    def landmarks() -> AvatarLandmarks:
        return AvatarLandmarks.of(avatar.mesh, synthetic_head())

    def from_keypoints(keypoints: np.ndarray) -> np.ndarray:
        points = torch.from_numpy(np.asarray(keypoints, dtype=np.float32)).view(-1, POINTS, 2)
        return fit_codes(landmarks(), points, avatar.source_codes).numpy()

    def draw(codes: np.ndarray) -> np.ndarray:
        colours, mask = avatar.render(torch.from_numpy(codes)[None]).rgba[0].split((3, 1))
        return to_uint8((colours * mask + 1 - mask) * 2 - 1)

    return Player(
        neutral=lambda: landmarks()(avatar.source_codes[None]).flatten().numpy(),
        from_keypoints=from_keypoints,
        from_video=partial(video_codes, avatar),
        draw=draw,
    )


@torch.no_grad()
def video_codes(avatar: RomeAvatar, path: Path, track: "VideoTrack") -> np.ndarray:
    """Codes (T, e + 9) that an avatar's encoder reads off a video's frames.

    Each frame is cropped for itself, as pictures were in training; the cameras are then brought into the one crop of
    the track, so that movement of the head is kept. Where no face was found, the last codes are held.
    """
    from mobile_avatar.keypoints.video import Video

    boxes = [avatar_crop(points) for points in _in_pixels(track)]
    codes: list[Tensor | None] = []
    for number, (frame, box) in enumerate(zip(Video(path).frames(), boxes, strict=True)):
        if number in track.missing:
            codes.append(codes[-1] if codes else None)
            continue
        picture = torch.from_numpy(crop_image(frame.image, box, avatar.encoder_size)).permute(2, 0, 1)[None] / 255
        codes.append(moved_camera(avatar.encoder(picture)[0], box, track.box))
    first = next(values for values in codes if values is not None)
    return torch.stack([first if values is None else values for values in codes]).numpy()


def moved_camera(codes: Tensor, box: CropBox, other: CropBox) -> Tensor:
    """Codes (e + 9,) of a picture that is the crop `box`, as codes of the crop `other` of the same frame."""
    scale, x, y = codes[-3:]
    scale = scale * box.half / other.half
    across, down = (box.cx - other.cx) / other.half, (box.cy - other.cy) / other.half
    return torch.cat((codes[:-3], torch.stack((scale, x + across / scale, y - down / scale))))


def _in_pixels(track: "VideoTrack") -> np.ndarray:
    """The track's keypoints (T, 68, 2) in pixels of the video."""
    points = track.keypoints.reshape(-1, POINTS, 2).astype(np.float64)
    return points * track.box.half + (track.box.cx, track.box.cy)
