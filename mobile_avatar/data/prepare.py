"""From a video to training frames: square crops, masks and keypoints of one face, unusable frames left out."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_avatar.data.prepare_quality import covers_face, is_frozen, reduced, sharpness
from mobile_avatar.data.prepare_sequences import Sequence, find_sequences, sampled_frames
from mobile_avatar.errors import BadInput
from mobile_avatar.images import SMALLEST_SIDE
from mobile_avatar.keypoints.contract import LARGEST_COORDINATE
from mobile_avatar.keypoints.crop import CropBox, crop_image, normalise_points
from mobile_avatar.keypoints.models import TrackerModels
from mobile_avatar.keypoints.segmenter import INPUT_SIZE, Segmenter, resize_plane
from mobile_avatar.keypoints.video import Video
from mobile_avatar.progress import progress

LARGEST_SIZE = 1024
LARGEST_CLIP_BYTES = 3_000_000_000
REASONS = {
    "no_face": "no face was found",
    "small_face": "the face is smaller than --min-face",
    "cut_off": "the face or a third of its crop lies outside of the picture",
    "short_sequence": "less than 0.2 s between two cuts",
    "blurred": "the face is less sharp than --min-sharpness",
    "frozen": "the same picture as before",
    "no_mask": "the segmentation misses the face",
}


@dataclass(frozen=True)
class PrepareOptions:
    """What is kept of a video."""

    fps: float | None = None
    """At most so many frames per second; None keeps the video's."""
    min_face: int | None = None
    """Smallest larger side of the face (its 68 points) in pixels of the video; None: a quarter of the crop's size."""
    min_sharpness: float = 0.05
    """See `prepare_quality.sharpness`; 0 keeps blurred frames."""

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= 240:
            raise BadInput(f"{self.fps:g} frames per second cannot be kept: use more than 0 and at most 240")
        if self.min_face is not None and self.min_face < 1:
            raise BadInput(f"a smallest face of {self.min_face} pixels makes no sense: use 1 or more")
        if not 0 <= self.min_sharpness < 10:
            raise BadInput(f"a smallest sharpness of {self.min_sharpness:g} makes no sense: use 0 to 10")


@dataclass(frozen=True)
class PreparedFrame:
    """One frame that was kept."""

    number: int
    """In the video, from 0."""
    sequence: int
    """Which stretch without a cut; all its frames have the same crop."""
    image: np.ndarray
    """uint8 (S, S, 3) RGB, black outside of the picture."""
    mask: np.ndarray
    """uint8 (S, S): 255 is the person."""
    keypoints: np.ndarray
    """float32 (136,), in [-1, 1] of the crop."""


@dataclass(frozen=True)
class PreparedClip:
    """The kept frames of a video, T of them in order."""

    images: np.ndarray
    """uint8 (T, S, S, 3) RGB, black outside of the picture."""
    masks: np.ndarray
    """uint8 (T, S, S): 255 is the person."""
    keypoints: np.ndarray
    """float32 (T, 136), in [-1, 1] of the crop."""
    numbers: np.ndarray
    """int64 (T,): frame numbers in the video, from 0, rising."""
    sequences: np.ndarray
    """int64 (T,): which stretch without a cut each frame belongs to, from 0; numbers may be left out."""
    fps: float
    """Of the video; kept frames are `numbers` apart."""
    rejected: dict[str, int]
    """Reason (a key of `REASONS`) to number of frames left out."""
    box: tuple[CropBox, ...]
    """The crop of each sequence number, in pixels of the upright video."""


