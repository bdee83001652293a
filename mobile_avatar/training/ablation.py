"""The ablation of thesis table 5.1 on synthetic people: python -m mobile_avatar.training.ablation --output DIR

Three variants with the same number of optimisation steps each: without adaptive SPADE and adaptive skips, with them,
and with them and the texture updater (which gets its share of the same steps). Every run is a folder of its own, so a
killed ablation goes on where it stopped.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path

import click
import numpy as np

from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.models.bilayer.weights import load_weights, save_weights
from mobile_avatar.progress import progress
from mobile_avatar.training.base import train_base
from mobile_avatar.training.evaluation import Stages, measure
from mobile_avatar.training.metrics import pixel_metrics
from mobile_avatar.training.options import TrainOptions
from mobile_avatar.training.people import Selection, synthetic_people
from mobile_avatar.training.updater import UPDATE_STEPS, train_updater

COLUMNS = {"psnr_masked": "PSNR masked, dB", "ssim_masked": "SSIM masked"}
UPDATER_SHARE = 0.25


@dataclass(frozen=True)
class Variant:
    """A row of the table."""

    name: str
    adaptive: bool
    """Adaptive SPADE in the texture generator, and predicted skips in both generators."""
    updater: bool


VARIANTS = (
    Variant("plain", adaptive=False, updater=False),
    Variant("adaptive", adaptive=True, updater=False),
    Variant("adaptive + updater", adaptive=True, updater=True),
)


@dataclass(frozen=True)
class Budget:
    """What every variant gets."""

    preset: str
    image_size: int
    steps: int
    batch_size: int
    targets: int
    """Driven frames per person and step, beside the source."""
    seeds: int
    identities: int
    """Test people."""

    def check(self, stored: Path) -> None:
        """BadInput when the results in a file were made with another budget."""
        if stored.is_file() and json.loads(stored.read_text())["budget"] != asdict(self):
            raise BadInput(f"{stored} was made with other options; choose another --output")


def quality(model: BilayerModel, budget: Budget, updates: int) -> dict[str, float]:
    """COLUMNS of a model on the test people of a budget, behind so many updates of the texture."""
    people = synthetic_people(Selection("test", budget.identities), model.config.image_size)
    measured = measure(model, people.load, people.draws, {"pixels": pixel_metrics}, Stages(updates))
    shown = "updated" if updates else "generated"
    return {column: float(np.mean([person.mean(shown, column) for person in measured])) for column in COLUMNS}


def ablation(budget: Budget, folder: Path) -> dict:
    """Train and measure every variant with every seed; returns and writes what `markdown` shows.

    Raises:
        BadInput: `folder` holds an ablation with another budget.
    """
    stored = folder / "ablation.json"
    budget.check(stored)
    rows: dict[str, dict[str, list[float]]] = {v.name: {c: [] for c in COLUMNS} for v in VARIANTS}
    runs = [(variant, seed) for variant in VARIANTS for seed in range(budget.seeds)]
    for variant, seed in progress(runs, len(runs), "ablation"):
        model = _trained(variant, seed, budget, folder)
        for column, value in quality(model, budget, UPDATE_STEPS if variant.updater else 0).items():
            rows[variant.name][column].append(value)
    found = {"budget": asdict(budget), "rows": rows}
    for path, text in ((stored, json.dumps(found, indent=1) + "\n"), (folder / "ablation.md", markdown(found))):
        with replace_file(path) as temporary:
            temporary.write_text(text)
    return found


def _trained(variant: Variant, seed: int, budget: Budget, folder: Path) -> BilayerModel:
    """The finished model of a run, trained if it is not there yet."""
    # Runs lie side by side, so that they share one pool of synthetic people.
    name = f"{variant.name.replace(' + ', '-')}-{seed}"
    weights = folder / name / "weights.safetensors"
    if weights.is_file():
        return load_weights(weights)[0]
    updater_steps = round(budget.steps * UPDATER_SHARE) if variant.updater else 0
    options = TrainOptions(
        preset=budget.preset,
        image_size=budget.image_size,
        tex_spade=variant.adaptive,
        adaptive_skips=variant.adaptive,
        steps=budget.steps - updater_steps,
        batch_size=budget.batch_size,
        targets=budget.targets,
        # One pool for all: the number of people must not follow from the steps of a stage.
        identities=max(budget.batch_size, budget.steps * budget.batch_size // 25),
        seed=seed,
        sheet_every=budget.steps,
    )
    model = train_base(options, folder / name, resume=True)
    if updater_steps:
        model = train_updater(
            replace(options, steps=updater_steps, sheet_every=updater_steps),
            folder / f"{name}-last",
            model,
            resume=True,
        )
    save_weights(model, weights, {"license": "Apache-2.0", "trained_on": f"synthetic heads: ablation, {variant.name}"})
    return model


def markdown(found: dict) -> str:
    """A table of means and standard deviations over seeds, and a sentence on the order."""
    budget, rows = found["budget"], found["rows"]
    lines = [f"| variant | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, columns in rows.items():
        cells = [f"{np.mean(columns[c]):.3f} ± {np.std(columns[c]):.3f}" for c in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Mean ± standard deviation over {budget['seeds']} seeds; preset {budget['preset']}, "
        f"{budget['image_size']} px, {budget['steps']} steps of {budget['batch_size']} people and "
        f"{budget['targets'] + 1} frames of each for every variant, "
        f"{budget['identities']} synthetic "
        "test people that no run saw.",
        "",
        verdict(rows),
    ]
    return "\n".join(lines) + "\n"


def verdict(rows: dict[str, dict[str, list[float]]]) -> str:
    """Whether each variant beats the one before, as in the thesis: by how much, and with how many seeds."""
    names = list(rows)
    sentences = []
    for before, after in zip(names, names[1:], strict=False):
        for column, label in COLUMNS.items():
            gains = np.subtract(rows[after][column], rows[before][column])
            word = "better" if gains.mean() > 0 else "not better"
            sentences.append(
                f"{after} is {word} than {before} in {label} (by {gains.mean():+.3f} on average, with "
                f"{(gains > 0).sum()} of {len(gains)} seeds)"
            )
    held = all(" is better than " in sentence for sentence in sentences)
    return f"The order of the thesis is {'reproduced' if held else 'not fully reproduced'}: {'; '.join(sentences)}."


def budget_options(preset: str, seeds: int) -> Callable:
    """The options of a comparison under one Budget, with these defaults; decorates its command."""
    options = (
        click.option(
            "--output", "-o", required=True, type=click.Path(path_type=Path), help="Folder of the runs and results."
        ),
        click.option("--preset", default=preset, show_default=True, help="Member of the model family."),
        click.option("--image-size", default=64, show_default=True, help="Pixels."),
        click.option("--steps", default=800, show_default=True, help="Of every variant, all stages together."),
        click.option("--batch-size", default=8, show_default=True, help="People per step."),
        click.option("--targets", default=2, show_default=True, help="Driven frames per person and step."),
        click.option("--seeds", default=seeds, show_default=True, help="Runs of every variant."),
        click.option("--identities", default=50, show_default=True, help="Test people."),
    )
    return lambda command: reduce(lambda decorated, option: option(decorated), reversed(options), command)


@click.command()
@budget_options(preset="tiny", seeds=3)
def main(output: Path, **budget) -> None:
    """Compare the variants of thesis table 5.1 on synthetic people."""
    click.echo(markdown(ablation(Budget(**budget), output)))


if __name__ == "__main__":
    main()
