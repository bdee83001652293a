"""Runs of device tools as recorded: a spec, folders as they are pulled, and a viewer that prints recordings.

Qualcomm's viewers cannot be installed here: in their place a script prints the "log", which is a recording of what the
real one printed. Everything else in these tests is the real thing.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from mobile_avatar.benchmarking.tools.table import DeviceRun
from mobile_avatar.graphs.spec import GraphSpec, graph_spec

SHELLS = [name for name in ("sh", "mksh") if shutil.which(name)]
"""mksh is Android's."""
RECORDED = Path(__file__).parents[1] / "recorded"
SPEC = graph_spec("split", 8, "NHWC")
INTEGERS = SPEC.with_integers(
    {"keypoints": ("int8", 0.005, -19), "uv": ("int8", 0.009, 8), "lf": ("uint8", 0.008, 0), "mask": ("int16", 0.1, 0)}
)


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


def device_run(delegate: str, cases: int = 2, spec: GraphSpec = SPEC, **changes: object) -> DeviceRun:
    inputs = tuple(f"input_{case}.raw" for case in range(cases))
    return replace(DeviceRun("model.bin", delegate, 4, 50, spec, inputs, "output"), **changes)


def pulled(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """A folder as it comes from the phone."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def viewer(folder: Path, name: str) -> Path:
    """A host folder whose program prints its `--input_log`, and copies LOG.csv to `--output` where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text('#!/bin/sh\ncat "$2"\nif [ -f "$2.csv" ]; then cp "$2.csv" "$4"; fi\n')
    path.chmod(0o755)
    return folder


def outputs(spec: GraphSpec, cases: int = 2) -> list[dict[str, np.ndarray]]:
    """Random outputs as a model stores them."""
    rng = np.random.default_rng(7)
    return [
        {t.name: t.store(rng.uniform(*t.range, t.shape)) for t in spec.outputs}  # as stored
        for _ in range(cases)
    ]
