"""mobile-avatar train"""

import json
from pathlib import Path

import click

from mobile_avatar.cli.common import json_option, print_json, say


@click.command()
@click.argument("stage", type=click.Choice(["bilayer", "updater"]))
@click.option("--data", default="synthetic", show_default=True, help="Only `synthetic` for now.")
@click.option("--run", "run_dir", required=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option("--weights", type=click.Path(path_type=Path), help="Start from these; the updater needs its base.")
@click.option("--resume", is_flag=True, help="Go on from the folder's last checkpoint, with its options.")
@click.option("--preset", type=click.Choice(["compact", "quarter", "medium", "full"]), help="Default: compact.")
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps.")
@click.option("--batch-size", type=click.IntRange(2), help="People per step.")
@click.option("--targets", type=click.IntRange(1), help="Driven frames per person and step.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Peak learning rate.")
@click.option("--seed", type=int, help="Of everything random.")
@click.option("--identities", type=click.IntRange(2), help="Synthetic identities in the pool.")
@click.option("--frames", type=click.IntRange(2), help="Frames of each.")
@click.option("--spectral-norm/--no-spectral-norm", default=None, help="Normalise every layer in training.")
@click.option("--bf16/--no-bf16", default=None, help="Convolutions in bfloat16.")
@click.option("--sheet-every", type=click.IntRange(1), help="Steps between contact sheets and checkpoints.")
@click.option("--device", help="Torch device.")
@json_option
def command(stage, data, run_dir, weights, resume, as_json, **overrides):
    """Train the base networks (STAGE bilayer), then the texture updater (STAGE updater)."""
    import torch

    from mobile_avatar.errors import BadInput
    from mobile_avatar.models.bilayer.weights import load_weights, save_weights
    from mobile_avatar.training.bilayer import train_base, train_updater
    from mobile_avatar.training.run import read_options

    if data != "synthetic":
        raise BadInput(f"--data {data} is not supported yet; use --data synthetic")
    if weights and overrides["preset"]:
        raise click.UsageError("--weights decides the size of the model; leave --preset out")
    if stage == "updater" and weights is None:
        raise click.UsageError("the updater stage needs --weights of the base stage")
    options = read_options(run_dir, resume, overrides)
    try:
        torch.empty(1, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"--device {options.device} does not work here; use cpu or a device that torch finds") from error
    start, facts = load_weights(weights) if weights else (None, {"license": "Apache-2.0"})
    data = (
        f"synthetic heads, {options.identities} identities x {options.frames} frames, {options.steps} steps ({stage})"
    )
    facts["trained_on"] = "; ".join(filter(None, (facts.get("trained_on"), data)))
    if stage == "bilayer":
        model = train_base(options, run_dir, resume, start)
    else:
        model = train_updater(options, run_dir, start, resume)
    path = run_dir / "weights.safetensors"
    save_weights(model, path, facts)
    if as_json:
        last = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
        print_json({"weights": str(path), "metrics": last})
    else:
        say(f"finished: {path}")
