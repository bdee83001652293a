"""What `mobile-avatar evaluate` leaves behind: numbers for programs, a table for people, pictures for the eye."""

from pathlib import Path

import numpy as np

from mobile_avatar.data.clips import Clips
from mobile_avatar.images import to_uint8
from mobile_avatar.models.bilayer.inference_generator import masked
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.rendering.contact_sheet import contact_sheet
from mobile_avatar.training.evaluation import COLUMNS, METHODS, STAGES, Measured, Stages, choose, drive, summarise
from mobile_avatar.training.people import People

GRID_TARGETS = 3
PSNR = "psnr_masked"
GRID_METHODS = ("warp", "generated", "updated", "refined")


def result(people: list[Measured], not_run: dict[str, str], facts: dict) -> dict:
    """Everything that was measured, ready for JSON.

    Args:
        people: from `measure`.
        not_run: column -> why it was not measured; such a column is null everywhere.
        facts: what was evaluated on what; comes first.
    """
    methods = {}
    for method, columns in summarise(people).items():
        rows = {column: columns.get(column) for column in COLUMNS if column in columns or column in not_run}
        methods[method] = {"how": METHODS[method], "metrics": rows}
    metrics = {
        name: {"label": column.label, "how": column.how, "better": column.better, "reason": not_run.get(name)}
        for name, column in COLUMNS.items()
    }
    each = [
        {
            "name": person.name,
            "frames": person.frames,
            "metrics": {
                method: {column: _number(person.mean(method, column)) for column in columns}
                for method, columns in person.values.items()
            },
        }
        for person in people
    ]
    counts = {"identities": len(people), "driven_frames": sum(person.frames for person in people)}
    interval = "95 % percentile bootstrap over identities, 10,000 resamples"
    return facts | counts | {"interval": interval, "metrics": metrics, "methods": methods, "people": each}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 5)


def table(found: dict) -> tuple[list[str], list[list[str]]]:
    """Header and rows of method x metric, mean ± half of the interval; only columns that were measured."""
    shown = [name for name, metric in found["metrics"].items() if metric["reason"] is None]
    header = ["method", *(found["metrics"][name]["label"] for name in shown)]
    rows = [
        [method, *(_cell(name, entry["metrics"].get(name)) for name in shown)]
        for method, entry in found["methods"].items()
    ]
    return header, rows


def _cell(name: str, summary: dict | None) -> str:
    if summary is None:
        return "-"
    low, high = summary["ci95"]
    digits = COLUMNS[name].digits
    return f"{summary['mean']:.{digits}f} ± {(high - low) / 2:.{digits}f}"


def markdown(found: dict) -> str:
    """The table with everything needed to read it."""
    header, rows = table(found)
    lines = [
        f"# {found['weights']} on {found['data']}, split {found['split']}",
        "",
        f"{found['identities']} identities, {found['driven_frames']} driven frames at {found['image_size']} px; the "
        "first frame of each is the source. Means per identity, then over identities, ± half of the 95 % interval "
        "(percentile bootstrap over identities).",
        "",
        _row(header),
        _row(["---"] * len(header)),
        *map(_row, rows),
        "",
        *(f"- `{method}`: {entry['how']}" for method, entry in found["methods"].items()),
        "",
    ]
    for metric in found["metrics"].values():
        note = f"{metric['how']} ({metric['better']} is better)" if metric["reason"] is None else "not measured: "
        lines.append(f"- **{metric['label']}**: {note}{metric['reason'] or ''}")
    for method, entry in found["methods"].items():
        nme, missed = entry["metrics"].get("nme_percent"), entry["metrics"].get("no_face")
        if missed and missed["mean"] > 0:
            counted = nme["frames"] if nme else 0
            total = found["driven_frames"]
            lines.append(f"- NME of `{method}` is over {counted} of {total} frames: in the others no face was found")
    lines += [f"- skipped {name}: {reason}" for name, reason in found["skipped"].items()]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_grid(path: Path, model: BilayerModel, people: People, measured: list[Measured], stages: Stages) -> None:
    """The best, median and worst person: source, and of some frames the goal, the warp baseline and the model."""
    last = [stage for stage in STAGES if stage in measured[0].values][-1]
    cells = []
    for word, person in choose(measured, last).items():
        clips = people.load(people.draws[person.name])
        count = min(GRID_TARGETS, person.frames)
        picked = [0, *np.linspace(1, person.frames, count).round().astype(int).tolist()]
        clips = Clips(clips.images[:, picked], clips.masks[:, picked], clips.keypoints[:, picked])
        (driven,) = drive(model, clips, stages)
        cells.append((f"{word}: {person.mean(last, PSNR):.1f} dB, {person.name}", clips.images[0, 0]))
        for i in range(count):
            cells.append(("goal", masked(clips.images[0, i + 1], clips.masks[0, i + 1])))
            for method in GRID_METHODS:
                if method in driven:
                    psnr = person.values[method][PSNR][picked[i + 1] - 1]
                    cells.append((f"{method}, {psnr:.1f} dB", driven[method].images[i]))
    columns = len(cells) // len(choose(measured, last))
    contact_sheet([(label, to_uint8(image)) for label, image in cells], columns, path)
