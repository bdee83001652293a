"""What every rasteriser here is made of: the pixels that a triangle may cover, and a depth test by integer minimum.

Each triangle proposes the pixels of its bounding box. All proposals of all triangles form one long list (a box of 3 x 5
pixels is 15 entries), so that small and large triangles cost what their boxes cost, and the same few tensor operations
serve the CPU and a GPU. The list comes in pieces of bounded length, in ascending order of the triangles.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

PIECE = 1_000_000
"""Proposals at a time, which bounds the memory; a single box may exceed it."""
EMPTY = 2**63 - 1


def pixel_boxes(x: Tensor, y: Tensor, size: int, reach: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bounding boxes of triangles in a picture of size x size pixels whose centres lie at +0.5.

    Args:
        x, y: (3, m) corners in pixels.
        size: side of the picture.
        reach: how many pixels further a triangle matters.

    Returns:
        left, top, wide, high, (m,) int32 each; wide or high is 0 where no centre lies in the box. Corners that are not
        numbers give nonsense.
    """
    left, wide = _span(x, size, reach)
    top, high = _span(y, size, reach)
    return left, top, wide, high


def _span(values: Tensor, size: int, reach: float) -> tuple[Tensor, Tensor]:
    low = torch.ceil(values.amin(dim=0) - (reach + 0.5)).clamp(0, size).int()
    high = torch.floor(values.amax(dim=0) + (reach - 0.5)).clamp(-1, size - 1).int()
    return low, (high - low + 1).clamp(min=0)


def proposals(boxes: tuple[Tensor, Tensor, Tensor, Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The pixels of the boxes, a piece at a time, boxes in ascending order.

    Args:
        boxes: left, top, wide, high as `pixel_boxes` gives them, (m,) each.

    Yields:
        box numbers of the piece (b,) int64; for each proposal its place in that list (k,) int64, and its column and
        row (k,) int32.
    """
    left, top, wide, high = boxes
    count = wide * high
    filled = torch.nonzero(count)[:, 0]
    count = count.index_select(0, filled)
    ends = count.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    limits = torch.tensor(range(PIECE, total, PIECE), dtype=torch.int64, device=ends.device)
    cuts = torch.searchsorted(ends, limits).tolist()
    for start, end in zip([0, *cuts], [*cuts, len(filled)], strict=True):
        if start == end:
            continue
        part, share = filled[start:end], count[start:end]
        place = torch.repeat_interleave(share)
        first = ends[start:end] - share
        step = (torch.arange(place.numel(), device=place.device) + first[0]).sub_(first.index_select(0, place)).int()
        columns = wide.index_select(0, part).index_select(0, place)
        row = torch.div(step, columns, rounding_mode="floor")
        column = step - row * columns
        yield (
            part,
            place,
            column.add_(left.index_select(0, part).index_select(0, place)),
            row.add_(top.index_select(0, part).index_select(0, place)),
        )


def keep_nearest(best: Tensor, pixel: Tensor, depth: Tensor, number: Tensor) -> None:
    """Enter proposals into the depth test: the smallest depth wins, of equal ones the lowest number.

    Args:
        best: (p,) int64, changed in place, EMPTY before the first proposal; `winners` reads it.
        pixel: (k,) int64 index into best.
        depth: (k,) float, at least 0, compared in float32; smaller is nearer.
        number: (k,) int64 below 2**32.
    """
    best.scatter_reduce_(0, pixel, ordered_bits(depth) << 32 | number, "amin")


def ordered_bits(depth: Tensor) -> Tensor:
    """int64 in [0, 2**31) that order as the float32 values of depth, which are at least 0."""
    return (depth.float() + 0.0).view(torch.int32).long()  # + 0.0: minus zero is zero


def winners(best: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels that somebody won, (k,) int64 ascending, and the number of the winner, (k,) int64."""
    pixel = torch.nonzero(best != EMPTY)[:, 0]
    return pixel, best.index_select(0, pixel) & 0xFFFFFFFF
