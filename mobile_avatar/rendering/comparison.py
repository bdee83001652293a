"""Pictures side by side: a labelled film, and the curve of a measurement."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mobile_avatar.files import replace_file
from mobile_avatar.rendering.animate import WRITERS

INK, DIM, PAPER = (225, 225, 225), (110, 110, 110), (32, 32, 32)


def side_by_side(columns: Sequence[tuple[str, np.ndarray]], output: Path, fps: float) -> None:
    """Write equally long films beside each other, each under its label; an existing file is replaced in one step.

    Args:
        columns: (label, uint8 (T, S, S, 3) RGB) each.
        output: an .mp4 or .gif file.
        fps: frames per second.
    """
    top = np.concatenate([_label(label, frames.shape[2]) for label, frames in columns], axis=1)

    def frames() -> Iterator[np.ndarray]:
        for row in zip(*(films for _, films in columns), strict=True):
            yield np.concatenate([top, np.concatenate(row, axis=1)], axis=0)

    with replace_file(output) as temporary:
        WRITERS[output.suffix.lower()](temporary, frames(), fps)


def curve(points: Sequence[tuple[float, float]], size: int) -> np.ndarray:
    """A line through (x, y) points, at least one, that fills the picture: uint8 (size, size, 3) RGB."""
    image = Image.new("RGB", (size, size), PAPER)
    draw, margin = ImageDraw.Draw(image), size // 10
    values = np.array(points, dtype=np.float64)
    low, high = values.min(axis=0), values.max(axis=0)
    places = margin + (values - low) / np.where(high > low, high - low, 1) * (size - 2 * margin)
    draw.line([(margin, margin), (margin, size - margin), (size - margin, size - margin)], DIM)
    draw.line([(x, size - y) for x, y in places.tolist()], INK, width=max(1, size // 100))
    return np.array(image)


def _label(text: str, width: int) -> np.ndarray:
    font = ImageFont.load_default(size=min(20, max(10, width // 12)))
    height = (sum(font.getmetrics()) + 8) // 2 * 2
    image = Image.new("RGB", (width, height), PAPER)
    ImageDraw.Draw(image).text((width // 2, height // 2), text, INK, font, anchor="mm")
    return np.array(image)
