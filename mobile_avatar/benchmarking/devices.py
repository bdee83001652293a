"""Phone chips: their names, numbers and where each number comes from, read from `devices.yaml`."""

import functools
import importlib.resources
import re
from dataclasses import dataclass

import yaml

from mobile_avatar.benchmarking.result import Result


@dataclass(frozen=True)
class Chip:
    """One chip of the table."""

    name: str
    title: str
    aliases: tuple[str, ...]
    """SoC ids, board names and phones, as systems and services write them."""


@functools.cache
def chips() -> dict[str, Chip]:
    """All chips by name."""
    text = importlib.resources.files("mobile_avatar.benchmarking").joinpath("devices.yaml").read_text()
    rows = yaml.safe_load(text)["chips"]
    return {name: Chip(name, row["title"], tuple(row["aliases"])) for name, row in rows.items()}


def chip_called(name: str) -> Chip | None:
    """The chip of a name, SoC id, board name or phone; None when the table has none of that name."""
    wanted = _plain(name)
    for chip in chips().values():
        if wanted in {_plain(known) for known in (chip.name, chip.title, *chip.aliases)}:
            return chip
    return None


def same_device(result: Result, name: str) -> bool:
    """Whether a result belongs to the chip (or, outside the table, to the device) called `name`."""
    found = [text for text in (result.device, result.soc) if text]
    if any(_plain(text) == _plain(name) for text in found):
        return True
    chip = chip_called(name)
    return chip is not None and any(chip_called(text) == chip for text in found)


def _plain(name: str) -> str:
    """Lower case without spaces, dashes and the maker's name, which systems write or leave out."""
    return re.sub(r"google|samsung|qualcomm|apple|[^a-z0-9]", "", name.lower())
