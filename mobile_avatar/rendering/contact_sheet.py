"""A labelled grid of pictures in one PNG: what was made, at one glance."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mobile_avatar.files import replace_file

BACKGROUND, CELL, INK = (32, 32, 32), (48, 48, 48), (225, 225, 225)
GAP = 6


def contact_sheet(cells: Sequence[tuple[str, np.ndarray | None]], columns: int, output: Path) -> None:
    """Write pictures with labels under them, row by row, to a PNG; an existing file is replaced in one step.

    Args:
        cells: (label, uint8 (H, W, 3) RGB or (H, W) grey) each, at least one; None in place of a picture leaves an
            empty, labelled cell. All cells are as large as the largest picture; smaller ones are scaled up to fit.
        columns: cells in a row, at least 1.
        output: path of the PNG.
    """
    pictures = [None if image is None else Image.fromarray(image).convert("RGB") for _, image in cells]
    width = max((picture.width for picture in pictures if picture), default=64)
    height = max((picture.height for picture in pictures if picture), default=64)
    font = ImageFont.load_default(size=min(20, max(10, width // 14)))
    line = sum(font.getmetrics()) + GAP
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + line + GAP) + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for number, ((label, _), picture) in enumerate(zip(cells, pictures, strict=True)):
        x = GAP + number % columns * (width + GAP)
        y = GAP + number // columns * (height + line + GAP)
        if picture is None:
            draw.rectangle((x, y, x + width - 1, y + height - 1), fill=CELL)
        else:
            scale = min(width / picture.width, height / picture.height)
            size = (round(picture.width * scale), round(picture.height * scale))
            fitted = picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)
            sheet.paste(fitted, (x + (width - size[0]) // 2, y + (height - size[1]) // 2))
        draw.text((x + width // 2, y + height + line // 2), _shortened(label, font, width), INK, font, anchor="mm")
    with replace_file(output) as temporary:
        sheet.save(temporary, format="PNG")


def _shortened(label: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The label, or as much of it as fits into `width` pixels."""
    if font.getlength(label) <= width:
        return label
    while label and font.getlength(label + "…") > width:
        label = label[:-1]
    return label + "…"
