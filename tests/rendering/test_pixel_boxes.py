"""Pixel boxes and the depth test that all rasterisers share."""

import pytest
import torch

from mobile_avatar.rendering import pixel_boxes
from mobile_avatar.rendering.pixel_boxes import EMPTY, keep_nearest, proposals, winners


def listed(boxes):
    found = []
    for part, place, column, row in proposals(boxes):
        found += zip(part[place].tolist(), row.tolist(), column.tolist(), strict=True)
    return found


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_every_pixel_of_every_box_is_proposed_once(monkeypatch, piece):
    monkeypatch.setattr(pixel_boxes, "PIECE", piece)
    x = torch.tensor([[0.5, 1.5, 0.6], [3.2, 3.3, 3.4], [9.0, 20.0, 9.1], [-7.0, -3.0, -5.0]]).t()
    y = torch.tensor([[0.0, 2.6, 1.0], [0.0, 9.0, 1.0], [10.4, 11.0, 10.6], [0.0, 9.0, 1.0]]).t()
    boxes = pixel_boxes.pixel_boxes(x, y, 12)
    wanted = [(0, row, column) for row in (0, 1, 2) for column in (0, 1) if row + 0.5 <= 2.6]
    wanted += [(2, 10, column) for column in (9, 10, 11)]
    assert listed(boxes) == wanted
    wider = pixel_boxes.pixel_boxes(x[:, 1:2], y[:, 1:2], 12, reach=0.25)
    assert listed(wider) == [(0, row, 3) for row in range(9)]


def test_the_nearest_wins_and_of_equals_the_lowest_number():
    best = torch.full((4,), EMPTY)
    pixel = torch.tensor([0, 0, 0, 1, 1, 2])
    depth = torch.tensor([2.0, 1.0, 1.5, 3.0, 3.0, -0.0])
    keep_nearest(best, pixel, depth, torch.tensor([0, 1, 2, 9, 4, 5]))
    keep_nearest(best, torch.tensor([2, 1]), torch.tensor([0.0, 1e30]), torch.tensor([3, 0]))
    pixels, numbers = winners(best)
    assert pixels.tolist() == [0, 1, 2]
    assert numbers.tolist() == [1, 4, 3]
