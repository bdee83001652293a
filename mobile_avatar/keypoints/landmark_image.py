"""Landmark images: the 68 points as coloured lines, which the embedder and the discriminator see beside a face.

Two implementations of one drawing: `draw_landmarks` is the official one (OpenCV) and the reference;
`draw_landmarks_batched` is pure torch, for training machines without OpenCV, and is tested against the first.

The numbers that make it official (specification of the bi-layer release): canvas of value 1 of 255, lines of
thickness 2, points truncated to whole pixels towards zero.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.keypoints.contract import GROUPS, POINT_COUNT

BACKGROUND_LEVEL = 1
# OpenCV's 16-bit fixed point, and the five pixels of its filled circle of radius 1.
FIXED_BITS = 16
FIXED_ONE = 1 << FIXED_BITS
DISC = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
NOWHERE = 1 << 20


@dataclass(frozen=True)
class Stroke:
    """One polyline: its points in order, its RGB colour, and whether the last point joins the first."""

    points: tuple[int, ...]
    colour: tuple[int, int, int]
    closed: bool = False

    @property
    def segments(self) -> list[tuple[int, int]]:
        """Pairs of point numbers."""
        ends = self.points[1:] + self.points[:1] if self.closed else self.points[1:]
        return list(zip(self.points, ends, strict=False))


# In drawing order: a later stroke covers an earlier one.
STROKES: tuple[Stroke, ...] = (
    Stroke(tuple(GROUPS["jaw"]), (255, 255, 255)),
    Stroke(tuple(GROUPS["right_brow"]), (255, 0, 0)),
    Stroke(tuple(GROUPS["left_brow"]), (0, 255, 0)),
    # The bridge goes on to the middle of the nostrils.
    Stroke((*GROUPS["nose"], 33), (0, 0, 255)),
    Stroke(tuple(GROUPS["nostrils"]), (0, 0, 255)),
    Stroke(tuple(GROUPS["right_eye"]), (255, 0, 255), closed=True),
    Stroke(tuple(GROUPS["left_eye"]), (0, 255, 255), closed=True),
    Stroke(tuple(GROUPS["outer_lips"]), (255, 255, 0), closed=True),
    Stroke(tuple(GROUPS["inner_lips"]), (255, 255, 0), closed=True),
)


def draw_landmarks(keypoints: np.ndarray, image_size: int) -> np.ndarray:
    """Draw one face with OpenCV, exactly as the official release does.

    Args:
        keypoints: float (136,) or (68, 2) in [-1, 1] of the crop; points outside are allowed.
        image_size: S, the side of the image in pixels.

    Returns:
        float32 (3, S, S), RGB in [-1, 1].
    """
    import cv2

    points = np.asarray(keypoints, dtype=np.float32).reshape(POINT_COUNT, 2)
    points = ((points + 1) / 2 * image_size).astype(np.int32)
    canvas = np.full((image_size, image_size, 3), BACKGROUND_LEVEL, dtype=np.uint8)
    for stroke in STROKES:
        cv2.polylines(canvas, [points[list(stroke.points)]], stroke.closed, stroke.colour, thickness=2)
    return np.ascontiguousarray(canvas.transpose(2, 0, 1), dtype=np.float32) / 255 * 2 - 1


def draw_landmarks_batched(keypoints: Tensor, image_size: int) -> Tensor:
    """Draw a batch of faces in torch, on the device of `keypoints`; no gradient flows.

    Args:
        keypoints: float (N, 136) in [-1, 1] of the crop; points outside are allowed.
        image_size: S, the side of the image in pixels.

    Returns:
        float32 (N, 3, S, S), RGB in [-1, 1]. Equal to `draw_landmarks` but for about one pixel in 100,000; lines that
        cross the border of the image, which OpenCV clips before it rounds, may differ by one pixel of width.
    """
    device = keypoints.device
    points = keypoints.detach().to(torch.float32).reshape(-1, POINT_COUNT, 2)
    points = ((points + 1) / 2 * image_size).long()  # truncates towards zero, as the official code does
    first, last, order, palette = (table.to(device) for table in _tables())
    start, end = points[:, first], points[:, last]  # (N, segments, 2)

    ends = torch.stack((start, end), dim=2)[:, :, :, None] + torch.tensor(DISC, device=device)  # (N, segments, 2, 5, 2)
    pixels = torch.cat((_line_pixels(start, end, image_size), ends.flatten(2, 3)), dim=2)
    inside = ((pixels >= 0) & (pixels < image_size)).all(dim=-1)
    index = (pixels[..., 1] * image_size + pixels[..., 0]).where(inside, 0).flatten(1)
    # The highest stroke number wins, which is the drawing order; number 0 is the background.
    number = order[:, None].expand_as(inside).where(inside, 0).flatten(1)
    canvas = torch.zeros(len(points), image_size * image_size, device=device, dtype=order.dtype)
    canvas.scatter_reduce_(1, index, number, reduce="amax")
    return palette[canvas].reshape(-1, image_size, image_size, 3).permute(0, 3, 1, 2).contiguous()


def _line_pixels(start: Tensor, end: Tensor, image_size: int) -> Tensor:
    """Whole pixels of thick lines without their round ends: (N, segments, 2) twice -> (N, segments, count, 2).

    As OpenCV: the two long edges of a rectangle of half width 1 are walked in steps of one pixel along the longer
    axis, in 16-bit fixed point, and what lies between them is filled. Pixels may repeat or lie outside the image.
    """
    steep = ((end - start).abs().diff(dim=-1) >= 0).squeeze(-1)  # (N, segments): walk along y
    start, end = (side.flip(-1).where(steep[..., None], side) for side in (start, end))
    swap = (end[..., :1] < start[..., :1]).expand_as(start)
    start, end = end.where(swap, start), start.where(swap, end)

    span, rise = (end - start).unbind(-1)
    scale = FIXED_ONE / torch.sqrt((span**2 + rise**2).double()).clamp(min=1)
    slope = torch.div(rise * FIXED_ONE**2, (span * FIXED_ONE) | 1, rounding_mode="trunc")
    offset = torch.stack((-(rise * scale).round().long(), (span * scale).round().long()), dim=-1)
    # The two edges, (N, segments, 2 edges, 2), rounded to the nearest pixel when shifted down.
    edges = (start * FIXED_ONE + FIXED_ONE // 2)[:, :, None] + torch.stack((offset, -offset), dim=2)
    begin = edges[..., 0] >> FIXED_BITS
    final = begin + span[..., None]

    low = begin.amin(dim=2).clamp(0, image_size)
    high = final.amax(dim=2).clamp(-1, image_size - 1)
    steps = max(int((high - low).max()) + 1, 1) if len(start) else 1
    along = (low[..., None] + torch.arange(steps, device=start.device)).clamp(max=image_size)  # (N, segments, steps)
    height = (edges[..., 1, None] + (along[:, :, None] - begin[..., None]) * slope[..., None, None]) >> FIXED_BITS
    on_edge = (along[:, :, None] >= begin[..., None]) & (along[:, :, None] <= final[..., None])
    lowest = height.where(on_edge, NOWHERE).amin(dim=2)
    highest = height.where(on_edge, -NOWHERE).amax(dim=2)
    # OpenCV fills row by row and rounds each row's ends outwards, which on flat lines goes beyond the walked edges.
    level = (edges[..., 1] >> FIXED_BITS << FIXED_BITS)[..., None]
    shift = (along[:, :, None] << FIXED_BITS) - edges[..., :1] + FIXED_ONE // 2
    row = level + (shift * slope[..., None, None] >> FIXED_BITS)
    reach = slope.abs()[..., None] // 2
    both = on_edge.all(dim=2) & ~steep[..., None]
    lowest = torch.minimum(lowest, -(-(row.amin(dim=2) - reach) >> FIXED_BITS)).where(both, lowest)
    highest = torch.maximum(highest, (row.amax(dim=2) + reach) >> FIXED_BITS).where(both, highest)
    # At 45 degrees the rectangle covers five pixels across; narrower ones repeat their last pixel.
    across = lowest[..., None] + torch.arange(5, device=start.device)
    across = torch.minimum(across, highest[..., None]).where((highest >= lowest)[..., None], NOWHERE)
    pixels = torch.stack((along[..., None].expand_as(across), across), dim=-1)
    return pixels.flip(-1).where(steep[..., None, None, None], pixels).flatten(2, 3)


@functools.cache
def _tables() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First and last point of every segment, its stroke number from 1, and the colours with the background first."""
    rows = [(a, b, number) for number, stroke in enumerate(STROKES, start=1) for a, b in stroke.segments]
    first, last, order = torch.tensor(rows).unbind(1)
    colours = [(BACKGROUND_LEVEL,) * 3, *(stroke.colour for stroke in STROKES)]
    return first, last, order, torch.tensor(colours, dtype=torch.float32) / 255 * 2 - 1
