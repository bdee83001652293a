"""What every training command shows: the plan of a dry run, and where the weights are at the end."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from mobile_avatar.cli.common import print_json, print_table, say


def show_plan(options, config, networks, seen, as_json):
    """What a run would do: its options, the sizes of the networks (name -> module), how much data it sees."""
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    if as_json:
        print_json({"options": asdict(options), "model": config.to_dict(), "parameters": counts, "seen": seen})
        return
    print_table(("option", "value"), [(k, "-" if v is None else str(v)) for k, v in asdict(options).items()])
    click.echo()
    print_table(("network", "parameters"), [(name, f"{count:,}") for name, count in counts.items()])
    click.echo()
    print_table(("in this run", "count"), [(name, f"{count:,}") for name, count in seen.items()])


def show_finished(run_dir: Path, path: Path, as_json: bool) -> None:
    """Where the weights are; as JSON with the last metrics of the run."""
    if as_json:
        last = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
        print_json({"weights": str(path), "metrics": last})
    else:
        say(f"finished: {path}")
