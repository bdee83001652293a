"""mobile-avatar import"""

from pathlib import Path

import click

from mobile_avatar.cli.common import force_option, json_option, print_json, say

LICENSE = "as granted with the official release; the importer adds and removes nothing"


@click.group("import")
def command():
    """Convert officially released weights."""


@command.command("bilayer")
@click.argument("runs_dir", type=click.Path(path_type=Path))
@click.option("--epoch", type=int, help="Epoch of the base run; default: the latest complete one.")
@click.option("--enhancer-epoch", type=int, help="Epoch of the texture enhancer's run; default: the latest.")
@click.option(
    "--align-corners", is_flag=True, help="Warp as torch before 1.3 did; which one trained the weights is unknown."
)
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="weights.safetensors to write.")
@force_option
@json_option
def bilayer(runs_dir, epoch, enhancer_epoch, align_corners, output, force, as_json):
    """Read the official RUNS_DIR (runs/<name>/checkpoints/<epoch>_<network>.pth)."""
    from mobile_avatar.files import check_output, sha256
    from mobile_avatar.models.bilayer.official_runs import find_runs, import_official
    from mobile_avatar.models.bilayer.weights import save_weights

    check_output(output, force)
    runs = find_runs(runs_dir, epoch, enhancer_epoch)
    model, discriminator = import_official(runs, align_corners)
    facts = {"license": LICENSE, "trained_on": "see the official release", "source": runs.describe()}
    save_weights(model, output, facts)
    result = {
        "weights": str(output),
        "sha256": sha256(output),
        "source": runs.describe(),
        "config": model.config.to_dict(),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if as_json:
        print_json(result)
        return
    if discriminator is not None:
        say("the discriminator was read and checked; it is for training and is not in the weights file")
    click.echo(f"{output}: {result['parameters'] / 1e6:.2f} M parameters, {model.config.image_size} px")


@command.command("rome")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="weights.safetensors to write.")
@force_option
@json_option
def rome(folder, output, force, as_json):
    """Read rome.pth, and what is there of linear_hair.pth, disp_model.pth, u_full.pt, mean_deform.pt and
    deca_model.tar, from FOLDER. The official weights are for non-commercial research only."""
    from mobile_avatar.files import check_output, sha256
    from mobile_avatar.models.rome.official_files import LICENSE, import_official
    from mobile_avatar.models.rome.weights import save_weights

    check_output(output, force)
    imported = import_official(folder)
    networks = imported.networks
    source = ", ".join(path.name for path in imported.files.values())
    save_weights(networks, output, {"license": LICENSE, "trained_on": "see the official release", "source": source})
    say(f"licence: {LICENSE}")
    say("the weights that come with mobile-avatar are not derived from them")
    result = {
        "weights": str(output),
        "sha256": sha256(output),
        "source": source,
        "config": networks.config.to_dict(),
        "parts": {name: sum(p.numel() for p in networks.part(name).parameters()) for name in networks.parts},
        "parameters": sum(p.numel() for p in networks.parameters()),
        "missing": imported.missing,
        "ignored": imported.ignored,
        "license": LICENSE,
    }
    if as_json:
        print_json(result)
        return
    for part, file in imported.missing.items():
        say(f"without {part}: {file} is not in {folder}")
    if imported.ignored:
        say("ignored tensors: " + ", ".join(f"{name}.* ({count})" for name, count in imported.ignored.items()))
    click.echo(f"{output}: {result['parameters'] / 1e6:.2f} M parameters in {', '.join(networks.parts)}")
