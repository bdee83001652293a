"""What `quantize-report` found about an avatar, read back for the page."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

from mobile_avatar.errors import BadInput
from mobile_avatar.files import inside
from mobile_avatar.reporting.clean import mapping, number, rows, text, texts

PLOTS = {
    "sensitivity.png": "Sensitivity by layer: PSNR of the image when one layer alone is in 8 bits",
    "size.png": "File size against PSNR of the image, for whole precisions and for recipes",
    "worst.png": "The frames that w8a8 shows worst: torch, w8a8, the recipe, and differences times 8",
}
WIDEST = 1100
"""Pixels; wider plots are made smaller."""
MOST_PIXELS = 16_000_000


@dataclass(frozen=True)
class Sensitivity:
    """A quantisation report."""

    folder: str
    measured: str
    same_avatar: bool
    layers: tuple[tuple[str, float | None, float | None, bool], ...]
    """(layer, PSNR of the image, lowest PSNR, whether the recipe keeps it), most sensitive first."""
    files: tuple[tuple[str, float | None, float | None, float | None], ...]
    """(precision or recipe, bytes, PSNR of the image, lowest PSNR)."""
    gain_db: float | None
    size_share: float | None
    plots: tuple[tuple[str, str], ...]
    """(what it shows, `data:` address)."""


def read_sensitivity(folder: Path, avatar: dict) -> Sensitivity:
    """Read the folder that `quantize-report` wrote.

    Args:
        avatar: what the bundle's manifest says of its avatar.

    Raises:
        BadInput: it is no such folder, or one of its files is damaged.
    """
    path = Path(folder) / "report.json"
    try:
        report = json.loads(path.read_text())
        layers = rows(report["layers"])
        kept = set(texts(report["recipe"]["keep"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is not a quantisation report; make one with `mobile-avatar quantize-report`") from error
    found = [(text(row.get("name")), *_quality(row), text(row.get("name")) in kept) for row in layers]
    known = sorted((row for row in found if row[1] is not None), key=lambda row: row[1])
    files = [(text(row.get("name")), number(row.get("bytes")), *_quality(row)) for row in rows(report.get("files"))]
    recipe = mapping(report["recipe"])
    return Sensitivity(
        text(Path(folder).name),
        text(report.get("measured")),
        mapping(report.get("avatar")) == mapping(avatar),
        tuple(known),
        tuple(files),
        number(recipe.get("gain_db")),
        number(recipe.get("size_share")),
        tuple((title, _plot(inside(folder, name))) for name, title in PLOTS.items() if (folder / name).is_file()),
    )


def _quality(row: dict) -> tuple[float | None, float | None]:
    return number(mapping(row.get("psnr_db")).get("image")), number(row.get("worst_db"))


def _plot(path: Path) -> str:
    """A PNG as a `data:` address; decoded and written again, so that nothing but pixels reaches the page."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels")
            picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path} is damaged; write it again with `mobile-avatar quantize-report`") from error
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, max(1, picture.height * WIDEST // picture.width)), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
