"""Measuring on a phone over adb: every device tool and compute unit that is there, one row each."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from mobile_avatar.benchmarking.adb import AdbProgram, PhoneLost, TimedOut, Transport, connect
from mobile_avatar.benchmarking.device_facts import read_facts
from mobile_avatar.benchmarking.device_tools import FoundTool, choose_tools, find_tools
from mobile_avatar.benchmarking.parity import parity_rows
from mobile_avatar.benchmarking.phone_folder import WorkFolder
from mobile_avatar.benchmarking.phone_outputs import Frames, identical, real_numbers
from mobile_avatar.benchmarking.phone_session import CPU, Figure, Session, filled
from mobile_avatar.benchmarking.phone_sustained import sustain
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import Result
from mobile_avatar.benchmarking.store import Journal
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.benchmarking.tools.table import Tool
from mobile_avatar.errors import CheckFailed, MissingTool, MobileAvatarError


def measure(
    subject: Subject,
    settings: Settings,
    journal: Journal,
    transport: Transport | None = None,
    table: Mapping[str, Tool] | None = None,
) -> None:
    """Measure a bundle on the connected phone; every row is in the journal as soon as it is there.

    Args:
        transport: how adb is called; None for the installed program.
        table: device tools; None for all that are known.

    Raises:
        BadInput: several phones, an unknown one, an unknown runtime or a bundle that no device tool runs.
        MissingTool: adb, the phone or the device tools are not there, or went away in the middle.
        CheckFailed: none of the tools gave a figure, or the sustained run failed.
    """
    if table is None:
        from mobile_avatar.benchmarking.tools import TOOLS as table
    choose_tools(table, subject.target, settings.tools, settings.runtimes)  # what no phone can mend is told first
    phone = connect(transport or AdbProgram(), settings.serial)
    facts = read_facts(phone)
    tools = find_tools(table, subject.target, facts.abi, settings.tools, settings.runtimes)
    settings.say(f"{facts.name} ({facts.soc}), {facts.os}: {', '.join(found.tool.name for found in tools)}")
    with _raw_inputs(subject) as inputs, WorkFolder(phone, subject.model_sha256[:8]) as folder:
        session = Session(subject, settings, journal, phone, facts, folder, inputs)
        figures: list[Figure] = []
        failures: list[MobileAvatarError] = []
        for found in tools:
            _measure_tool(session, found, figures, failures)
        if not figures:
            kind = MissingTool if all(isinstance(error, MissingTool) for error in failures) else CheckFailed
            raise kind(f"nothing could be measured on {facts.name}: {failures[0]}")
        if settings.sustained_min:
            sustain(session, figures)


def _measure_tool(session: Session, found: FoundTool, figures: list[Figure], failures: list[MobileAvatarError]) -> None:
    """Add the figures of all compute units of a tool; failures are rows with an error.

    The CPU comes first: what accelerators computed is held against it.
    """
    tool = found.tool
    reference: Frames = []
    for delegate in sorted(tool.delegates, key=lambda name: name != CPU):
        session.settings.say(f"{tool.name} on {delegate}, {session.settings.runs} runs")
        row = session.row(tool, delegate)
        try:
            session.folder.put({**session.files, **found.files}, tool.programs)
            reading, frames, command = session.call(found, delegate, session.settings.runs)
            row = filled(row, reading, delegate, command, session.threads)
            row = _compared(session, row, tool, delegate, frames, reference)
            heat = session.look()
        except MobileAvatarError as error:
            session.journal.add(replace(row, error=str(error)))
            if isinstance(error, TimedOut) and not session.phone.answers():
                raise PhoneLost(f"{error}, and the phone no longer answers; restart it and measure again") from error
            if isinstance(error, PhoneLost):
                raise
            failures.append(error)
            if isinstance(error, MissingTool):
                return  # what is missing is missing for the other compute units as well
            continue
        if delegate == CPU:
            reference = frames
        if not frames:
            row = _without_outputs(row, tool, delegate, figures)
        row = replace(row, temperature_after_c=heat.temperature_c, thermal_after=heat.throttling)
        session.journal.add(row)
        figures.append(Figure(found, delegate, row))


def _compared(session: Session, row: Result, tool: Tool, delegate: str, frames: Frames, reference: Frames) -> Result:
    """The row with what the outputs say: right or wrong, and whether an accelerator did the work at all."""
    if not frames:
        return row
    if delegate != CPU and "fallback" not in row.delegate and identical(frames, reference):
        note = f"asked for {delegate}, but every output has the same bits as the CPU's"
        suspicion = "CPU (fallback suspected: outputs are bit-identical to the CPU's)"
        row = replace(row, delegate=suspicion, notes=(*row.notes, note))
    runner = f"{tool.runtime}-{delegate.lower()} on {row.device}"
    return replace(row, parity=parity_rows(session.subject, runner, real_numbers(session.subject.spec, frames)))


def _without_outputs(row: Result, tool: Tool, delegate: str, figures: list[Figure]) -> Result:
    """The row of a tool that wrote no outputs; where another tool showed them to be wrong, so is this row."""
    row = replace(row, notes=(*row.notes, f"{tool.name} wrote no outputs, so its numbers were not compared"))
    for other in figures:
        same = (other.found.tool.runtime, other.delegate) == (tool.runtime, delegate)
        if same and other.wrong:
            note = f"{other.found.tool.name} gave wrong outputs with the same runtime on {delegate}"
            return replace(row, parity=other.row.parity, notes=(*row.notes, note))
    return row


@contextlib.contextmanager
def _raw_inputs(subject: Subject) -> Iterator[dict[str, Path]]:
    """Golden keypoints as the model file takes them, one little-endian file per case."""
    tensor = subject.spec.inputs[0]
    with tempfile.TemporaryDirectory(prefix="mobile-avatar-") as place:
        files = {}
        for number, vector in enumerate(subject.golden(tensor)):
            stored = np.ascontiguousarray(tensor.store(vector))
            name = f"input_{number}.raw"
            files[name] = Path(place, name)
            files[name].write_bytes(stored.astype(stored.dtype.newbyteorder("<")).tobytes())
        yield files
