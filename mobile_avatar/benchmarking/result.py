"""One result format for whatever was timed: a row says what ran, where, and how its number came about."""

import datetime
import math
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np

from mobile_avatar.errors import BadInput

Kind = Literal["measured", "simulated", "estimated"]
Scope = Literal["frame", "graph"]
DRAW, FRAME = "draw", "frame"
"""Values of `Result.graph` that are no graph: the draw call between graphs, and a frame of all graphs."""
TITLES = {
    (DRAW, "graph"): "draw call in software (torch); on a phone the GPU draws",
    (FRAME, "graph"): "frame, all graphs, without the draw call",
    (FRAME, "frame"): "frame with the draw call in software",
}
"""How rows of bundles of several graphs begin where their `graph` alone would not say it; by graph and scope."""
LEAST_RUNS = {"p90": 10, "p99": 100}
"""Fewer runs have no such percentile; it would be the slowest run under another name."""
LONGEST_TEXT = 4000


@dataclass(frozen=True)
class OperatorTime:
    """One operator or layer of a graph."""

    name: str
    type: str
    unit: str
    """Where it ran: `CPU`, `GPU`, `NPU`, ...; empty when the tool does not say."""
    ms: float | None
    """Average per run; None when the tool lists the operator without a time."""
    compute_ms: float | None = None
    """Estimates: the two terms of which the longer one counts."""
    traffic_ms: float | None = None


@dataclass(frozen=True)
class Minute:
    """One minute of a sustained run."""

    minute: int
    runs: int
    p50_ms: float
    temperature_c: float | None = None


@dataclass(frozen=True)
class Result:
    """One row: one file (or graph) in one runtime on one device. What a tool does not tell is None or empty."""

    kind: Kind
    place: str
    """`host`, `adb`, `aihub` or `estimate`."""
    device: str
    """Name as the device or service gives it: `Pixel 4`, `this host`, `snapdragon-855`."""
    runtime: str
    """`litert`, `onnxruntime`, `snpe`, ..."""
    precision: str
    taken: str
    """When, ISO 8601 in UTC."""
    model_sha256: str
    """Of the bundle's model file. A host row of another runtime holds for the same graph, converted: see `own_file`."""
    own_file: bool = True
    """Whether it is about the bundle's own model file, and not about the same graph converted for another runtime."""
    scope: Scope = "graph"
    """`frame`: graph and composition of the image (or the draw call); `graph`: the model file, or files, alone."""
    graph: str = ""
    """Bundles of several graphs: which one this row is about, `draw`, or `frame` for all graphs together. Empty: the
    bundle has one graph."""
    soc: str = ""
    os: str = ""
    runtime_version: str = ""
    delegate: str = ""
    """What did the work, as found and not as asked for: `XNNPACK`, `GPU`, `HTP`, `CPU (fallback)`."""
    threads: int | None = None
    power_mode: str = ""
    temperature_before_c: float | None = None
    temperature_after_c: float | None = None
    thermal_before: str = ""
    """Throttling state in the words of the system, as `none` or `moderate`."""
    thermal_after: str = ""
    load_ms: float | None = None
    first_ms: float | None = None
    warmup_ms: float | None = None
    """Average of the warm-up runs."""
    warmup_runs: int | None = None
    runs: int | None = None
    """Steady runs behind the numbers below."""
    mean_ms: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    composite_p50_ms: float | None = None
    """Scope `frame`: the part of p50 that composes the image (the app's shader on a phone)."""
    memory_mb: float | None = None
    memory_what: str = ""
    """What `memory_mb` counts, as `peak` or `growth of resident memory`."""
    operators: tuple[OperatorTime, ...] = ()
    """Empty: timed as a whole graph only."""
    sustained: tuple[Minute, ...] = ()
    parity: tuple[dict, ...] = ()
    """Rows as in a manifest: outputs of this very run beside the golden ones."""
    low_ms: float | None = None
    """Estimates: lower and upper end of what the residual of the calibration allows."""
    high_ms: float | None = None
    compute_ms: float | None = None
    """Estimates: sum of the compute terms, and of the memory traffic terms."""
    traffic_ms: float | None = None
    method: str = ""
    """How the number came about and what it leaves out, one or two sentences."""
    command: str = ""
    """What ran on the device, as typed; empty where nothing was typed."""
    jobs: tuple[dict, ...] = ()
    """Cloud jobs: `id`, `type`, `url`, `status`."""
    notes: tuple[str, ...] = ()
    error: str = ""
    """Why there are no numbers, one sentence; such a row keeps what was learnt until then."""

    def figure(self, statistic: str = "p50") -> tuple[str, float | None]:
        """The steady time in ms and which statistic it is.

        For p50 `mean` stands in where a tool gives nothing else; it says nothing about slow frames, so for p90 and p99
        it does not.
        """
        value = getattr(self, f"{statistic}_ms")
        return ("mean", self.mean_ms) if value is None and statistic == "p50" else (statistic, value)

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, row: dict, source: str) -> "Result":
        """The reverse of `to_dict`; unknown fields are ignored, wrong ones raise BadInput that names `source`."""
        try:
            return _build(cls, row)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise BadInput(f"{source} is not a benchmark result ({error}); delete it and measure again") from error

    @property
    def title(self) -> str:
        """Graph, runtime, delegate, precision and threads in a few words."""
        threads = "" if self.threads is None else f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        what = TITLES.get((self.graph, self.scope), self.graph)
        if self.graph == FRAME and self.kind == "estimated":
            what = "frame, without mesh graph and draw call"
        if self.graph == DRAW:
            return ", ".join(filter(None, (what, threads)))
        words = ", ".join(filter(None, (f"{self.runtime} {self.precision}", self.delegate, threads)))
        return f"{what}: {words}" if what else words

    @property
    def whole(self) -> bool:
        """Whether it is a time that budgets are for: of the one graph, or of all graphs together without what the GPU
        of a phone draws between them. Parts of a frame are no such time, nor is a frame drawn in software."""
        return not self.graph or (self.graph, self.scope) == (FRAME, "graph")


