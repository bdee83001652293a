"""What several commands share: options, the shipped files, tables and JSON."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from mobile_avatar.assets import shipped
from mobile_avatar.errors import MobileAvatarError

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
force_option = click.option("--force", is_flag=True, help="Replace an existing output.")
tracker_option = click.option(
    "--tracker-models",
    type=click.Path(path_type=Path),
    help="Folder with the three tracker models, for machines that cannot fetch them.",
)


WEIGHTS = ("compact", "mobile")
"""Names of the weights that come with the package, the default first."""
weights_option = click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="A file, or `compact` (default) or `mobile`, which come with the package.",
)


def find_weights(weights: Path | None) -> Path:
    """The file that --weights means."""
    name = WEIGHTS[0] if weights is None else str(weights)
    return shipped(f"{name}.safetensors") if name in WEIGHTS and not Path(name).exists() else Path(name)


@contextmanager
def failing_in_a_sentence() -> Iterator[None]:
    """What a user can mend ends a program of its own (`python -m ...`) as it ends commands: one sentence, exit code."""
    try:
        yield
    except MobileAvatarError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)


def say(line: str) -> None:
    """One plain line of progress, on stderr so that stdout holds results only."""
    click.echo(line, err=True)


def print_json(value: object) -> None:
    """One JSON object on stdout."""
    click.echo(json.dumps(value, indent=1))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Aligned columns on stdout."""
    lines = [[_cell(value) for value in row] for row in [header, *rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "not run"
    if isinstance(value, bool):
        return "ok" if value else "FAILED"
    return f"{value:g}" if isinstance(value, float) else str(value)


def print_checks(manifest: dict) -> None:
    """The parity table and the further checks of a bundle."""
    header = ("output", "runner", "cases", "PSNR dB", "at least", "max abs", "correlation", "")
    rows = [
        (
            r["output"],
            r["runner"],
            r["cases"],
            r["psnr_db"],
            r["threshold_db"],
            r["max_abs"],
            r["correlation"],
            r["passed"],
        )
        for r in manifest["parity"]
    ]
    print_table(header, rows)
    for row in manifest["parity"]:
        if row.get("reason"):
            click.echo(f"{row['output']}: {row['reason']}")
    click.echo()
    print_table(("check", "", "detail"), [(c["name"], c["passed"], c["detail"]) for c in manifest["checks"]])
