"""One table of export targets: a target is one file in this folder that registers itself."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_avatar.errors import BadInput
from mobile_avatar.graphs.spec import GraphSpec

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

INTEGER = ("w8a8", "w8a16", "mixed")
"""Precisions that compute with integers, so that they are calibrated."""


@dataclass(frozen=True)
class Request:
    """Everything a converter needs; it writes its files into `folder` and nowhere else."""

    module: "nn.Module"
    """The deployment graph in eval mode: its one input -> outputs in the order and layout of `spec`."""
    spec: GraphSpec
    """Names, shapes and layouts."""
    precision: str
    """One of the target's."""
    warp: str
    """`split`, `native` or `gather`; of graphs without a warp, `split` if GPUs run it and `gather` if only CPUs do."""
    folder: Path
    """The bundle folder."""
    metadata: dict[str, str]
    """Short facts to write inside the file where its format has a place for them."""
    options: dict = field(default_factory=dict)
    """What only one target understands: `converter`, `socs`, ..."""
    calibration: "np.ndarray | None" = None
    """float32 (N, 136) keypoints in [-1, 1]; given for every integer precision."""
    keep: tuple[str, ...] = ()
    """`mixed`: layers, as paths inside `module.generator`, that stay above 8 bits."""
    quantize_io: bool = False
    """Inputs and outputs are integers too; only targets that say so are asked."""
    name: str = "render"
    """Stem of the model file, so that several graphs can lie in one bundle."""


@dataclass(frozen=True)
class Product:
    """What a converter made."""

    files: dict[str, str]
    """Role -> path relative to the folder. `model` is the file that the phone loads."""
    tools: dict[str, str]
    """Package or tool -> version."""
    notes: tuple[str, ...] = ()
    """Sentences for the user."""
    integers: dict[str, tuple[str, float, int]] = field(default_factory=dict)
    """Inputs and outputs that are stored as integers: name -> (dtype, scale, zero point)."""
    quantization: dict = field(default_factory=dict)
    """Integer precisions, for the manifest: `operators` (how many), `float_operators` (type -> how many stayed float)
    and `float_reasons` (sentences that account for all of them)."""


@dataclass(frozen=True)
class Target:
    """One row of the table; drives export, help, doctor and docs."""

    name: str
    title: str
    """What it makes and for whom, one line."""
    layout: str
    """`NCHW` or `NHWC` of image-like outputs."""
    warps: tuple[str, ...]
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    """Import names that conversion and verification need."""
    recipe: str
    """The deployment recipe that `--target NAME` alone means."""
    convert: Callable[[Request], Product]
    runner: str
    """`module:function` of the verification runner, see verification/runners.py."""
    options: tuple[str, ...] = ()
    """Options that only this target has."""
    quantize_io: bool = False
    """Whether inputs and outputs can be integers."""


_TARGETS: dict[str, Target] = {}


def register_target(**row: object) -> Callable[[Callable[[Request], Product]], Callable[[Request], Product]]:
    """Decorate a converter to put it into the table."""

    def add(convert: Callable[[Request], Product]) -> Callable[[Request], Product]:
        target = Target(convert=convert, **row)
        _TARGETS[target.name] = target
        return convert

    return add


def targets() -> dict[str, Target]:
    """All targets by name. Converters are imported only when they run."""
    package = importlib.import_module("mobile_avatar.exporters.targets")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_TARGETS.items()))


def find_target(name: str) -> Target:
    """The target called `name`; BadInput lists the known ones."""
    known = targets()
    if name not in known:
        raise BadInput(f"unknown target {name!r}; choose one of {', '.join(known)}")
    return known[name]
