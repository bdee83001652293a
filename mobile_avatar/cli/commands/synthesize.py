"""mobile-avatar synthesize"""

from pathlib import Path

import click

from mobile_avatar.cli.common import json_option, print_json


@click.command()
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Dataset folder; may exist.")
@click.option("--identities", type=click.IntRange(1), default=50, show_default=True, help="Number of people.")
@click.option("--frames", type=int, default=32, show_default=True, help="Pictures of each.")
@click.option("--size", default=256, show_default=True, help="Side of the pictures in pixels.")
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True, help="Which part.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="Number of the first person.")
@click.option("--seed", default=0, show_default=True, help="Other poses and expressions of the same people.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--device", default="cpu", show_default=True, help="Torch device.")
@json_option
def command(output, identities, frames, size, split, first, seed, workers, device, as_json):
    """Write a dataset of synthetic heads, in the layout that `prepare` makes of videos.

    People that are there already stay, so a killed run is resumed by starting it again.
    """
    from mobile_avatar.data.synthesize import SynthesizeOptions, synthesize

    options = SynthesizeOptions(frames, size, split, seed)
    people = range(first, first + identities)
    done = synthesize(output, people, options, workers, device, show_progress=True)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{output}: {done['people']} people in {split}, {done['made']} of them new, {frames} frames each")
