"""The labelled grid: every picture is where it belongs, and nothing depends on how many there are."""

import numpy as np
import pytest
from PIL import Image

from mobile_avatar.rendering.contact_sheet import CELL, contact_sheet


def flat(colour, size=48):
    return np.full((size, size, 3), colour, np.uint8)


def read(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def pixels_of(sheet, colour):
    return np.argwhere((sheet == colour).all(axis=-1))


def test_pictures_are_in_reading_order(tmp_path):
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    cells = [(f"no {number}", flat(colour)) for number, colour in enumerate(colours)]
    contact_sheet(cells, 3, tmp_path / "sheet.png")
    sheet = read(tmp_path / "sheet.png")
    places = [pixels_of(sheet, colour) for colour in colours]
    assert [len(place) for place in places] == [48 * 48] * 5
    rows, columns = zip(*(place.mean(axis=0) for place in places), strict=True)
    assert rows[0] == rows[1] == rows[2] < rows[3] == rows[4]
    assert columns[0] == columns[3] < columns[1] == columns[4] < columns[2]
    # A label in light ink under every picture.
    for place in places:
        (top, left), (bottom, right) = place.min(axis=0), place.max(axis=0)
        under = sheet[bottom + 1 : bottom + 20, left : right + 1]
        assert under.max() > 150
        assert top >= 0


def test_missing_grey_and_small_pictures(tmp_path):
    small = np.full((12, 24, 3), (200, 10, 10), np.uint8)
    cells = [
        ("big", flat((10, 200, 10))),
        ("missing", None),
        ("mask", np.full((48, 48), 77, np.uint8)),
        ("small", small),
    ]
    contact_sheet(cells, 2, tmp_path / "sheet.png")
    sheet = read(tmp_path / "sheet.png")
    assert (sheet[6:54, 60:108] == CELL).all()  # the empty cell, top right
    assert len(pixels_of(sheet, (77, 77, 77))) == 48 * 48
    assert len(pixels_of(sheet, (200, 10, 10))) == 48 * 24  # scaled up to the width of a cell, aspect kept


@pytest.mark.parametrize(("count", "columns"), [(1, 8), (7, 7), (7, 1)])
def test_any_number_of_cells(tmp_path, count, columns):
    contact_sheet(
        [("a label much too long for its cell " * 3, flat((1, 2, 3), 32))] * count, columns, tmp_path / "s.png"
    )
    sheet = read(tmp_path / "s.png")
    assert len(pixels_of(sheet, (1, 2, 3))) == count * 32 * 32


def test_failure_leaves_the_old_sheet(tmp_path, monkeypatch):
    path = tmp_path / "sheet.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        contact_sheet([("one", flat((1, 2, 3)))], 1, path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["sheet.png"]
