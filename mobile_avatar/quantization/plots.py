"""Pictures of a quantisation report."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobile_avatar.quantization.sensitivity import Measured
from mobile_avatar.rendering.composite import to_rgb8
from mobile_avatar.rendering.contact_sheet import contact_sheet
from mobile_avatar.rendering.figures import new_figure, save_figure

AMPLIFIED = 8  # differences are shown this many times larger
WORST = 4  # frames


def sensitivity_chart(alone: Sequence[Measured], kept: Sequence[str], path: Path) -> None:
    """One bar per layer: PSNR of the image when this layer alone is in 8 bits; kept layers stand out."""
    figure = new_figure(8, 1 + 0.22 * len(alone))
    axes = figure.subplots()
    names = [row.name for row in alone]
    colours = ["tab:orange" if name in kept else "tab:blue" for name in names]
    axes.barh(names, [row.psnr_db["image"] for row in alone], color=colours)
    axes.invert_yaxis()
    axes.set_xlabel("PSNR of the image, dB, with only this layer in 8 bits (measured, LiteRT)")
    axes.set_title("Sensitivity by layer; orange: kept above 8 bits by the recipe", fontsize=10)
    save_figure(figure, path)


def size_chart(files: Sequence[Measured], steps: Sequence[Measured], chosen: Measured, path: Path) -> None:
    """File size against PSNR: whole precisions, the recipes on the way, and the chosen one."""
    figure = new_figure(8, 4)
    axes = figure.subplots()
    axes.plot([row.size / 1e6 for row in steps], [row.psnr_db["image"] for row in steps], ".-", label="mixed recipes")
    for row in files:
        axes.plot(row.size / 1e6, row.psnr_db["image"], "o", label=row.name)
    axes.plot(chosen.size / 1e6, chosen.psnr_db["image"], "*", markersize=14, label="the recipe")
    axes.set_xlabel("size of the .tflite file, MB")
    axes.set_ylabel("PSNR of the image, dB")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path)


def worst_frames(golden: np.ndarray, rows: Sequence[Measured], path: Path) -> None:
    """The frames that plain w8a8 (the first row) shows worst: torch, each row, and their differences, amplified."""
    errors = np.square(rows[0].images - golden).mean(axis=(1, 2, 3))
    cells = []
    for frame in np.argsort(errors)[::-1][:WORST]:
        cells.append(("torch fp32", to_rgb8(golden[frame])))
        for row in rows:
            difference = (row.images[frame] - golden[frame]) * AMPLIFIED
            cells.append((row.name, to_rgb8(row.images[frame])))
            cells.append((f"{row.name}: difference x{AMPLIFIED}", to_rgb8(difference)))
    contact_sheet(cells, 1 + 2 * len(rows), path)
