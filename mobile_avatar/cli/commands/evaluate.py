"""mobile-avatar evaluate"""

import json
from pathlib import Path

import click

from mobile_avatar.cli.common import (
    find_weights,
    force_option,
    json_option,
    print_json,
    print_table,
    say,
    tracker_option,
    weights_option,
)


@click.command()
@weights_option
@click.option("--data", default="synthetic", show_default=True, help="`synthetic`, or the folder of a dataset.")
@click.option("--split", type=click.Choice(["test", "train"]), default="test", show_default=True)
@click.option("--identities", default=50, show_default=True, type=click.IntRange(1), help="People, at most.")
@click.option("--frames", type=click.IntRange(2), help="Frames of each; default: 8 synthetic ones, all of a dataset.")
@click.option("--every", default=1, show_default=True, type=click.IntRange(1), help="Of a dataset, every N-th frame.")
@click.option(
    "--update-steps", default=4, show_default=True, type=click.IntRange(0, 16), help="Learned texture updates."
)
@click.option("--refine", default=0, show_default=True, type=click.IntRange(0, 5000), help="Adam steps on the texture.")
@click.option("--lpips-vgg", type=click.Path(path_type=Path), help="For LPIPS: torchvision's VGG16 weights, and ...")
@click.option("--lpips-lin", type=click.Path(path_type=Path), help="... the vgg.pth of LPIPS v0.1.")
@click.option("--csim", type=click.Path(path_type=Path), help="For CSIM: a face-recognition network as ONNX.")
@click.option("--nme/--no-nme", default=True, show_default=True, help="Track the rendered frames.")
@click.option("--device", default="cpu", show_default=True, help="Torch device.")
@click.option("--output", "-o", type=click.Path(path_type=Path), default=Path("evaluation"), show_default=True)
@tracker_option
@force_option
@json_option
def command(
    weights,
    data,
    split,
    identities,
    frames,
    every,
    update_steps,
    refine,
    lpips_vgg,
    lpips_lin,
    csim,
    nme,
    device,
    output,
    tracker_models,
    force,
    as_json,
):
    """Measure a model and two baselines on people it never saw: metrics.json, metrics.md and grid.png in a folder."""
    from mobile_avatar.files import check_output_folder, replace_folder, sha256

    if (lpips_vgg is None) != (lpips_lin is None):
        raise click.UsageError("LPIPS needs both files: --lpips-vgg and --lpips-lin")
    check_output_folder(output, force, "metrics.json")

    from mobile_avatar.models.bilayer.weights import load_weights
    from mobile_avatar.progress import progress
    from mobile_avatar.training.distributed import start_processes
    from mobile_avatar.training.evaluation import Stages, measure
    from mobile_avatar.training.evaluation_metrics import Wanted, open_metrics
    from mobile_avatar.training.evaluation_report import markdown, result, table, write_grid
    from mobile_avatar.training.people import Selection, dataset_people, synthetic_people

    weights = find_weights(weights)
    device = start_processes(device)
    model, facts = load_weights(weights)
    model.to(device)
    metrics, not_run = open_metrics(Wanted(lpips_vgg, lpips_lin, csim, nme, tracker_models), device)
    size, selection = model.config.image_size, Selection(split, identities, frames, every)
    if data == "synthetic":
        people = synthetic_people(selection, size, device)
    else:
        people = dataset_people(Path(data), selection, size, device)
    for name, reason in people.skipped.items():
        say(f"skipped {name}: {reason}")
    stages = Stages(update_steps, refine)
    measured = measure(
        model,
        people.load,
        people.draws,
        metrics,
        stages,
        lambda names: progress(names, len(names), "evaluating people"),
    )
    what = {
        "weights": weights.name,
        "weights_sha256": sha256(weights),
        "license": facts.get("license"),
        "data": data,
        "split": split,
        "image_size": size,
        "every": every,
        "update_steps": update_steps,
        "refine_steps": refine,
        "skipped": people.skipped,
    }
    found = result(measured, not_run, what)
    with replace_folder(output) as folder:
        (folder / "metrics.json").write_text(json.dumps(found, indent=1) + "\n")
        (folder / "metrics.md").write_text(markdown(found))
        write_grid(folder / "grid.png", model, people, measured, stages)
    if as_json:
        print_json(found)
        return
    print_table(*table(found))
    for name, metric in found["metrics"].items():
        if metric["reason"]:
            click.echo(f"{name} was not measured: {metric['reason']}")
    click.echo(f"\n{output}")
