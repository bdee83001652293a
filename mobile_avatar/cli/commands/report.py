"""mobile-avatar report"""

from pathlib import Path

import click

from mobile_avatar.cli.common import force_option, json_option, print_json

SUFFIXES = (".html", ".htm")


@click.command()
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE [OTHER]", type=click.Path(path_type=Path))
@click.option("--compare", "comparing", is_flag=True, help="Put two bundles beside each other.")
@click.option("--sensitivity", type=click.Path(path_type=Path), help="Folder that `quantize-report` wrote.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Default: report.html or compare.html.")
@force_option
@json_option
def command(bundles, comparing, sensitivity, output, force, as_json):
    """Write one page about BUNDLE, or with --compare about BUNDLE and OTHER.

    The model file is executed again. The page is written and the exit code is 0 also when a check failed: the page
    says so.
    """
    from mobile_avatar.errors import BadInput
    from mobile_avatar.files import check_output, replace_file
    from mobile_avatar.reporting.collect import collect
    from mobile_avatar.reporting.compare import compare
    from mobile_avatar.reporting.page import render_comparison, render_report

    wanted = 2 if comparing else 1
    if len(bundles) != wanted:
        form = "`report --compare A B` takes two bundles" if comparing else "`report BUNDLE` takes one bundle"
        raise BadInput(f"{form}, not {len(bundles)}; two are put beside each other with --compare")
    if comparing and sensitivity is not None:
        raise BadInput("--sensitivity belongs to the report of one bundle; leave --compare out")
    output = output or Path("compare.html" if comparing else "report.html")
    if output.suffix.lower() not in SUFFIXES:
        raise BadInput(f"{output} is not an HTML file; end its name in .html")
    check_output(output, force, bundles)
    for bundle in bundles:
        _check_not_of(bundle, output)
    facts = [collect(bundle, sensitivity) for bundle in bundles]
    page = render_comparison(compare(*facts)) if comparing else render_report(facts[0])
    with replace_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    found = [
        {
            "bundle": one.name,
            "parity": one.parity.word,
            "parity_sentence": one.parity.sentence,
            "files": one.hashes.word,
            "files_sentence": one.hashes.sentence,
            "budget": one.budget.word,
            "budget_sentence": one.budget.sentence,
        }
        for one in facts
    ]
    if as_json:
        print_json({"page": str(output), "bytes": len(page.encode()), "bundles": found})
        return
    for row in found:
        click.echo(f"{row['bundle']}: parity {row['parity']}: {row['parity_sentence']}")
        if row["files"] != "unchanged":
            click.echo(f"{row['bundle']}: files {row['files']}: {row['files_sentence']}")
        click.echo(f"{row['bundle']}: budget {row['budget']}: {row['budget_sentence']}")
    click.echo(f"wrote {output} ({len(page.encode()) / 1e6:.1f} MB)")


def _check_not_of(bundle: Path, output: Path) -> None:
    """BadInput for an output that would be a file of the bundle, or would lie in its model where that is a folder."""
    from mobile_avatar.errors import BadInput
    from mobile_avatar.files import inside
    from mobile_avatar.reporting.collect import roles_of
    from mobile_avatar.verification.manifest import read_manifest

    manifest = read_manifest(bundle)
    names = {*(entry["path"] for entry in manifest["files"]), *(path for _, path in roles_of(manifest))}
    place = output.resolve()
    for path in (inside(bundle, name) for name in sorted(names)):
        if place.is_relative_to(path) or (place.exists() and path.exists() and place.samefile(path)):
            raise BadInput(f"{output} belongs to the bundle {bundle}, and a page there would damage it; choose another")
