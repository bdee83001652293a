"""Which delegate took how much of a graph, from what TFLite and LiteRT log."""

import re

from mobile_avatar.benchmarking.tools.pulled import plain

REPLACED = re.compile(
    r"Replacing (\d{1,9}) (?:out of (\d{1,9}) )?node\(s\) with delegate \(([^)\n]*)\) node,"
    r" yielding (\d{1,9}) partitions"
)
APPLIED = re.compile(
    r"Explicitly applied (\S+) delegate, and the model graph will be (completely|partially) executed by the delegate"
)
SPLIT = re.compile(
    r"\b(\d{1,9}) operations will run on the GPU, and the remaining (\d{1,9}) (?:operations will run )?on the CPU"
)
REFUSED = re.compile(
    r"operations are not supported by GPU delegate:\s*\n((?:.*\n){0,60}?).*operations will run on the GPU"
)
UNITS = (
    ("GPU", re.compile(r"gpu|_cl\b|opengl|webgpu|metal|vulkan", re.IGNORECASE)),
    ("XNNPACK", re.compile(r"xnnpack", re.IGNORECASE)),
)
"""Name in a result -> delegates that are one."""
UNDONE = "Restored original execution plan after delegate application failure"
"""Logged when a delegate that had taken operators could not be made ready."""
EXCUSES = (
    UNDONE,
    "GPU acceleration is unsupported",
    "Failed to apply GPU delegate",
    "Though GPU delegate is explicitly applied",
    "Can not find OpenCL library",
)
"""Parts of lines that say why the GPU did not take a graph, the clearest first."""


def read_placement(asked: str, text: str) -> tuple[str, str, list[str]]:
    """What did the work, a sentence when the GPU was asked for and did not do all of it, and notes."""
    taken = {name: _taken(name, pattern, text) for name, pattern in UNITS}
    cpu = "XNNPACK" if taken["XNNPACK"] or "XNNPACK delegate" in text else "CPU"
    if asked == "CPU":
        notes = []
        if taken["XNNPACK"] and taken["XNNPACK"][0] < taken["XNNPACK"][1]:
            n, m, _ = taken["XNNPACK"]
            notes.append(f"XNNPACK took {n} of {m} operators, the others ran in TFLite's own kernels")
        return cpu, "", notes
    notes = ["the GPU was allowed to compute in FP16"]
    whole = any(name == "GPU" and how == "completely" for name, how in APPLIED.findall(text))
    part = None if UNDONE in text else taken["GPU"] or _split(text)
    if whole or (part and part[0] == part[1]):
        return "GPU", "", notes
    rest = f"the rest on the CPU{_refused(text)}"
    if part and part[0]:
        n, m, partitions = part
        pieces = f", in {partitions} partitions," if partitions else ""
        share = f"{n} of {m}" if m else f"{n}"
        return f"GPU + {cpu}", f"only {share} operators{pieces} ran on the GPU, {rest}", notes
    if any(name == "GPU" for name, _ in APPLIED.findall(text)):
        return f"GPU + {cpu}", f"only a part of the graph ran on the GPU, {rest}", notes
    said = next((line for part in EXCUSES for line in text.splitlines() if part in line), "")
    quote = f" (it logs: {plain(said)})" if said else ""
    return cpu, f"no line of the log says that the GPU took the graph, so the CPU ran all of it{quote}", []


def _taken(name: str, pattern: re.Pattern, text: str) -> tuple[int, int, int] | None:
    """(operators taken, operators there, partitions) in the largest graph of which a delegate took something.

    Older versions do not say how many are there (0), but a graph that is taken whole is one partition.
    """
    found = []
    for match in REPLACED.finditer(text):
        if pattern.search(match[3]):
            n, partitions = int(match[1]), int(match[4])
            found.append((n, int(match[2]) if match[2] else n * (partitions == 1), partitions))
    return max(found, key=lambda row: row[1], default=None)


def _split(text: str) -> tuple[int, int, int] | None:
    match = SPLIT.search(text)
    return None if match is None else (int(match[1]), int(match[1]) + int(match[2]), 0)


def _refused(text: str) -> str:
    """The operators that the GPU delegate refused, as the end of a sentence."""
    match = REFUSED.search(text)
    lines = match[1].splitlines() if match else []
    names = [row[1] for line in lines if (row := re.match(r"(?:\w+: )?([A-Z][A-Z0-9_]+):", line))]
    names = list(dict.fromkeys(name for name in names if name not in ("ERROR", "WARNING", "INFO")))
    return f" (not supported: {', '.join(names[:5])})" if names else ""
