"""Finding the user's device tools: a folder of theirs, a Qualcomm SDK, or the search path."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobile_avatar.benchmarking.tools.table import Tool
from mobile_avatar.errors import BadInput, MissingTool
from mobile_avatar.exporters.targets.snpe import SDK_HOST, SDK_VARIABLES

LAYOUT = ("bin/aarch64-android*", "lib/aarch64-android*", "lib/hexagon-v*/unsigned", "lib/dsp")
DEVICE_FOLDERS = ("", *LAYOUT, "bin", "lib")
"""Where programs and libraries for the phone lie below a folder or an SDK."""
HOST_FOLDERS = (f"bin/{SDK_HOST}", "bin", "")
PREFIXES = ("", "android_aarch64_")
"""Names under which programs are published."""
MACHINES = {"arm64-v8a": 183, "armeabi-v7a": 40, "x86_64": 62, "x86": 3}
"""Kind of phone -> the number of its processor in an ELF file."""
HOST_MACHINES = {"x86_64": 62, "AMD64": 62, "aarch64": 183, "arm64": 183}


@dataclass(frozen=True)
class FoundTool:
    """A tool that can be pushed."""

    tool: Tool
    files: dict[str, Path]
    """Name on the phone -> file here: programs and libraries."""
    host: Path | None
    """Folder that holds all of the tool's host programs; None where they were not found."""


def find_tools(
    table: Mapping[str, Tool],
    target: str,
    abi: str,
    folder: Path | None = None,
    wanted: Sequence[str] = (),
) -> list[FoundTool]:
    """The tools for bundles of one target whose programs are here, in the order of the table.

    Args:
        table: name -> tool.
        target: target of the bundle.
        abi: kind of phone (`ro.product.cpu.abi`); programs for others are passed over.
        folder: the user's own folder, flat or laid out like an SDK.
        wanted: only tools of these names or runtimes; empty for all.

    Raises:
        BadInput: as `choose_tools`.
        MissingTool: no program was found.
    """
    chosen = choose_tools(table, target, folder, wanted)
    roots = _roots(folder)
    found = [item for item in (_find(tool, abi, roots) for tool in chosen) if item is not None]
    if not found:
        raise MissingTool(_nothing(chosen, abi, roots))
    return found


def choose_tools(
    table: Mapping[str, Tool], target: str, folder: Path | None = None, wanted: Sequence[str] = ()
) -> list[Tool]:
    """The tools that could run bundles of one target; a phone is not needed to tell. Arguments as `find_tools`.

    Raises:
        BadInput: the folder is none, a wanted name is unknown, or no tool of the table runs such bundles.
    """
    if folder is not None and not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; --tools takes the folder that holds the device tools")
    known = sorted({name for tool in table.values() for name in (tool.name, tool.runtime)})
    for name in wanted:
        if name not in known:
            raise BadInput(f"no runtime {name!r} on a phone; choose one of {', '.join(known)}")
    fit = [tool for tool in table.values() if target in tool.targets]
    if not fit:
        targets = sorted({name for tool in table.values() for name in tool.targets})
        raise BadInput(f"{target} bundles are not run over adb; export for one of {', '.join(targets)}")
    chosen = [tool for tool in fit if not wanted or tool.name in wanted or tool.runtime in wanted]
    if not chosen:
        names = ", ".join(dict.fromkeys(tool.runtime for tool in fit))
        raise BadInput(f"{', '.join(wanted)} does not run {target} bundles; choose one of {names}")
    return chosen


def _roots(folder: Path | None) -> list[Path]:
    """Where to look, the user's own folder first; the search path is looked at last, by itself."""
    variables = [Path(os.environ[name]) for name in SDK_VARIABLES if os.environ.get(name)]
    return ([folder] if folder is not None else []) + [root for root in variables if root.is_dir()]


def _folders(root: Path, patterns: Sequence[str]) -> list[Path]:
    return [path for pattern in patterns for path in (sorted(root.glob(pattern)) if pattern else [root])]


def _find(tool: Tool, abi: str, roots: list[Path]) -> FoundTool | None:
    near = [path for root in roots for path in _folders(root, DEVICE_FOLDERS)]
    on_path = [Path(path) for path in os.environ.get("PATH", "").split(os.pathsep) if path]
    machine, files = MACHINES.get(abi), {}
    for name in tool.programs:
        places = [folder / f"{prefix}{name}" for folder in (*near, *on_path) for prefix in PREFIXES]
        # A script may stand for a program, but not one from the search path, which is made for this computer.
        good = (path for path in places if _runs_on(path, machine) or (path.parent in near and _is_script(path)))
        path = next(good, None)
        if path is None:
            return None
        files[name] = path
    # Libraries only from where a program came from or a folder was named: the search path holds other things.
    homes = [*near, *(path.parent for path in files.values())]
    for pattern in tool.libraries:
        for path in (path for folder in homes for path in sorted(folder.glob(pattern))):
            if path.is_file():
                files.setdefault(path.name, path)
    return FoundTool(tool, files, _host_folder(tool.host_programs, roots))


def _host_folder(programs: Sequence[str], roots: list[Path]) -> Path | None:
    if not programs:
        return None
    machine = HOST_MACHINES.get(os.uname().machine)
    places = [path for root in roots for path in _folders(root, HOST_FOLDERS)]
    on_path = shutil.which(programs[0])
    places += [Path(on_path).parent] if on_path else []
    for folder in places:
        if all(_runs_on(folder / name, machine) or _is_script(folder / name) for name in programs):
            return folder
    return None


def _runs_on(path: Path, machine: int | None) -> bool:
    """Whether a file is an ELF program for a processor; None takes every ELF program."""
    head = _head(path)
    return head[:4] == b"\x7fELF" and machine in (None, int.from_bytes(head[18:20], "little"))


def _is_script(path: Path) -> bool:
    return _head(path)[:2] == b"#!"


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(20)
    except OSError:
        return b""


def _nothing(tools: list[Tool], abi: str, roots: list[Path]) -> str:
    programs = " or ".join(dict.fromkeys(" + ".join(tool.programs) for tool in tools))
    where = ", ".join(str(root) for root in roots)
    looked = f"looked below {where} and on PATH" if roots else "looked on PATH"
    return (
        f"no device tool for {abi or 'this phone'} found: {programs} ({looked}); pass the folder that holds it as "
        f"--tools, or set {SDK_VARIABLES[0]} to Qualcomm's SDK"
    )