def prepare_clip(
    path: str | Path,
    models: TrackerModels,
    size: int,
    options: PrepareOptions | None = None,
    show_progress: bool = False,
) -> PreparedClip:
    """Prepare one short video in memory.

    Args:
        path: any video that FFmpeg reads; rotation marked in the file is applied.
        models: from `tracker_models`.
        size: side S of the crops in pixels, 32 to 1024.
        options: what to keep; default `PrepareOptions()`.
        show_progress: say on stderr how far it is.

    Raises:
        BadInput: the video cannot be read, no frame of it is usable, or it is too long for memory.
    """
    check_size(size)
    options = options or PrepareOptions()
    video, rejected = Video(path), Counter()
    label = Path(path).name if show_progress else None
    sequences = plan_video(video, models, size, options, rejected, label)
    planned = sum(len(sequence.points) for sequence in sequences)
    if planned * size * size * 4 > LARGEST_CLIP_BYTES:
        raise BadInput(
            f"{path}: {planned} frames of {size}x{size} pixels do not fit into memory; "
            "give a shorter video or keep fewer frames per second"
        )
    frames = list(prepared_frames(video, sequences, models, size, options, rejected, label))
    if not frames:
        raise BadInput(nothing_kept(path, rejected))
    return PreparedClip(
        np.stack([frame.image for frame in frames]),
        np.stack([frame.mask for frame in frames]),
        np.stack([frame.keypoints for frame in frames]),
        np.array([frame.number for frame in frames]),
        np.array([frame.sequence for frame in frames]),
        video.fps,
        dict(rejected),
        tuple(sequence.box for sequence in sequences),
    )


def check_size(size: int) -> None:
    """Raises BadInput for crops that are too small or too large."""
    if not SMALLEST_SIDE <= size <= LARGEST_SIZE:
        raise BadInput(f"crops cannot be made at {size} px: use {SMALLEST_SIDE} to {LARGEST_SIZE}")


def plan_video(
    video: Video,
    models: TrackerModels,
    size: int,
    options: PrepareOptions,
    rejected: Counter,
    label: str | None = None,
) -> list[Sequence]:
    """Decode once to find faces, cuts and crops; `rejected` counts frames by reason. Raises BadInput."""
    min_face = max(1, size // 4) if options.min_face is None else options.min_face
    return find_sequences(video, models, options.fps, min_face, rejected, label)


def prepared_frames(
    video: Video,
    sequences: list[Sequence],
    models: TrackerModels,
    size: int,
    options: PrepareOptions,
    rejected: Counter,
    label: str | None = None,
) -> Iterator[PreparedFrame]:
    """Decode again and yield what is kept of the planned frames, one at a time; `rejected` counts the others."""
    segmenter = Segmenter(models.segmenter)
    owner = {number: index for index, sequence in enumerate(sequences) for number in sequence.points}
    before: dict[int, np.ndarray] = {}
    planned = (item for item in sampled_frames(video, options.fps) if item[0] in owner)
    for number, frame in progress(planned, len(owner), f"cropping {label}", label is not None):
        index = owner[number]
        sequence = sequences[index]
        points = sequence.points[number]
        if sharpness(frame.image, points) < options.min_sharpness:
            rejected["blurred"] += 1
            continue
        crop = crop_image(frame.image, sequence.box, max(size, INPUT_SIZE))
        now = reduced(crop)
        if is_frozen(now, before.get(index)):
            rejected["frozen"] += 1
            continue
        before[index] = now
        # The mask comes from the segmenter's own resolution; a smaller crop would cost detail at the outline.
        soft = resize_plane(segmenter.segment(crop), size) * _inside(sequence.box, frame.image.shape, size)
        mask = np.rint(soft * 255).astype(np.uint8)
        keypoints = normalise_points(points, sequence.box).clip(-LARGEST_COORDINATE, LARGEST_COORDINATE)
        if not covers_face(mask, keypoints):
            rejected["no_mask"] += 1
            continue
        image = crop if len(crop) == size else crop_image(frame.image, sequence.box, size)
        yield PreparedFrame(number, index, image, mask, keypoints)


def _inside(box: CropBox, shape: tuple[int, ...], size: int) -> np.ndarray:
    """bool (S, S): where a crop shows the picture; the segmentation takes the black beside it for clothes."""
    centres = box.half * (2 * np.arange(size) + 1) / size - box.half
    rows, columns = box.cy + centres, box.cx + centres
    return ((rows >= 0) & (rows < shape[0]))[:, None] & ((columns >= 0) & (columns < shape[1]))


def nothing_kept(path: str | Path, rejected: dict[str, int]) -> str:
    """The sentence for a video of which nothing can be used."""
    total = sum(rejected.values())
    reason = max(rejected, key=rejected.get)
    return (
        f"{path}: none of {total} frames can be used (in {rejected[reason]}: {REASONS[reason]}); "
        "give a video that shows one face from the front, well lit"
    )
