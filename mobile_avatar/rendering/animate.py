"""Keypoints to a video: render every frame, encode, and put the file in place when it is whole."""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file
from mobile_avatar.keypoints.contract import check_keypoints
from mobile_avatar.progress import progress as report
from mobile_avatar.rendering.composite import to_rgb8
from mobile_avatar.rendering.contact_sheet import contact_sheet as write_contact_sheet

SHEET_FRAMES, SHEET_COLUMNS = 12, 4
FASTEST_FPS = 1000
H264_QUALITY = "17"  # x264's constant rate factor: visually lossless for a head of this size
GIF_TICKS = 100  # a GIF counts time in hundredths of a second, and browsers slow down what is faster than two of them
GIF_FASTEST_FPS = 50
COMMENT = "synthetic media, made with mobile-avatar"


def animate(
    render: Callable[[np.ndarray], np.ndarray],
    keypoints: np.ndarray,
    output: str | Path,
    fps: float,
    progress: bool = True,
    *,
    drivers: np.ndarray | None = None,
    landmarks: bool = False,
    contact_sheet: str | Path | None = None,
) -> None:
    """Render a track of keypoints to a video; an existing file is replaced only when the new one is complete.

    Args:
        render: a row of `drivers` -> uint8 (S, S, 3) RGB, the same S for every frame.
        keypoints: float (T, 136) or another shape that `check_keypoints` takes, in [-1, 1] of the crop.
        output: `.mp4` (H.264) or `.gif` (endless loop).
        fps: frames per second, a GIF at most 50.
        progress: show a bar on a terminal, lines elsewhere.
        drivers: (T, n), what `render` takes where it is not the keypoints, float32 (T, 136), themselves.
        landmarks: put the driving landmarks, drawn as lines, to the left of each frame.
        contact_sheet: also write up to twelve frames, evenly spread over the track, to this PNG.

    Raises:
        BadInput: another suffix, a frame rate that the format cannot have, or keypoints that are not keypoints.
    """
    output = Path(output)
    check_film(output, fps)
    keypoints = check_keypoints(keypoints, "the keypoints")
    drivers = keypoints if drivers is None else drivers
    chosen = set(np.linspace(0, len(keypoints) - 1, min(SHEET_FRAMES, len(keypoints))).round().astype(int).tolist())
    cells = []

    def frames() -> Iterator[np.ndarray]:
        for number, points in enumerate(report(keypoints, len(keypoints), f"rendering {output.name}", progress)):
            frame = render(drivers[number])
            if landmarks:
                frame = np.concatenate((_landmark_panel(points, len(frame)), frame), axis=1)
            if number in chosen:
                cells.append((f"{number / fps:.2f} s", frame))
            yield frame

    with replace_file(output) as temporary:
        WRITERS[output.suffix.lower()](temporary, frames(), fps)
    if contact_sheet is not None:
        write_contact_sheet(cells, SHEET_COLUMNS, Path(contact_sheet))


def check_film(output: Path, fps: float | None = None) -> None:
    """Refuse what `animate` cannot write, before any work: BadInput for another suffix or an impossible frame rate.

    Args:
        output: path of the film to be.
        fps: frames per second, None when not known yet.
    """
    suffix = output.suffix.lower()
    if suffix not in WRITERS:
        raise BadInput(f"{output}: films are written as {' or '.join(WRITERS)}; choose one of these suffixes")
    if fps is not None and not 0 < fps < FASTEST_FPS:
        raise BadInput(f"{fps} frames per second is not a frame rate; choose one above 0 and below {FASTEST_FPS}")
    if fps is not None and suffix == ".gif" and fps > GIF_FASTEST_FPS:
        raise BadInput(f"{output}: a GIF has at most {GIF_FASTEST_FPS} frames per second, not {fps:g}; choose .mp4")


def _landmark_panel(points: np.ndarray, size: int) -> np.ndarray:
    from mobile_avatar.keypoints.landmark_image import draw_landmarks

    return to_rgb8(draw_landmarks(points, size).transpose(1, 2, 0))


def _write_mp4(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = COMMENT
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": H264_QUALITY}
        for number, frame in enumerate(frames):
            # 4:2:0 colour needs even sides: an odd frame gets its last row or column twice.
            frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
            if number == 0:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _write_gif(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    # Each frame has its own palette; reduced at once, since a GIF is encoded from a list.
    images = [Image.fromarray(frame).quantize() for frame in frames]
    # Rounding the times instead of the durations keeps the length of the whole right.
    times = [round(number * GIF_TICKS / fps) * 1000 // GIF_TICKS for number in range(len(images) + 1)]
    durations = [end - begin for begin, end in pairwise(times)]
    images[0].save(
        path, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, comment=COMMENT
    )


WRITERS: dict[str, Callable[[Path, Iterable[np.ndarray], float], None]] = {".mp4": _write_mp4, ".gif": _write_gif}
