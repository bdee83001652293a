"""What a device tool printed and wrote: numbers, complaints, logs and raw outputs. Nothing of it is trusted."""

import math
import re
from pathlib import Path

import numpy as np

from mobile_avatar.errors import CheckFailed, MissingTool
from mobile_avatar.graphs.spec import TensorSpec

MOST_LOG = 4 << 20
"""Bytes of a log that are read."""

COMPLAINTS: tuple[tuple[str, str], ...] = (
    (
        r"CANNOT LINK EXECUTABLE|error while loading shared libraries|dlopen failed|library \S+ not found",
        "put that library beside the program into the folder of device tools",
    ),
    (r"not executable|Exec format error|syntax error", "take the build for this phone's processor, usually arm64"),
    (
        r"inaccessible or not found|No such file or directory|: not found",
        "see that the folder of device tools holds it, built for this phone",
    ),
    (r"Permission denied", "see that the phone lets its shell do this"),
    (r"[Oo]ut of memory|bad_alloc|^Killed", "close other apps, or restart the phone"),
    (
        r"Failed to load model|Failed to mmap model|[Ii]nvalid [Ff]lat[Bb]uffer|not a valid [Ff]latbuffer"
        r"|opening the container|[Mm]odel parsing|error_code=3\d\d\b",
        "export the bundle again, or take the newest version of the tool, which reads newer files",
    ),
    (
        r"[Uu]nknown (option|argument|flag)|[Uu]nrecogni[sz]ed|[Ii]nvalid option|Failed to parse flag",
        "take a newer version of the tool",
    ),
    (
        r"error_code=4\d\d\b|Failed to apply|[Uu]nable to (load|find|create|initiali[sz]e)"
        r"|[Ff]ailed to (create|initiali[sz]e|load)|[Cc]ould not (create|load|initiali[sz]e)"
        r"|not (available|supported)|is unsupported",
        "this compute unit may not be there for shell programs; try another one",
    ),
    (
        r"error_code=|(?i:\berror\b)|\bERROR|[Ff]ail(ed|ure)\b|[Aa]bort|Segmentation fault|[Uu]nable to|[Cc]ould not",
        "start the tool by hand in the phone's shell to see all of it",
    ),
)
"""What a line of a failed run looks like -> the remedy; the first pattern that fits a line counts."""


def complaint(tool: str, text: str, lack: str) -> CheckFailed:
    """The error for output without what was asked for, with the tool's own first complaint.

    Args:
        tool: name of the program.
        text: what it printed.
        lack: what is missing, as `printed no times`.
    """
    lines = [plain(line) for line in text.splitlines() if line.strip()]
    if not lines:
        return CheckFailed(f"{tool} printed nothing at all; start it by hand in the phone's shell to see why")
    for line in lines:
        for pattern, remedy in COMPLAINTS:
            if re.search(pattern, line):
                return CheckFailed(f"{tool} {lack} ({line}); {remedy}")
    return CheckFailed(f"{tool} {lack}, its output ends with `{lines[-1]}`; measure again")


def unread(tool: str, viewer: str) -> MissingTool:
    """The error for a log that only a program of the SDK reads."""
    return MissingTool(
        f"{tool} keeps its times in a binary log, and {viewer}, which reads it, was not found on this computer; "
        f"set QAIRT_SDK_ROOT to Qualcomm's SDK"
    )


def plain(line: str) -> str:
    """A foreign line, short and printable, without the level in front; of SNPE's long ones the code and the message."""
    coded = re.search(r"error_code=\d+; error_message=.*?(?=;| error_code=|$)", line)
    line = coded[0] if coded else line
    return re.sub(r"^(INFO|WARN|WARNING|VERBOSE): ", "", "".join(filter(str.isprintable, line)).strip())[:160]


def number(word: str, tool: str, what: str) -> float:
    """A figure as a tool prints it (`1.24027e+06`); CheckFailed unless it is finite and not negative."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise CheckFailed(f"{tool} gives `{plain(word)[:40]}` as {what}, which is no such number; measure again")
    return value


def milliseconds(word: str, tool: str, what: str) -> float:
    """Microseconds as printed, in ms."""
    return round(number(word, tool, what) / 1000, 6)


def expected(folder: Path, name: str) -> Path | None:
    """A file of a pulled folder by the name it must have; None when it is not there or is reached through a link."""
    path = Path(folder).resolve() / name
    return path if path.is_file() and path.resolve() == path else None


def read_log(folder: Path, name: str) -> str:
    """Text of a log, empty when it is not there; no more than `MOST_LOG` bytes of it."""
    path = expected(folder, name)
    if path is None:
        return ""
    with open(path, "rb") as stream:
        return stream.read(MOST_LOG).decode(errors="replace").replace("\r\n", "\n")


def read_raw(path: Path, tensors: tuple[TensorSpec, ...], tool: str) -> dict[str, np.ndarray]:
    """Tensors that lie one behind the other in a raw file: name -> array of the manifest's shape and dtype.

    Raises CheckFailed when the file has another size than they take.
    """
    types = [np.dtype(tensor.dtype).newbyteorder("<") for tensor in tensors]
    sizes = [math.prod(tensor.shape) * kind.itemsize for tensor, kind in zip(tensors, types, strict=True)]
    found = path.stat().st_size
    if found != sum(sizes):
        names = ", ".join(tensor.name for tensor in tensors)
        raise CheckFailed(
            f"{tool} wrote {found} bytes into {path.parent.name}/{path.name}, where {names} of the manifest take "
            f"{sum(sizes)}; measure again, or export the bundle again"
        )
    content = path.read_bytes()
    arrays, start = {}, 0
    for tensor, kind, size in zip(tensors, types, sizes, strict=True):
        arrays[tensor.name] = np.frombuffer(content[start : start + size], kind).reshape(tensor.shape)
        start += size
    return arrays
