"""Shipped weights and avatar."""

import importlib.resources
from pathlib import Path


def shipped(name: str) -> Path:
    """A file that comes with the package."""
    return Path(str(importlib.resources.files("mobile_avatar.assets") / name))
