"""Where a bundle can be measured: one table, one function per place."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mobile_avatar.benchmarking.store import Journal
from mobile_avatar.benchmarking.subject import Subject


@dataclass(frozen=True)
class Settings:
    """What the user asked for; a place takes from it what it knows."""

    device: str | None = None
    """aihub: name of a hosted device. None: the place's default."""
    runs: int = 50
    """Steady runs behind a figure, at least 1."""
    sustained_min: float = 0.0
    """Minutes of a sustained run after the short one; 0 for none."""
    threads: int | None = None
    """host: most threads to try (None: all cores). adb: threads of a CPU run (None: 4)."""
    runtimes: tuple[str, ...] = ()
    """host and adb: only these; empty for all that are there."""
    avatar: Path | None = None
    """host: the .avatar file behind the bundle, for the runtimes that the bundle's own file is not for."""
    serial: str | None = None
    """adb: which phone."""
    tools: Path | None = None
    """adb: folder with the device tools."""
    unit: str | None = None
    """aihub: compute unit to ask for, `npu`, `gpu`, `cpu` or `all`. None: what the bundle is for."""
    say: Callable[[str], None] = field(default=print, repr=False)
    """Receives plain lines of progress."""


PLACES: dict[str, str] = {
    "host": "mobile_avatar.benchmarking.host:measure",
    "adb": "mobile_avatar.benchmarking.phone:measure",
    "aihub": "mobile_avatar.benchmarking.aihub:measure",
}
"""Name -> `module:function`. The function takes (Subject, Settings, Journal), puts every row into the journal as soon
as it is there, and raises MissingTool when the place cannot be reached. A row that fails is kept with its `error`."""

WHOLE_BUNDLES = ("host",)
"""Places that take all graphs of a bundle at once; the others get them one by one."""


def measure(place: str, subject: Subject, settings: Settings, journal: Journal) -> None:
    """Measure in one place; what was measured is in `journal`, also when this raises."""
    module, name = PLACES[place].split(":")
    function = getattr(importlib.import_module(module), name)
    if subject.graphs and place not in WHOLE_BUNDLES:
        # Not above: it needs the settings of this file.
        from mobile_avatar.benchmarking.one_by_one import measure_one_by_one

        return measure_one_by_one(function, subject, settings, journal)
    function(subject, settings, journal)
