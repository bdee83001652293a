"""Plots as PNG files."""

from pathlib import Path
from typing import TYPE_CHECKING

from mobile_avatar.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this many inches, drawn without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure; an existing file is replaced in one step."""
    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
