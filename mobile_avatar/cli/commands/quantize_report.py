"""mobile-avatar quantize-report"""

from pathlib import Path

import click

from mobile_avatar.assets import shipped
from mobile_avatar.cli.common import force_option, json_option, print_json, print_table


@click.command()
@click.argument("avatar", required=False, type=click.Path(path_type=Path))
@click.option("--calibration", type=click.Path(path_type=Path), help="Keypoints (.npy) that set the integer ranges.")
@click.option(
    "--gain-db", type=click.FloatRange(0), default=3.0, show_default=True, help="What the recipe should gain."
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder; default: quantization/AVATAR.")
@force_option
@json_option
def command(avatar, calibration, gain_db, output, force, as_json):
    """Show what 8 bits cost AVATAR (default: the one that ships with the package), and write a mixed recipe."""
    from mobile_avatar.avatar import Avatar
    from mobile_avatar.files import check_output_folder
    from mobile_avatar.progress import progress
    from mobile_avatar.quantization.calibration import load_calibration
    from mobile_avatar.quantization.report import layer_table, quantize_report

    source = avatar or shipped("default.avatar")
    output = output or Path("quantization") / source.stem
    check_output_folder(output, force, "report.json")
    report = quantize_report(Avatar.load(source), load_calibration(calibration), output, progress, gain_db)
    if as_json:
        print_json(report)
        return
    rows = [(name, image, worst, "kept" if kept else "") for name, image, worst, kept in layer_table(report)]
    print_table(("layer alone in 8 bits", "image dB", "lowest dB", ""), rows)
    click.echo()
    files = [(row["name"], row["bytes"] / 1e6, *row["psnr_db"].values()) for row in report["files"]]
    print_table(("file", "MB", *(f"{name} dB" for name in report["files"][0]["psnr_db"])), files)
    recipe, operators = report["recipe"], report["mixed_operators"]
    floats = sum(operators["float_operators"].values())
    click.echo(f"\nrecipe: {recipe['gain_db']:+.1f} dB on the image for {recipe['size_share']:.0%} of the way to fp16")
    click.echo(f"operators that stay float: {floats} of {operators['operators']}")
    for reason in operators["float_reasons"]:
        click.echo(f"  {reason}")
    click.echo(f"all measured on .tflite files: {report['measured']}")
    command = f"mobile-avatar export {avatar or ''}".strip()
    click.echo(f"apply it: {command} --target tflite --precision mixed --recipe {output / 'recipe.json'}")
