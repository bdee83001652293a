"""The table of device tools, and what such a tool is asked and answers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_avatar.benchmarking.result import OperatorTime
from mobile_avatar.graphs.spec import GraphSpec


@dataclass(frozen=True)
class DeviceRun:
    """One call of a tool; all paths are relative to the folder on the device, which is the working directory."""

    model: str
    """The model file's name."""
    delegate: str
    """One of the tool's `delegates`."""
    threads: int
    """Of a CPU run."""
    runs: int
    """Steady runs."""
    spec: GraphSpec
    inputs: tuple[str, ...]
    """Raw little-endian files, one per golden case, as the model stores its input."""
    output: str
    """Name of a folder for outputs and logs; it exists and is empty."""
    details: bool = True
    """False: the steady runs alone, without operators, first run and outputs, as in a sustained run."""


@dataclass(frozen=True)
class Reading:
    """What a tool said; None or empty for what it did not say. Times in ms."""

    load_ms: float | None = None
    first_ms: float | None = None
    warmup_ms: float | None = None
    warmup_runs: int | None = None
    runs: int | None = None
    mean_ms: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    memory_mb: float | None = None
    memory_what: str = ""
    operators: tuple[OperatorTime, ...] = ()
    delegate: str = ""
    """What did the work, as found in the output; empty when the output does not tell."""
    fallback: str = ""
    """One sentence when (part of) the graph ran elsewhere than asked for; empty when it did not or is not known."""
    version: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tool:
    """One row of the table."""

    name: str
    """Name of the program, as the user has it."""
    runtime: str
    """`litert`, `snpe` or `qnn`: as in `Result.runtime`."""
    targets: tuple[str, ...]
    """Targets of the bundles it runs."""
    delegates: tuple[str, ...]
    """Compute units it can be asked for, the best for these bundles first; `CPU` is the reference where it is there."""
    programs: tuple[str, ...]
    """Programs to push, found in the user's folder or SDK; all are needed."""
    libraries: tuple[str, ...]
    """Patterns of shared libraries to push beside them, as `libSNPE.so`; those that exist are pushed."""
    host_programs: tuple[str, ...]
    """Programs that run on this computer and read what was pulled (`snpe-diagview`)."""
    commands: Callable[[DeviceRun], tuple[str, ...]]
    """Shell lines to run on the device, in order, until one fails; lines that only add detail never fail.

    LD_LIBRARY_PATH and ADSP_LIBRARY_PATH are set by the caller."""
    parse: Callable[[DeviceRun, str, Path, Path | None], Reading]
    """(run, everything that the lines printed, local copy of `run.output`, local folder of `host_programs`) -> Reading.

    Raises CheckFailed, naming what is missing, for output that is not what the tool prints, and MissingTool where
    the times can only be read by a host program that is not there."""
    read_outputs: Callable[[DeviceRun, Path], list[dict[str, np.ndarray]]]
    """(run, local copy of `run.output`) -> per golden case, output name -> array as stored, in the manifest's layout.

    Empty when this tool writes none; CheckFailed when a file has the wrong size."""


def no_outputs(run: DeviceRun, output: Path) -> list[dict[str, np.ndarray]]:
    """`read_outputs` of a tool that writes none."""
    return []
