"""mobile-avatar verify"""

from pathlib import Path

import click

from mobile_avatar.cli.common import json_option, print_checks, print_json


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="A check that could not run counts as failed.")
@json_option
def command(bundle, strict, as_json):
    """Execute the exported files of BUNDLE and compare them with their golden outputs."""
    from mobile_avatar.exporters.bundle import judge
    from mobile_avatar.verification.manifest import GRAPHS_FORMAT, read_manifest
    from mobile_avatar.verification.rome import verify_graphs
    from mobile_avatar.verification.verify import verify_files

    manifest = read_manifest(bundle)
    manifest |= (verify_graphs if manifest["format"] == GRAPHS_FORMAT else verify_files)(bundle, manifest)
    if as_json:
        print_json({"parity": manifest["parity"], "checks": manifest["checks"]})
    else:
        print_checks(manifest)
    judge(manifest, strict)
