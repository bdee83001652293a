"""Two bundles beside each other; a ratio stands only where both numbers mean the same thing."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mobile_avatar.benchmarking.result import FRAME, Result
from mobile_avatar.reporting import words
from mobile_avatar.reporting.clean import mapping, number, text, texts
from mobile_avatar.reporting.collect import Facts
from mobile_avatar.reporting.frames import Frame, make_frames
from mobile_avatar.reporting.latency import figure


@dataclass(frozen=True)
class Line:
    """One fact of both."""

    label: str
    first: str
    second: str
    ratio: float | None = None
    """Second divided by first."""

    @property
    def differs(self) -> bool:
        return self.first != self.second


@dataclass(frozen=True)
class Match:
    """Two results that may be compared, or one that has no counterpart."""

    device: str
    scope: str
    first: Result | None
    second: Result | None
    first_ms: float | None
    second_ms: float | None
    ratio: float | None
    statistic: str = ""
    why: str = ""
    """Why there is no ratio."""


@dataclass(frozen=True)
class Comparison:
    """Everything the page of two bundles shows."""

    first: Facts
    second: Facts
    lines: tuple[Line, ...]
    parity: tuple[tuple[str, dict, dict, float | None], ...]
    """(output, row of the first, row of the second, second minus first in dB)."""
    frames: tuple[tuple[Frame, Frame], ...]
    same_golden: bool
    """Both have the same pictures of torch."""
    frames_reason: str
    """Why no frames are shown."""
    matches: tuple[Match, ...]
    estimates: Match | None
    control: float | None
    """How much longer than the first the second run took for `CONTROL`, the same work in both: that is the machine."""
    one_run: bool
    """Whether each ratio is between rows that were timed in turns in one run."""


CONTROL = "torch-plain"


def compare(first: Facts, second: Facts) -> Comparison:
    """Put two bundles beside each other."""
    frames, same, reason = _frames(first, second)
    matches = match(first.results, second.results)
    return Comparison(
        first,
        second,
        tuple(_lines(first, second)),
        tuple(_parity(first, second)),
        frames,
        same,
        reason,
        tuple(matches),
        _estimates(first, second),
        _control(first, second, matches),
        _one_run(matches),
    )


def _lines(first: Facts, second: Facts) -> list[Line]:
    def of(facts: Facts) -> dict[str, tuple[object, Callable[[object], str]]]:
        manifest = facts.manifest
        floats = mapping(mapping(manifest.get("quantization")).get("float_operators")).values()
        return {
            "target": (facts.target, text),
            "precision": (facts.precision, text),
            "warp": (facts.warp or "none: a draw call", text),
            "graphs per frame": (", ".join(graph.name for graph in facts.graphs) or "1", text),
            "device": (facts.device or "–", text),
            "image": (f"{facts.size} × {facts.size} px", text),
            "weights": (text(manifest["avatar"].get("weights_sha256"), 80)[:12] or "not recorded", text),
            "texture": (_hash(manifest, "texture.f16"), text),
            "an app carries": (facts.app_bytes, words.megabytes),
            "model file": (facts.model_bytes, words.megabytes),
            "multiply-accumulates per frame": (number(manifest.get("macs")), words.gmac),
            "before rewrites": (number(manifest.get("macs_plain")), words.gmac),
            "parameters": (number(manifest.get("parameters")), words.millions),
            "rewrites": (", ".join(texts(manifest.get("rewrites"))) or "none", text),
            "operators in the file": (sum(facts.contents.operators.values()) or None, _count),
            "operators in float, of an integer file": (sum(number(n) or 0 for n in floats) or None, _count),
        }

    ours, theirs = of(first), of(second)
    lines = []
    for label, (a, show) in ours.items():
        b = theirs[label][0]
        if a is None and b is None:
            continue
        numbers = isinstance(a, int | float) and isinstance(b, int | float) and a > 0
        lines.append(Line(label, show(a), show(b), b / a if numbers else None))
    return lines


def _hash(manifest: dict, path: str) -> str:
    return next((text(entry["sha256"], 80)[:12] for entry in manifest["files"] if entry["path"] == path), "none")


def _count(value: object) -> str:
    return "–" if value is None else text(value)


def _parity(first: Facts, second: Facts) -> list[tuple[str, dict, dict, float | None]]:
    ours, theirs = ({row["output"]: row for row in facts.parity_rows} for facts in (first, second))
    found = []
    for output in dict.fromkeys((*ours, *theirs)):
        a, b = ours.get(output, {}), theirs.get(output, {})
        values = [number(row.get("psnr_db")) for row in (a, b)]
        found.append((text(output), a, b, None if None in values else values[1] - values[0]))
    return found


def _frames(first: Facts, second: Facts) -> tuple[tuple[tuple[Frame, Frame], ...], bool, str]:
    """Pairs of the same golden cases, whether torch drew the same in both, and why there are none."""
    if first.verified is None or second.verified is None:
        return (), False, "the golden files of one of them are damaged"
    if bool(first.graphs) != bool(second.graphs):
        return (), False, "one is driven by keypoints and the other by a camera's picture, so no frame is of the same"
    golden, other = first.verified.golden, second.verified.golden
    if not np.array_equal(golden["keypoints"], other["keypoints"]):
        return (), False, f"they were checked on different golden {'codes' if first.graphs else 'keypoints'}"
    cases = tuple(frame.case for frame in first.frames.frames)
    layout = "NHWC" if second.graphs else second.manifest["outputs"][0]["layout"]
    again = make_frames(other, second.verified.results, layout, cases)
    pairs = tuple(zip(first.frames.frames, again.frames, strict=True))
    return pairs, all(a.torch == b.torch for a, b in pairs), ""


def match(first: list[Result], second: list[Result]) -> list[Match]:
    """Pair results of the same device: the same runtime where both have it, else each bundle's own file.

    A ratio needs the same kind, device, scope, statistic, threads and power mode; what differs is said instead.
    """
    left, right = ([row for row in rows if figure(row)[1] is not None] for rows in (first, second))
    # Graphs of a frame are compared where both have them.
    shared = {row.graph for row in left} & {row.graph for row in right}
    left, right = ([row for row in rows if row.graph in {"", FRAME, *shared}] for rows in (left, right))
    found = []
    for same in (_same_runtime, _own_file):
        for a in list(left):
            b = next((row for row in right if _place(row) == _place(a) and same(a, row)), None)
            if b is not None:
                found.append(_match(a, b))
                left.remove(a)
                right.remove(b)
    devices = {_place(row) for row in first} & {_place(row) for row in second}
    found += [_alone(row, True) for row in left if _place(row) in devices]
    found += [_alone(row, False) for row in right if _place(row) in devices]
    return sorted(found, key=lambda item: (item.device, item.ratio is None))


def _control(first: Facts, second: Facts, matches: list[Match]) -> float | None:
    config, other = (facts.manifest["avatar"]["config"] for facts in (first, second))
    if config != other or first.warp != second.warp:
        return None
    pairs = [item for item in matches if item.ratio is not None and item.first.place == "host"]
    found = next((item for item in pairs if item.first.runtime == CONTROL), None)
    if found is None:
        return None
    # It tells about its own two runs only.
    same = all((a.first.taken, a.second.taken) == (found.first.taken, found.second.taken) for a in pairs)
    return found.ratio if same else None


def _one_run(matches: list[Match]) -> bool:
    """Whether there are ratios, each between two rows of one run of this computer: these carry the same time."""
    pairs = [item for item in matches if item.ratio is not None]
    return bool(pairs) and all(a.first.place == "host" and a.first.taken == a.second.taken for a in pairs)


def _place(row: Result) -> tuple:
    """What has to be the same; a frame of several graphs stands beside one of a single graph."""
    part = "" if row.graph == FRAME else row.graph
    return row.place, row.device, row.soc, row.os, row.kind, row.scope, part


def _same_runtime(a: Result, b: Result) -> bool:
    names = ("runtime", "delegate", "threads", "own_file", "power_mode")
    return all(getattr(a, name) == getattr(b, name) for name in names)


def _own_file(a: Result, b: Result) -> bool:
    return a.own_file and b.own_file


def _match(a: Result, b: Result) -> Match:
    (statistic, ours), (other, theirs) = figure(a), figure(b)
    different = [name for name in ("threads", "power_mode") if getattr(a, name) != getattr(b, name)]
    different += ["statistic"] if statistic != other else []
    why = f"different {' and '.join(different).replace('_', ' ')}" if different else ""
    ratio = None if why or not ours else theirs / ours
    return Match(a.device, a.scope, a, b, ours, theirs, ratio, statistic, why)


def _alone(row: Result, first: bool) -> Match:
    statistic, ms = figure(row)
    sides = (row, None, ms, None) if first else (None, row, None, ms)
    return Match(row.device, row.scope, *sides, None, statistic, "no counterpart")


def _estimates(first: Facts, second: Facts) -> Match | None:
    a, b = first.estimate, second.estimate
    if a is None or b is None:
        return None
    if a.device != b.device:
        return Match(a.device, a.scope, a, b, figure(a)[1], figure(b)[1], None, "", "different chips")
    if a.graph != b.graph:
        return Match(
            a.device, a.scope, a, b, figure(a)[1], figure(b)[1], None, "", "one of them leaves the mesh graph out"
        )
    return _match(a, b)
