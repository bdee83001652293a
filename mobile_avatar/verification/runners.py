"""How an exported file is executed: the contract of a runner, and finding the one that belongs to a bundle."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobile_avatar.errors import CheckFailed
from mobile_avatar.graphs.spec import GraphSpec, TensorSpec


@dataclass(frozen=True)
class Check:
    """A check of the file besides its numbers (structure, weights); `passed` is None when it could not run."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class Runner:
    """Executes the exported file itself."""

    name: str
    """Which runtime and arithmetic, as the parity table shows it: `litert-cpu`, `qnn-htp-simulator-fp16`, ..."""
    run: Callable[[np.ndarray], dict[str, np.ndarray]]
    """The graph's one input, float32 of its shape -> output name -> float32 array of the manifest's shape."""
    checks: list[Check] = field(default_factory=list)
    """Further checks made while the file was opened."""
    workers: int = 1
    """How many threads may call `run` at once."""


@dataclass(frozen=True)
class Exported:
    """The exported files as a runner sees them, read back from the manifest."""

    folder: Path
    files: dict[str, Path]
    """Role -> absolute path inside the folder; the same roles as Product.files."""
    spec: GraphSpec
    precision: str
    warp: str


def check_interface(
    path: Path, found: dict[str, tuple[tuple[int, ...], str]], expected: tuple[TensorSpec, ...]
) -> None:
    """Hold names, shapes and types that a runtime found in a file against the manifest.

    Raises CheckFailed, listing what was found.
    """
    if found != {tensor.name: (tensor.shape, tensor.dtype) for tensor in expected}:
        listed = ", ".join(f"{name} {shape}" for name, (shape, _) in found.items())
        raise CheckFailed(f"{path} has other inputs or outputs ({listed}) than its manifest says")


def open_runner(reference: str, exported: Exported) -> Runner:
    """Call the `module:function` of a target with the exported files.

    Raises MissingTool when the runtime is not on this machine (the check is then reported as not run), and
    CheckFailed when the file is damaged.
    """
    module, function = reference.split(":")
    return getattr(importlib.import_module(module), function)(exported)