def now() -> str:
    """The value of `taken`."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def steady(milliseconds: list[float]) -> dict:
    """`runs`, `mean_ms`, `p50_ms`, `p90_ms` and `p99_ms` of single runs, for `Result(**steady(...))`.

    A percentile that so few runs do not have is None (`LEAST_RUNS`).
    """
    count = len(milliseconds)
    found = {"runs": count, "mean_ms": round(float(np.mean(milliseconds)), 4)}
    for name, percent in (("p50", 50), ("p90", 90), ("p99", 99)):
        enough = count >= LEAST_RUNS.get(name, 1)
        found[f"{name}_ms"] = round(float(np.percentile(milliseconds, percent)), 4) if enough else None
    return found


_STEADY = ("mean_ms", "p50_ms", "p90_ms", "p99_ms")
"""Nothing takes no time; a file that says so is not to be judged by it."""


def _build(kind: type, row: dict) -> object:
    hints = get_type_hints(kind)
    return kind(**{f.name: _read(hints[f.name], row[f.name], f.name) for f in fields(kind) if f.name in row})


def _read(hint: object, value: object, name: str) -> object:
    """A JSON value as the annotation wants it; ValueError names the field otherwise."""
    options = get_args(hint)
    if get_origin(hint) is Literal:
        good, result = value in options, value
    elif get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name}: {value!r}")
        result = tuple(_build(options[0], item) if is_dataclass(options[0]) else item for item in value)
        good = all(isinstance(item, options[0]) for item in result)
    else:
        kinds = options or (hint,)
        number = float in kinds and isinstance(value, int) and not isinstance(value, bool)
        good, result = number or type(value) in kinds, value
        if isinstance(value, str):
            # Texts of files from elsewhere are printed: nothing in them may move the cursor or start a line.
            result = "".join(c if c.isprintable() else " " for c in value[:LONGEST_TEXT])
        elif isinstance(value, int | float):
            good &= math.isfinite(value) and (value > 0 if name in _STEADY else value >= 0 or name.endswith("_c"))
    if not good:
        raise ValueError(f"{name}: {value!r}")
    return result
