"""mobile-avatar train"""

from pathlib import Path

import click

from mobile_avatar.cli.common import say


@click.command()
@click.argument("stage", type=click.Choice(["bilayer", "updater"]))
@click.option("--data", default="synthetic", show_default=True, help="Only `synthetic` for now.")
@click.option("--run", "run_dir", required=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option("--weights", type=click.Path(path_type=Path), help="Start from these; the updater needs its base.")
@click.option("--resume", is_flag=True, help="Go on from the folder's last checkpoint.")
@click.option("--preset", type=click.Choice(["compact", "quarter", "medium", "full"]))
@click.option("--steps", type=click.IntRange(1))
@click.option("--batch-size", type=click.IntRange(2))
@click.option("--lr", type=click.FloatRange(0, min_open=True))
@click.option("--seed", type=int)
@click.option("--identities", type=click.IntRange(2), help="Synthetic identities in the pool.")
@click.option("--device", help="Torch device.")
def command(stage, data, run_dir, weights, resume, **overrides):
    """Train the base networks (STAGE bilayer), then the texture updater (STAGE updater)."""
    from mobile_avatar.errors import BadInput
    from mobile_avatar.models.bilayer.weights import load_weights, save_weights
    from mobile_avatar.training.bilayer import train_base, train_updater
    from mobile_avatar.training.run import read_options

    if data != "synthetic":
        raise BadInput(f"--data {data} is not supported yet; use --data synthetic")
    options = read_options(overrides)
    facts = {
        "license": "Apache-2.0",
        "trained_on": f"synthetic heads only, {options.identities} identities x {options.frames} frames",
    }
    if stage == "bilayer":
        start = load_weights(weights)[0] if weights else None
        model = train_base(options, run_dir, resume, start)
    else:
        if weights is None:
            raise click.UsageError("the updater stage needs --weights of the base stage")
        model, facts = load_weights(weights)
        model = train_updater(options, run_dir, model, resume)
    path = run_dir / "weights.safetensors"
    save_weights(model, path, facts)
    say(f"finished: {path}")
