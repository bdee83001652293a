"""Reading videos, and tracking one face through them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_avatar.errors import BadInput
from mobile_avatar.images import LARGEST_PIXELS, SMALLEST_SIDE
from mobile_avatar.keypoints.contract import LARGEST_COORDINATE
from mobile_avatar.keypoints.crop import CropBox, avatar_crop, normalise_points
from mobile_avatar.keypoints.models import TrackerModels
from mobile_avatar.keypoints.one_euro import OneEuro
from mobile_avatar.keypoints.tracker import FaceMesh, Tracker
from mobile_avatar.progress import progress

# Points are smoothed in units of the face's size: a still face trembles by about a thousandth of it.
STEADY_HZ = 3.0
FOLLOW_HZ = 40.0
# While no face is in sight, every so many frames are searched for small ones, which costs a hundred times more.
THOROUGH_EVERY = 15


@dataclass(frozen=True)
class VideoFrame:
    """One upright frame."""

    image: np.ndarray
    """uint8 (H, W, 3) RGB."""
    seconds: float
    """Since the first frame."""


@dataclass(frozen=True)
class VideoTrack:
    """A face through a video of T frames."""

    keypoints: np.ndarray
    """float32 (T, 136), in [-1, 1] of the one crop `box`, so that movement of the head is kept."""
    fps: float
    """Average frames per second of the video."""
    missing: tuple[int, ...]
    """Frames without a face, from 0; they repeat the keypoints of the frame before (the first face's, at the start)."""
    box: CropBox
    """The crop, in pixels of the upright video: the median of the crops of all frames."""


def track_video(path: str | Path, models: TrackerModels, show_progress: bool = False) -> VideoTrack:
    """Track the largest face of a video: in the crop of the frame before, found anew when it is lost.

    Args:
        path: any video that FFmpeg reads; rotation marked in the file is applied.
        models: from `tracker_models`.
        show_progress: say on stderr how far it is.

    Raises:
        BadInput: the file is missing, is not a readable video, is empty or damaged, or shows no face in any frame.
    """
    follower, video = FaceFollower(models), Video(path)
    frames = progress(video.frames(), video.frame_count, f"tracking {Path(path).name}", show_progress)
    points = [follower(frame) for frame in frames]
    seen = [face for face in points if face is not None]
    if not seen:
        raise BadInput(f"{path}: no face was found in any of its {len(points)} frames")
    box = median_box([avatar_crop(face) for face in seen])
    missing = tuple(index for index, face in enumerate(points) if face is None)
    held = _hold(points, seen[0])
    keypoints = normalise_points(held, box).clip(-LARGEST_COORDINATE, LARGEST_COORDINATE)
    return VideoTrack(keypoints, video.fps, missing, box)


class FaceFollower:
    """One face, frame after frame: looked for in the crop of the frame before, found anew when lost, and smoothed."""

    def __init__(self, models: TrackerModels) -> None:
        self._tracker = Tracker(models)
        self._count, self._last = 0, 0.0
        self.forget()

    def forget(self) -> None:
        """Begin anew, as after a cut: the next face is the largest in its frame."""
        self._found: FaceMesh | None = None
        self._restart()

    def __call__(self, frame: VideoFrame) -> np.ndarray | None:
        """The 68 points in `frame`, float64 (68, 2) in its pixels, or None where no face is seen."""
        self._found = _follow(self._tracker, frame.image, self._found, thorough=self._count % THOROUGH_EVERY == 0)
        seconds, self._last = frame.seconds - self._last, frame.seconds
        self._count += 1
        if self._found is None:
            # A face that returns starts where it is, not where it was.
            self._restart()
            return None
        self._unit = self._unit or float(avatar_crop(self._found.points).half)
        return self._smooth(self._found.points.astype(np.float64) / self._unit, seconds) * self._unit

    def _restart(self) -> None:
        self._smooth = OneEuro(STEADY_HZ, FOLLOW_HZ)
        self._unit = 0.0


class Video:
    """A video file, opened and checked; `fps` and `frame_count` (None where the file does not say) come at once."""

    def __init__(self, path: str | Path) -> None:
        """Raises BadInput when `path` is missing or is no video."""
        self._path = Path(path)
        if not self._path.is_file():
            raise BadInput(f"{path}: there is no such video file")
        with self._open() as container:
            stream = container.streams.video[0]
            self.fps = float(stream.average_rate or stream.guessed_rate or 25)
            self.frame_count: int | None = stream.frames or None
            width, height = stream.width, stream.height
        if min(width, height) < SMALLEST_SIDE or width * height > LARGEST_PIXELS:
            raise BadInput(
                f"{path}: frames of {width}x{height} pixels; each side needs {SMALLEST_SIDE} or more, "
                f"and {LARGEST_PIXELS // 1_000_000} megapixels are the most"
            )

    def frames(self) -> Iterator[VideoFrame]:
        """The frames in order, decoded as they are asked for. Raises BadInput when none or a damaged one comes."""
        import av

        count = 0
        first = 0.0
        with self._open() as container:
            frames = container.decode(video=0)
            while True:
                try:
                    frame = next(frames, None)
                except av.FFmpegError as error:
                    raise BadInput(f"{self._path}: the video is damaged after frame {count}") from error
                if frame is None:
                    break
                seconds = frame.time if frame.time is not None else count / self.fps
                first = seconds if count == 0 else first
                # FFmpeg counts the rotation to apply counter-clockwise, as numpy does.
                image = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
                yield VideoFrame(np.ascontiguousarray(image), seconds - first)
                count += 1
        if not count:
            raise BadInput(f"{self._path}: the video has no frames")

    def _open(self):
        import av

        try:
            container = av.open(str(self._path))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise BadInput(f"{self._path}: not a video that can be read (foreign or truncated)") from error
        if not container.streams.video:
            container.close()
            raise BadInput(f"{self._path}: there is no picture in this file, only sound or data")
        return container


def _follow(tracker: Tracker, image: np.ndarray, last: FaceMesh | None, thorough: bool) -> FaceMesh | None:
    """The face of the frame before in this frame, or one found anew: the nearest to it, at the start the largest."""
    if last is not None:
        found = tracker.landmarks(image, last.as_face())
        if found.presence > 0:
            return found
    faces = tracker.detect(image, tiles=thorough)
    if last is not None:
        centre = last.as_face().centre
        faces.sort(key=lambda face: np.hypot(*np.subtract(face.centre, centre)))
    return next((found for face in faces if (found := tracker.confirm(image, face))), None)


def median_box(boxes: list[CropBox]) -> CropBox:
    """The median of centres and sizes, each on its own."""
    values = [[box.cx, box.cy, box.half] for box in boxes]
    return CropBox(*(int(value) for value in np.round(np.median(values, axis=0))))


def _hold(points: list[np.ndarray | None], first: np.ndarray) -> np.ndarray:
    """(T, 68, 2) with the gaps filled by what came before."""
    held = []
    for face in points:
        first = first if face is None else face
        held.append(first)
    return np.stack(held)
