"""What `mobile-avatar train rome` and `train linear-rome` do with the options of the command."""

from dataclasses import fields, replace
from pathlib import Path

import click

from mobile_avatar.cli.training_output import show_finished, show_plan


def train(stage: str, run_dir: Path, resume: bool, dry_run: bool, as_json: bool, overrides: dict) -> None:
    """Train a stage of ROME.

    Raises:
        UsageError: an option that these stages do not have, or a linear run without weights.
        BadInput, CheckFailed: see `train_rome` and `train_linear`.
    """
    from mobile_avatar.models.rome.weights import load_weights
    from mobile_avatar.training import distributed
    from mobile_avatar.training.linear_rome import train_linear
    from mobile_avatar.training.options import read_options
    from mobile_avatar.training.rome import WEIGHTS_FILE, train_rome
    from mobile_avatar.training.rome_options import RomeTrainOptions

    known = {field.name for field in fields(RomeTrainOptions)}
    for name, value in overrides.items():
        if value is not None and name not in known:
            raise click.UsageError(f"--{name.replace('_', '-')} is no option of the stage {stage}; leave it out")
    given = {key: str(v) if isinstance(v, Path) else v for key, v in overrides.items() if key in known}
    if given["weights"] and given["preset"]:
        raise click.UsageError("--weights decides the shape of the model; leave --preset out")
    options = read_options(run_dir, resume, given | {"stage": stage}, RomeTrainOptions)
    if stage == "linear-rome" and options.weights is None:
        raise click.UsageError("the linear-rome stage needs --weights of the full model")
    start, facts = load_weights(Path(options.weights)) if options.weights else (None, {})
    if dry_run:
        _show(options, start, as_json)
        return
    options = replace(options, device=distributed.start_processes(options.device))
    try:
        earlier = facts.get("trained_on", "")
        if stage == "rome":
            train_rome(options, run_dir, resume, start, earlier)
        else:
            train_linear(options, run_dir, resume, start, earlier)
        if not distributed.is_first():
            return
    finally:
        distributed.end_processes()
    show_finished(run_dir, run_dir / WEIGHTS_FILE, as_json)


def _show(options, start, as_json):
    """What a run would do: its options, the sizes of the networks, how much data it sees."""
    import torch

    from mobile_avatar.models.rome.networks import CORE, RomeNetworks
    from mobile_avatar.models.rome.synthetic_rig import synthetic_head
    from mobile_avatar.training.linear_rome import REGRESSORS
    from mobile_avatar.training.rome_options import preset_config

    config = start.config if start else preset_config(options.preset, synthetic_head())
    with torch.device("meta"):
        networks = RomeNetworks(config, CORE if options.stage == "rome" else REGRESSORS)
    people = options.steps * options.batch_size
    seen = {"people": people, "frames": people * (options.targets + 1)}
    seen["pool_frames"] = options.identities * options.frames
    show_plan(options, config, dict(networks.named_children()), seen, as_json)
