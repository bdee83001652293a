"""What `mobile-avatar train rome`, `linear-rome` and `rome-renderer` do with the options of the command."""

from dataclasses import fields, replace
from pathlib import Path

import click

from mobile_avatar.cli.training_output import show_finished, show_plan

NEEDS = {"linear-rome": "of the full model", "rome-renderer": "of the teacher, the full or the linear model"}


def train(stage: str, run_dir: Path, resume: bool, dry_run: bool, as_json: bool, overrides: dict) -> None:
    """Train a stage of ROME.

    Raises:
        UsageError: an option that the stage does not have, or no weights where it needs some.
        BadInput, CheckFailed: see `train_rome`, `train_linear` and `train_renderer`.
    """
    from mobile_avatar.files import sha256
    from mobile_avatar.models.rome.weights import load_weights
    from mobile_avatar.training import distributed
    from mobile_avatar.training.linear_rome import train_linear
    from mobile_avatar.training.options import read_options
    from mobile_avatar.training.rome import WEIGHTS_FILE, train_rome
    from mobile_avatar.training.rome_options import RomeTrainOptions
    from mobile_avatar.training.rome_renderer import RENDERER_FILE, train_renderer
    from mobile_avatar.training.rome_renderer_options import RendererTrainOptions

    renderer = stage == "rome-renderer"
    kind = RendererTrainOptions if renderer else RomeTrainOptions
    known = {field.name for field in fields(kind)}
    for name, value in overrides.items():
        if value is not None and name not in known:
            raise click.UsageError(f"--{name.replace('_', '-')} is no option of the stage {stage}; leave it out")
    given = {key: str(v) if isinstance(v, Path) else v for key, v in overrides.items() if key in known}
    if given["weights"] and given.get("preset"):
        raise click.UsageError("--weights decides the shape of the model; leave --preset out")
    options = read_options(run_dir, resume, given | {"stage": stage}, kind)
    if stage in NEEDS and options.weights is None:
        raise click.UsageError(f"the {stage} stage needs --weights {NEEDS[stage]}")
    start, facts = load_weights(Path(options.weights)) if options.weights else (None, {})
    if dry_run:
        _show(options, *(_student if renderer else _networks)(options, start), as_json)
        return
    options = replace(options, device=distributed.start_processes(options.device))
    try:
        earlier = facts.get("trained_on", "")
        if renderer:
            train_renderer(options, run_dir, resume, start, facts | {"teacher_sha256": sha256(Path(options.weights))})
        elif stage == "rome":
            train_rome(options, run_dir, resume, start, earlier)
        else:
            train_linear(options, run_dir, resume, start, earlier)
        if not distributed.is_first():
            return
    finally:
        distributed.end_processes()
    show_finished(run_dir, run_dir / (RENDERER_FILE if renderer else WEIGHTS_FILE), as_json)


def _show(options, config, networks, frames, as_json):
    """What a run would do: its options, the sizes of the networks, how much data it sees."""
    people = options.steps * options.batch_size
    seen = {"people": people, "frames": people * frames, "pool_frames": options.identities * options.frames}
    show_plan(options, config, networks, seen, as_json)


def _networks(options, start):
    """Config, networks in training and frames per person and step of the stages rome and linear-rome."""
    import torch

    from mobile_avatar.models.rome.networks import CORE, RomeNetworks
    from mobile_avatar.models.rome.synthetic_rig import synthetic_head
    from mobile_avatar.training.rome_options import preset_config

    config = start.config if start else preset_config(options.preset, synthetic_head())
    config = replace(config, frame_size=options.frame_size or config.frame_size)
    with torch.device("meta"):
        networks = RomeNetworks(config, CORE if options.stage == "rome" else options.regressors)
    return config, dict(networks.named_children()), options.targets + 1


def _student(options, teacher):
    """The same of the stage rome-renderer."""
    import torch

    from mobile_avatar.models.rome.compact_renderer import CompactRenderer

    config = options.config(teacher.config.image_size)
    with torch.device("meta"):
        renderer = CompactRenderer(config)
    return config, {"renderer": renderer}, options.targets + 1 + options.invented
