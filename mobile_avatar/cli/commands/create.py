"""mobile-avatar create"""

from pathlib import Path

import click
from click.core import ParameterSource

from mobile_avatar.cli.avatar_models import DEFAULT_MODEL, MODELS, Request, check_options
from mobile_avatar.cli.common import (
    force_option,
    json_option,
    print_json,
    print_table,
    say,
    tracker_option,
    weights_option,
)


@click.command()
@click.argument("photo", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Avatar file; default: PHOTO's name with .avatar."
)
@click.option(
    "--model",
    type=click.Choice(list(MODELS)),
    default=DEFAULT_MODEL,
    show_default=True,
    help="A picture that a network warps, or a head mesh with hair.",
)
@weights_option
@click.option(
    "--update-steps",
    default=4,
    show_default=True,
    type=click.IntRange(0, 16),
    help="Learned texture updates; bilayer only.",
)
@click.option(
    "--refine",
    default=0,
    show_default=True,
    type=click.IntRange(0, 5000),
    help="Adam steps on the texture, towards this photo.",
)
@tracker_option
@force_option
@json_option
@click.pass_context
def command(context, photo, output, model, weights, update_steps, refine, tracker_models, force, as_json):
    """Make an avatar of the largest face in PHOTO, and a contact sheet beside it."""
    from mobile_avatar.files import check_output

    check_options(
        model, {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    )
    output = output or Path(photo.stem + ".avatar")
    sheet = output.with_name(output.name + ".png")
    for path in (output, sheet):
        check_output(path, force, inputs=(photo, weights))

    made = MODELS[model].make(Request(photo, weights, tracker_models, update_steps, refine, say))
    made.save(output)
    made.write_sheet(sheet)
    psnr = {stage: round(value, 2) for stage, value in made.psnr.items()}
    result = {"avatar": str(output), "contact_sheet": str(sheet), "faces_found": made.faces_found}
    result |= {"source_psnr_db": psnr, "mask_iou": round(made.mask_iou, 3)}
    if as_json:
        print_json(result)
        return
    print_table((made.stage, "PSNR dB of the source photo, inside its mask"), list(psnr.items()))
    click.echo(f"\nthe avatar's mask overlaps the photo's by {made.mask_iou:.0%}\n{output}\n{sheet}")
