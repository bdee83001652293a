"""mobile-avatar create"""

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
@click.argument("photo", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Avatar file; default: PHOTO's name with .avatar."
)
@weights_option
@click.option(
    "--update-steps", default=4, show_default=True, type=click.IntRange(0, 16), help="Learned texture updates."
)
@click.option("--refine", default=0, show_default=True, type=click.IntRange(0, 5000), help="Adam steps on the texture.")
@tracker_option
@force_option
@json_option
def command(photo, output, weights, update_steps, refine, tracker_models, force, as_json):
    """Make an avatar of the largest face in PHOTO, and a contact sheet beside it."""
    from mobile_avatar.files import check_output

    output = output or Path(photo.stem + ".avatar")
    sheet = output.with_name(output.name + ".png")
    for path in (output, sheet):
        check_output(path, force, inputs=(photo, weights))

    from mobile_avatar.avatar import avatar_facts
    from mobile_avatar.creation import create_avatar, source_from_photo, write_contact_sheet
    from mobile_avatar.keypoints.models import tracker_models as find_models
    from mobile_avatar.models.bilayer.weights import load_weights
    from mobile_avatar.progress import progress

    weights = find_weights(weights)
    model, facts = load_weights(weights)
    source, faces = source_from_photo(photo, model.config.image_size, lambda: find_models(tracker_models))
    if faces > 1:
        say(f"{photo}: {faces} faces found, taking the largest")
    created = create_avatar(
        model,
        source,
        avatar_facts(weights, facts, photo),
        update_steps,
        refine,
        lambda steps: progress(steps, len(steps), "refining the texture"),
    )
    created.avatar.save(output)
    write_contact_sheet(created, source, sheet)
    psnr = {stage: round(value, 2) for stage, value in created.psnr.items()}
    result = {"avatar": str(output), "contact_sheet": str(sheet), "faces_found": faces, "source_psnr_db": psnr}
    result["mask_iou"] = round(created.mask_iou, 3)
    if as_json:
        print_json(result)
        return
    print_table(("texture", "PSNR dB of the source photo, inside its mask"), list(psnr.items()))
    click.echo(f"\nthe avatar's mask overlaps the photo's by {created.mask_iou:.0%}\n{output}\n{sheet}")
