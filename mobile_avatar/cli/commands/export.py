"""mobile-avatar export"""

from pathlib import Path

import click

from mobile_avatar.assets import shipped
from mobile_avatar.cli.common import force_option, json_option, print_checks, print_json, say


@click.command()
@click.argument("avatar", required=False, type=click.Path(path_type=Path))
@click.option("--target", help="tflite, snpe, coreml, onnx or executorch; alone it means the target's default device.")
@click.option(
    "--device",
    help="A recipe: snapdragon-855, snapdragon-8-elite, android-gpu, android-cpu, android-executorch, iphone, desktop.",
)
@click.option("--precision", help="fp32, fp16, w8a8, w8a16 or mixed; default: the recipe's.")
@click.option("--warp", help="split, native or gather; default: the recipe's.")
@click.option(
    "--converter", type=click.Choice(["ir", "sdk"]), help="snpe: the built-in converter (ir) or that of your SDK."
)
@click.option("--soc", "socs", multiple=True, help="snpe: add a context binary for this chip (repeatable).")
@click.option("--calibration", type=click.Path(path_type=Path), help="Keypoints (.npy) that set the integer ranges.")
@click.option("--recipe", "mixed", type=click.Path(path_type=Path), help="Layers that `--precision mixed` keeps.")
@click.option("--rewrites", help="Exact rewrites, separated by commas, or `none`; default: the target's own.")
@click.option("--quantize-io", is_flag=True, help="Integer inputs and outputs (their scales are in the manifest).")
@click.option("--budget-ms", type=click.FloatRange(min=0, min_open=True), help="Fail when the estimate exceeds this.")
@click.option("--strict", is_flag=True, help="A check that could not run counts as failed.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Bundle folder; default: exports/AVATAR-DEVICE.")
@force_option
@json_option
def command(avatar, target, device, converter, socs, mixed, strict, output, force, as_json, **plan):
    """Export AVATAR (default: the one that ships with the package), verify the file and write a bundle."""
    from mobile_avatar.exporters.recipes import find_recipe
    from mobile_avatar.exporters.registry import find_target
    from mobile_avatar.files import check_output_folder

    if target is None and device is None:
        raise click.UsageError("pass --target or --device")
    recipe = find_recipe(device or find_target(target).recipe)
    if target and target != recipe.target:
        find_target(target)
        raise click.UsageError(f"device {recipe.name} is for target {recipe.target}, not {target}")
    options = dict(recipe.options)
    if converter:
        options["converter"] = converter
    if socs:
        options["socs"] = list(dict.fromkeys([*options.get("socs", []), *socs]))
    source = avatar or shipped("default.avatar")
    output = output or Path("exports") / f"{source.stem}-{recipe.name}"
    check_output_folder(output, force, "manifest.json")

    from mobile_avatar.avatar import Avatar
    from mobile_avatar.exporters.bundle import export_bundle, judge, plan_from_recipe
    from mobile_avatar.exporters.rome_bundle import export_rome_bundle
    from mobile_avatar.models.rome.avatar import RomeAvatar, is_rome_avatar

    if plan["rewrites"] is not None:
        names = [name.strip() for name in plan["rewrites"].split(",")]
        plan["rewrites"] = () if names == ["none"] else tuple(names)
    gate, rome = plan["budget_ms"] is not None, is_rome_avatar(source)
    if rome and plan["warp"] is not None:
        raise click.UsageError("a ROME avatar has a draw call where others have a warp; leave --warp out")
    plan = plan_from_recipe(recipe, options=options, recipe=mixed, **plan)
    if rome:
        manifest = export_rome_bundle(RomeAvatar.load(source), plan, output, say)
    else:
        manifest = export_bundle(Avatar.load(source), plan, output, say)
    if as_json:
        print_json(manifest)
    else:
        _print_summary(manifest, output)
    judge(manifest, strict, gate_budget=gate)


def _print_summary(manifest: dict, output: Path) -> None:
    from mobile_avatar.verification.manifest import belongs

    print_checks(manifest)
    click.echo()
    for graph in manifest.get("graphs", [manifest]):
        model = graph["roles"]["model"]
        size = sum(entry["bytes"] for entry in manifest["files"] if belongs(entry["path"], model))
        click.echo(f"{output / model}  {size / 1e6:.2f} MB")
    limit = manifest["budget"]
    estimate = "none"
    if limit["estimate_ms"] is not None:
        estimate = f"{limit['estimate_ms']:g} ms, between {limit['low_ms']:g} and {limit['high_ms']:g}"
    click.echo(f"{manifest['parameters'] / 1e6:.2f} M parameters, {manifest['macs'] / 1e9:.3f} GMAC per frame")
    if "rewrites" in manifest:
        rewrites = ", ".join(manifest["rewrites"]) or "none"
        click.echo(f"rewrites: {rewrites}; {manifest['macs_plain'] / 1e9:.3f} GMAC in the official structure")
    click.echo(f"ESTIMATE, not measured, for {limit['device']}: {estimate} (budget {limit['budget_ms']:g} ms)")
    click.echo(limit["method"])
    for note in manifest["notes"]:
        click.echo(f"note: {note}")
