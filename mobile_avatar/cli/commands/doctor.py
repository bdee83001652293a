"""mobile-avatar doctor"""

import click

from mobile_avatar.cli.common import json_option, print_json, print_table


@click.command()
@json_option
def command(as_json):
    """Show which targets, runtimes and accounts this machine has, and how to get the rest."""
    from mobile_avatar.doctor import examine

    found = examine()
    if as_json:
        print_json({"rows": [row.to_dict() for row in found]})
        return
    print_table(("what", "", "version or state", "without it"), [row.cells() for row in found])
    missing = [row for row in found if not row.present]
    if missing:
        click.echo()
        for row in missing:
            click.echo(f"{row.name}: {row.remedy}")
