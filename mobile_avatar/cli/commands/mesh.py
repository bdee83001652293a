"""mobile-avatar mesh"""

from pathlib import Path

import click

from mobile_avatar.cli.common import force_option, json_option, print_json, say

SUFFIX = ".glb"


@click.command()
@click.argument("avatar", required=False, type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="Binary glTF file to write (.glb)."
)
@click.option(
    "--head",
    "head_name",
    type=click.Choice(("synthetic", "flame")),
    help="Default: synthetic, a person of the built-in head; flame, your own licensed head, when --flame is given.",
)
@click.option("--identity", type=click.IntRange(0), help="Number of the synthetic person; default: 0.")
@click.option(
    "--texture-size",
    default=1024,
    show_default=True,
    type=click.IntRange(16, 4096),
    help="Pixels; not for --head flame.",
)
@click.option("--flame", type=click.Path(path_type=Path), help="FLAME's generic_model.pkl, or an .npz with its arrays.")
@click.option(
    "--data",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder with the data files of DECA and ROME; may be repeated. Default: the folder of the --flame file.",
)
@force_option
@json_option
def command(avatar, output, head_name, identity, texture_size, flame, folders, force, as_json):
    """Write the rigged head of a ROME AVATAR, or another head, as a glTF file that 3D programs open.

    A contact sheet lies beside it. The file has joints, expressions as morph targets, a texture and an animation of
    the jaw. It is read back and compared with the head; one that moves differently is not kept.
    """
    from mobile_avatar.errors import BadInput
    from mobile_avatar.files import check_output

    if avatar is not None and (head_name or flame or folders or identity is not None):
        raise BadInput(f"{avatar} has its own head; leave out --head, --identity, --flame and --data")
    head_name = head_name or ("flame" if flame else "synthetic")
    if head_name == "flame" and flame is None:
        raise BadInput(
            "--head flame needs --flame FILE, your own copy of FLAME; nothing of it comes with mobile-avatar"
        )
    if head_name == "synthetic" and (flame is not None or folders):
        raise BadInput("--flame and --data belong to --head flame; leave them out for the synthetic head")
    if head_name == "flame" and identity is not None:
        raise BadInput("--identity is a person of the synthetic head; leave it out for FLAME")
    if output.suffix.lower() != SUFFIX:
        raise BadInput(f"{output} is not a binary glTF file; end its name in {SUFFIX}")
    sheet = output.with_name(output.name + ".png")
    for path in (output, sheet):
        check_output(path, force, inputs=(avatar, flame))

    from mobile_avatar.models.rome.mesh_heads import avatar_mesh, licensed_mesh, synthetic_mesh
    from mobile_avatar.models.rome.mesh_output import write_checked

    if avatar is not None:
        rig, looks = avatar_mesh(avatar, texture_size)
    elif head_name == "flame":
        rig, looks = licensed_mesh(flame, folders or (flame.absolute().parent,))
    else:
        rig, looks = synthetic_mesh(identity or 0, texture_size)
    say(f"licence: {rig.facts['license']}")
    result = write_checked(rig, looks, output, sheet)
    if as_json:
        print_json(result)
        return
    click.echo(
        f"{output}: {result['vertices']} vertices, {result['triangles']} triangles, {len(result['joints'])} joints, "
        f"{len(result['expressions'])} expressions ({result['bytes'] / 1e6:.1f} MB)"
    )
    click.echo(
        f"read back, {result['poses']} poses: within {result['distance_m'] * 1e6:.2f} µm of the head, "
        f"{result['distance_resting_joints_m'] * 1e6:.0f} µm in programs that leave the joints at rest"
    )
    click.echo(str(sheet))
