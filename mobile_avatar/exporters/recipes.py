"""Deployment recipes: which target, precision and warp a phone class and runtime get. They lie in `export/`."""

import importlib.resources
from dataclasses import dataclass, field

import yaml

from mobile_avatar.errors import BadInput


@dataclass(frozen=True)
class Recipe:
    """One deployment: a row of `export/*.yaml`."""

    name: str
    """File name without suffix; what --device accepts."""
    title: str
    target: str
    precision: str
    warp: str
    reason: str
    """Why these choices, one or two sentences."""
    options: dict = field(default_factory=dict)
    """Options of this target alone."""


def recipes() -> dict[str, Recipe]:
    """All recipes by name."""
    folder = importlib.resources.files("mobile_avatar.recipes")
    found = {}
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        name, _, suffix = entry.name.rpartition(".")
        if suffix == "yaml":
            found[name] = Recipe(name=name, **yaml.safe_load(entry.read_text()))
    return found


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`; BadInput lists the known ones."""
    known = recipes()
    if name not in known:
        raise BadInput(f"unknown device {name!r}; choose one of {', '.join(known)}")
    return known[name]
