"""Quality against multiply-accumulates of the family, like thesis figure 5.4: python -m mobile_avatar.training.tradeoff

Members differ in the per-frame network alone; embedder and texture generator are those of one preset, and each gets the
same people, frames and optimisation steps. Every run is a folder of its own, so a killed comparison goes on where it
stopped.
"""

import json
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import torch

from mobile_avatar.files import replace_file
from mobile_avatar.models.bilayer.config import PRESETS, BilayerConfig
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.models.bilayer.weights import load_weights, save_weights
from mobile_avatar.progress import progress
from mobile_avatar.rendering.figures import new_figure, save_figure
from mobile_avatar.training.ablation import COLUMNS, Budget, budget_options, quality
from mobile_avatar.training.base import train_base
from mobile_avatar.training.distill import student_config
from mobile_avatar.training.options import TrainOptions

MEMBERS = ("quarter", "medium", "full", "mobile")
SHOWN_SIZE = 256  # multiply-accumulates are those of the member at its own size


def tradeoff(budget: Budget, folder: Path) -> dict:
    """Train and measure every member with every seed; returns and writes what the plot shows.

    Raises:
        BadInput: `folder` holds a comparison with another budget.
    """
    stored = folder / "tradeoff.json"
    budget.check(stored)
    rows: dict[str, dict] = {name: {"gmac": gmac(name, budget.preset), **{c: [] for c in COLUMNS}} for name in MEMBERS}
    runs = [(name, seed) for name in MEMBERS for seed in range(budget.seeds)]
    for name, seed in progress(runs, len(runs), "family"):
        model = _trained(name, seed, budget, folder)
        for column, value in quality(model, budget, updates=0).items():
            rows[name][column].append(value)
    found = {"budget": asdict(budget), "rows": rows}
    with replace_file(stored) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")
    draw(found, folder / "tradeoff.png")
    return found


def member_config(name: str, preset: str, image_size: int) -> BilayerConfig:
    """The per-frame network of a member with the other networks of a preset."""
    return student_config(PRESETS[preset], name).at_size(image_size)


def gmac(name: str, preset: str) -> float:
    """Per frame at 256 px, exported with the fewest multiply-accumulates."""
    from mobile_avatar.graphs.deployment import WARPS
    from mobile_avatar.graphs.onnx_graph import count, to_onnx
    from mobile_avatar.graphs.rewrites import ALWAYS, rewrite
    from mobile_avatar.graphs.spec import graph_spec
    from mobile_avatar.models.bilayer.folded import FoldedGenerator

    network = rewrite(FoldedGenerator(member_config(name, preset, SHOWN_SIZE)), (*ALWAYS, "transposed"))
    module = WARPS["split"](network, torch.zeros(1, 3, SHOWN_SIZE, SHOWN_SIZE), "NCHW").eval()
    return count(to_onnx(module, graph_spec("split", SHOWN_SIZE, "NCHW")))[1] / 1e9


def _trained(name: str, seed: int, budget: Budget, folder: Path) -> BilayerModel:
    """The finished model of a run, trained if it is not there yet."""
    weights = folder / f"{name}-{seed}" / "weights.safetensors"
    if weights.is_file():
        return load_weights(weights)[0]
    options = TrainOptions(
        image_size=budget.image_size,
        steps=budget.steps,
        batch_size=budget.batch_size,
        targets=budget.targets,
        seed=seed,
        sheet_every=budget.steps,
    )
    torch.manual_seed(seed)
    model = BilayerModel(member_config(name, budget.preset, budget.image_size))
    model = train_base(options, weights.parent, resume=True, start=model)
    save_weights(model, weights, {"license": "Apache-2.0", "trained_on": f"synthetic heads: family, {name}"})
    return model


def draw(found: dict, path: Path) -> None:
    """One panel per metric: mean and spread over seeds against multiply-accumulates."""
    figure = new_figure(10, 4)
    for axes, (column, label) in zip(figure.subplots(1, len(COLUMNS)), COLUMNS.items(), strict=True):
        for name, row in found["rows"].items():
            marker = "*" if name == "mobile" else "o"
            axes.errorbar(row["gmac"], np.mean(row[column]), np.std(row[column]), fmt=marker, markersize=9, capsize=3)
            axes.annotate(name, (row["gmac"], np.mean(row[column])), xytext=(6, 6), textcoords="offset points")
        axes.set_xscale("log")
        axes.set_xlabel("GMAC per frame at 256 px, as exported")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    budget = found["budget"]
    figure.suptitle(
        f"Trained alike at {budget['image_size']} px: {budget['steps']} steps of {budget['batch_size']} people, "
        f"{budget['seeds']} seeds, {budget['identities']} unseen synthetic people",
        fontsize=9,
    )
    save_figure(figure, path)


def markdown(found: dict) -> str:
    """The numbers of the plot as a table."""
    lines = [f"| member | GMAC at 256 px | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name, row in found["rows"].items():
        cells = [f"{np.mean(row[c]):.3f} ± {np.std(row[c]):.3f}" for c in COLUMNS]
        lines.append(f"| {name} | {row['gmac']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@click.command()
@budget_options(preset="compact", seeds=2)
def main(output: Path, **budget) -> None:
    """Compare the members of the family on synthetic people."""
    click.echo(markdown(tradeoff(Budget(**budget), output)))


if __name__ == "__main__":
    main()
