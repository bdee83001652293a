"""The first look at a video: the face in every frame, cut into sequences that share one crop each."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from mobile_avatar.keypoints.crop import CropBox, avatar_crop
from mobile_avatar.keypoints.models import TrackerModels
from mobile_avatar.keypoints.video import FaceFollower, Video, VideoFrame, median_box
from mobile_avatar.progress import progress

# Mean change, in levels of 255, of a picture reduced to 16x16: a moving head in front of a camera makes 0.2 to 2.
CUT_LEVELS = 20.0
THUMB = 16
# A face does not move by half its size, nor change its size by half, from one frame to the next.
JUMP_SHARE, JUMP_RATIO = 0.5, 1.5
# The head with its hair fills about this share of its own crop.
HEAD_SHARE = 0.85
# A crop is widened up to this for a head that moves; beyond it, a new sequence begins.
WIDEST = 1.4
SHORTEST_SECONDS = 0.2
# Pictures in which more of the crop than this lies outside of the camera's view say too little about the head.
MOST_OUTSIDE = 1 / 3


@dataclass(frozen=True)
class Sequence:
    """Frames of one face, without a cut, in one crop."""

    box: CropBox
    """In pixels of the upright video."""
    points: dict[int, np.ndarray]
    """Frame number to float64 (68, 2), in pixels of the upright video."""


@dataclass
class _Run:
    """A sequence that is still growing."""

    points: dict[int, np.ndarray] = field(default_factory=dict)
    boxes: list[CropBox] = field(default_factory=list)
    low: np.ndarray = field(default_factory=lambda: np.full(2, np.inf))
    high: np.ndarray = field(default_factory=lambda: np.full(2, -np.inf))

    def takes(self, box: CropBox) -> bool:
        """Whether this face continues the run: no jump, and the widened crop stays tight enough."""
        if not self.boxes:
            return True
        last = self.boxes[-1]
        moved = np.hypot(box.cx - last.cx, box.cy - last.cy)
        ratio = max(box.half, last.half) / min(box.half, last.half)
        low, high = _head(box)
        spread = float((np.maximum(high, self.high) - np.minimum(low, self.low)).max()) / 2
        smallest = min(box.half, *(other.half for other in self.boxes))
        return moved <= JUMP_SHARE * last.half and ratio <= JUMP_RATIO and spread <= WIDEST * smallest

    def add(self, number: int, points: np.ndarray, box: CropBox) -> None:
        low, high = _head(box)
        self.low, self.high = np.minimum(low, self.low), np.maximum(high, self.high)
        self.points[number] = points
        self.boxes.append(box)

    def crop(self) -> CropBox:
        """The median crop, widened and moved no more than needed to keep the head inside in every frame."""
        middle = median_box(self.boxes)
        half = max(middle.half, int(np.ceil((self.high - self.low).max() / 2)))
        cx, cy = np.clip((middle.cx, middle.cy), self.high - half, self.low + half).round().astype(int)
        return CropBox(int(cx), int(cy), half)


def sampled_frames(video: Video, fps: float | None) -> Iterator[tuple[int, VideoFrame]]:
    """Numbered frames of a video, all of them or at most `fps` per second, evenly."""
    due = 0.0
    for number, frame in enumerate(video.frames()):
        # Half a frame early is near enough: 25 frames thinned to 10 per second would otherwise fall behind.
        if fps is None or frame.seconds >= due - 0.5 / video.fps:
            due += 1 / fps if fps else 0.0
            yield number, frame


def find_sequences(
    video: Video, models: TrackerModels, fps: float | None, min_face: int, rejected: Counter, label: str | None = None
) -> list[Sequence]:
    """Track the largest face through `video` and cut it where the face is lost, jumps, leaves its crop, or at a cut.

    Args:
        video: decoded once from the beginning.
        models: of the tracker.
        fps: frames per second to look at; None takes all.
        min_face: smallest larger side of the 68-point box, in pixels of the video.
        rejected: counts the frames left out here: no_face, small_face, cut_off, short_sequence.
        label: name the work on stderr under this name; None is silent.

    Raises:
        BadInput: the video is damaged or empty.
    """
    follower = FaceFollower(models)
    runs, thumb, view = [_Run()], None, (1, 1)
    frames = progress(sampled_frames(video, fps), _expected(video, fps), f"tracking {label}", label is not None)
    for number, frame in frames:
        before, thumb = thumb, _thumb(frame.image)
        view = frame.image.shape[1::-1]
        if before is not None and np.abs(thumb - before).mean() > CUT_LEVELS:
            follower.forget()
            runs.append(_Run())
        points = follower(frame)
        if points is None:
            rejected["no_face"] += 1
            runs.append(_Run())
            continue
        if (points.max(axis=0) - points.min(axis=0)).max() < min_face:
            rejected["small_face"] += 1
        elif (points < 0).any() or (points > view).any():
            rejected["cut_off"] += 1
        else:
            box = avatar_crop(points)
            if not runs[-1].takes(box):
                runs.append(_Run())
            runs[-1].add(number, points, box)
    # A handful of frames between two cuts is mostly the tracker's error; thinned frames last longer each.
    shortest = SHORTEST_SECONDS * min(video.fps, fps or video.fps)
    sequences = []
    for run in runs:
        if not run.points:
            continue
        box = run.crop()
        reason = "short_sequence" if len(run.points) < shortest else None
        reason = "cut_off" if _outside(box, view) > MOST_OUTSIDE else reason
        if reason:
            rejected[reason] += len(run.points)
        else:
            sequences.append(Sequence(box, run.points))
    return sequences


def _expected(video: Video, fps: float | None) -> int | None:
    if fps is None or video.frame_count is None:
        return video.frame_count
    return max(1, round(video.frame_count * min(1.0, fps / video.fps)))


def _thumb(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.resize(image, (THUMB, THUMB), interpolation=cv2.INTER_AREA).astype(np.float32)


def _head(box: CropBox) -> tuple[np.ndarray, np.ndarray]:
    centre = np.array([box.cx, box.cy], dtype=np.float64)
    return centre - HEAD_SHARE * box.half, centre + HEAD_SHARE * box.half


def _outside(box: CropBox, view: tuple[int, int]) -> float:
    """The share of a crop that lies outside of the picture."""
    spans = [
        max(min(centre + box.half, extent) - max(centre - box.half, 0), 0)
        for centre, extent in zip((box.cx, box.cy), view, strict=True)
    ]
    return 1 - spans[0] * spans[1] / (2 * box.half) ** 2
