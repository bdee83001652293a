"""Small films for tests."""

from pathlib import Path

import av
import cv2
import numpy as np

FPS = 25


def write_video(path: Path, frames: list[np.ndarray], codec: str = "mpeg4") -> Path:
    """Encode uint8 (H, W, 3) RGB frames at 25 per second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 8_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def shifted(image: np.ndarray, x: float, y: float = 0) -> np.ndarray:
    """The picture moved to the right and down; what is missing is mirrored."""
    move = np.float64([[1, 0, x], [0, 1, y]])
    return cv2.warpAffine(image, move, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
