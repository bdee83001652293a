"""mobile-avatar train"""

from dataclasses import replace
from pathlib import Path

import click

from mobile_avatar.cli.common import find_weights, json_option
from mobile_avatar.cli.training_output import show_finished, show_plan
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.models.rome.presets import PRESETS as ROME_PRESETS

FILE = click.Path(path_type=Path)
ROME = ("rome", "linear-rome", "rome-renderer")
ROME_ONLY = (
    "face_network",
    "resnet50",
    "mobilenet_v2",
    "basis_people",
    "pictures_every",
    "width",
    "true_share",
    "renderer",
    "frame_size",
    "only",
)


@click.command()
@click.argument("stage", type=click.Choice(["bilayer", "updater", "joint", "distill", *ROME]))
@click.option(
    "--data", help="`synthetic` (the default: a pool beside the run), `synthetic-stream`, or a dataset folder."
)
# torchrun takes --run for its own --run-path, so there is a second name.
@click.option("--run", "--run-dir", "run_dir", required=True, type=FILE, help="Run folder.")
@click.option(
    "--weights",
    type=FILE,
    help="Start from these (a file, `compact` or `mobile`); `updater`, `joint` and `distill` (the teacher) need them,"
    " of rome `linear-rome` and `rome-renderer` (the teacher).",
)
@click.option("--resume", is_flag=True, help="Go on from the folder's last checkpoint, with its options.")
@click.option("--dry-run", is_flag=True, help="Show the resolved options and what they amount to, and stop.")
@click.option(
    "--preset",
    type=click.Choice([*PRESETS, *(name for name in ROME_PRESETS if name not in PRESETS)]),
    help=f"Default: compact; distill: mobile, the student; of rome: {', '.join(ROME_PRESETS)} (default: small).",
)
@click.option("--image-size", type=click.IntRange(64), help="Side in pixels; default: the preset's.")
@click.option("--tex-spade/--no-tex-spade", default=None, help="Adaptive SPADE in the texture generator.")
@click.option("--adaptive-skips/--no-adaptive-skips", default=None, help="Predicted skips.")
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps.")
@click.option("--batch-size", type=click.IntRange(2), help="People per step, over all processes.")
@click.option("--targets", type=click.IntRange(1), help="Driven frames per person and step.")
@click.option("--seed", type=click.IntRange(0), help="Of everything random.")
@click.option("--identities", type=click.IntRange(2), help="Synthetic people in the pool; default: from the steps.")
@click.option("--frames", type=click.IntRange(2), help="Frames of each.")
@click.option("--losses", type=click.Choice(["thesis", "substitute"]), help="Default: thesis where --vgg19 is given.")
@click.option("--vgg19", type=FILE, help="VGG19 weights in torchvision's format, for the perceptual loss.")
@click.option("--vggface", type=FILE, help="VGGFace (VGG16) weights in the same format.")
@click.option("--face-network", type=FILE, help="Of rome: ResNet-50 that knows faces, for the identity loss.")
@click.option(
    "--resnet50", type=FILE, help="Of linear-rome: torchvision weights that the photo's regressor starts from."
)
@click.option("--mobilenet-v2", type=FILE, help="Of linear-rome: the same for the frames' regressor.")
@click.option("--pictures-every", type=click.IntRange(1), help="Of rome: steps of which one judges pictures, too.")
@click.option("--width", type=click.IntRange(1), help="Of rome-renderer: its channels at full resolution; default: 16.")
@click.option(
    "--true-share", type=click.FloatRange(0, 1), help="Of rome-renderer: of true pictures in the losses; default: 0.8."
)
@click.option("--renderer", type=FILE, help="Of rome-renderer: what an earlier run made, to go on from, in any size.")
@click.option(
    "--frame-size", type=click.IntRange(32), help="Of linear-rome: side in pixels of what the frames' regressor reads."
)
@click.option(
    "--only",
    type=click.Choice(["basis_regressor", "frame_regressor"]),
    help="Of linear-rome: train this regressor further and leave the other alone.",
)
@click.option("--basis-people", type=click.IntRange(2), help="Of linear-rome: people behind the basis.")
@click.option("--adversarial/--no-adversarial", default=None, help="Train with a discriminator.")
@click.option("--uv-weight", type=click.FloatRange(0), help="Weight of the supervised warp of synthetic frames.")
@click.option("--warp-weight", type=click.FloatRange(0), help="Weight of the warp regulariser, which decays.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="(Peak) learning rate.")
@click.option("--spectral-norm/--no-spectral-norm", default=None, help="Normalise every layer in training.")
@click.option("--ema", type=click.FloatRange(0, 1, max_open=True), help="Share of averaged weights kept per step.")
@click.option("--standing-batches", type=click.IntRange(1), help="Batches behind the final batch-norm statistics.")
@click.option("--device", help="Torch device; default: a GPU where there is one.")
@click.option("--bf16/--no-bf16", default=None, help="Convolutions in bfloat16; default: where the device has it.")
@click.option("--checkpointing", is_flag=True, default=None, help="Updater: less memory for a third more time.")
@click.option("--checkpoint-every", type=click.IntRange(1), help="Steps between checkpoints.")
@click.option("--sheet-every", type=click.IntRange(1), help="Steps between contact sheets.")
@click.option("--log-every", type=click.IntRange(1), help="Steps between rows of metrics.jsonl.")
@json_option
def command(stage, run_dir, resume, dry_run, as_json, **overrides):
    """Train the base networks (STAGE bilayer), the texture updater (updater), then both together (joint).

    `distill` trains the lighter per-frame network of --preset to show what the model in --weights shows.

    `rome` trains the mesh avatar on synthetic heads, `linear-rome` its linear model from the --weights of that,
    `rome-renderer` the renderer for phones to show what the model in --weights shows.
    """
    if stage in ROME:
        from mobile_avatar.cli.rome_training import train

        train(stage, run_dir, resume, dry_run, as_json, overrides)
        return
    for name in ROME_ONLY:
        if overrides.pop(name) is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} is no option of the stage {stage}; leave it out")
    from mobile_avatar.models.bilayer.weights import load_weights, save_weights
    from mobile_avatar.training import distributed
    from mobile_avatar.training.adversarial import load_discriminator
    from mobile_avatar.training.base import DISCRIMINATOR_FILE, train_base
    from mobile_avatar.training.distill import train_distill
    from mobile_avatar.training.joint import train_joint
    from mobile_avatar.training.options import read_options
    from mobile_avatar.training.updater import train_updater

    shape = ("image_size", "tex_spade", "adaptive_skips", *(["preset"] if stage != "distill" else []))
    if overrides["weights"] and any(overrides[name] is not None for name in shape):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in shape)
        raise click.UsageError(f"--weights decides the shape of the model; leave {names} out")
    if overrides["weights"]:
        overrides["weights"] = find_weights(overrides["weights"])
    overrides = {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
    options = read_options(run_dir, resume, overrides | {"stage": stage})
    if stage != "bilayer" and options.weights is None:
        raise click.UsageError(f"the {stage} stage needs --weights of the stage before")
    start, facts = load_weights(Path(options.weights)) if options.weights else (None, {"license": "Apache-2.0"})
    if dry_run:
        _show(options, start, as_json)
        return
    options = replace(options, device=distributed.start_processes(options.device))
    try:
        judge = None
        if options.weights and options.adversarial:
            earlier = Path(options.weights).with_name(DISCRIMINATOR_FILE)
            judge = load_discriminator(start.config, earlier) if earlier.is_file() else None
        if stage == "distill":
            model = train_distill(options, run_dir, resume, start)
        elif stage == "updater":
            model = train_updater(options, run_dir, start, resume, judge)
        else:
            model = {"bilayer": train_base, "joint": train_joint}[stage](options, run_dir, resume, start, judge)
        if not distributed.is_first():
            return
    finally:
        distributed.end_processes()
    facts["trained_on"] = "; ".join(filter(None, (facts.get("trained_on"), _described(options))))
    path = run_dir / "weights.safetensors"
    save_weights(model, path, facts)
    show_finished(run_dir, path, as_json)


def _described(options):
    """One line for the weights' metadata: what they saw."""
    what = {"synthetic": f"synthetic heads, {options.identities} identities x {options.frames} frames"}
    what["synthetic-stream"] = "synthetic heads, rendered on the fly"
    data = what.get(options.data, f"dataset {Path(options.data).name}")
    return f"{data}, {options.steps} steps of {options.batch_size} ({options.stage}, {options.perceptual})"


def _show(options, start, as_json):
    """What a run would do: its options, the sizes of the networks, how much data it sees."""
    import torch

    from mobile_avatar.models.bilayer.discriminator import Discriminator
    from mobile_avatar.models.bilayer.model import BilayerModel
    from mobile_avatar.training.distill import student_config

    config = start.config if start else options.config()
    if options.stage == "distill":
        config = student_config(config, options.preset)
    with torch.device("meta"):
        networks = dict(BilayerModel(config).named_children())
        if options.adversarial:
            networks["discriminator"] = Discriminator(config)
    seen = {"people": options.steps * options.batch_size}
    seen["frames"] = seen["people"] * (options.targets + 1)
    if options.data == "synthetic":
        seen["pool_frames"] = options.identities * options.frames
    show_plan(options, config, networks, seen, as_json)
