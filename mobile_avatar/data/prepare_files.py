"""One video into the dataset: frames, then a record that says what was kept and why the rest was not."""

import json
import os
import shutil
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mobile_avatar.data.layout import item_folders, item_writer
from mobile_avatar.data.prepare import PrepareOptions, nothing_kept, plan_video, prepared_frames
from mobile_avatar.data.prepare_jobs import VideoFile
from mobile_avatar.errors import BadInput, MobileAvatarError, first_line
from mobile_avatar.files import replace_file, sha256
from mobile_avatar.keypoints.models import TrackerModels
from mobile_avatar.keypoints.video import Video

RECORDS = "records"
FORMAT = 1


@dataclass(frozen=True)
class Task:
    """What a worker needs to know to prepare one video."""

    source: VideoFile
    output: Path
    split: str
    size: int
    options: PrepareOptions
    models: TrackerModels
    force: bool = False
    """Prepare again what was prepared with other options."""


@dataclass(frozen=True)
class Outcome:
    """What became of a video."""

    record: dict | None = None
    """As written to RECORDS/SPLIT/PERSON/VIDEO.json; None when the video was not finished."""
    earlier: bool = False
    """The record is of an earlier run and nothing was done."""
    failed: str | None = None
    """An error that is not the video's: nothing is recorded, the next run tries again."""
    stop: str | None = None
    """An error that every further video would meet, too."""


def prepare_video(task: Task) -> Outcome:
    """Prepare one video, unless its record says that this was done; never raises for what a file contains."""
    import cv2

    cv2.setNumThreads(1)
    try:
        return _prepare(task)
    except MobileAvatarError as error:
        return Outcome(stop=str(error))
    except OSError as error:
        return Outcome(stop=f"{error.filename or task.output}: {error.strerror or error}")
    except Exception as error:  # decoders of foreign files fail in ways nobody listed; the other videos go on
        return Outcome(failed=f"{task.source.path}: {type(error).__name__}: {first_line(error)}")


def record_path(output: Path, split: str, item: str) -> Path:
    """Where the record of "PERSON/VIDEO" lies."""
    return output / RECORDS / split / f"{item}.json"


def _prepare(task: Task) -> Outcome:
    path = task.source.path
    if not path.is_file():
        return Outcome(failed=f"{path}: there is no such video file")
    status = os.stat(path)
    facts = {"path": task.source.key, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    source, old = _place(task, facts)
    wanted = {"size": task.size, **asdict(task.options)}
    if old and old["state"] == "done":
        if old["options"] == wanted:
            return Outcome(old, earlier=True)
        if not task.force:
            raise BadInput(
                f"{record_path(task.output, task.split, source.item)}: this video was prepared with other options; "
                "pass --force to prepare it again, or choose another output"
            )
    folders = item_folders(task.output, task.split, source.item)
    if old is None and (taken := [folder for folder in folders if folder.exists()]):
        raise BadInput(f"{taken[0]} exists and was not made by `prepare` (it has no record); choose another output")
    if "sha256" not in facts:
        facts["sha256"] = sha256(path)
    record = {
        "format": FORMAT,
        "state": "started",
        "item": source.item,
        "source": facts,
        "options": wanted,
    }
    started, rejected = time.monotonic(), Counter()
    with item_writer(task.output, task.split, source.item) as writer:
        sequences: Counter[int] = Counter()
        error = None
        try:
            video = Video(path)
            plan = plan_video(video, task.models, task.size, task.options, rejected)
            for frame in prepared_frames(video, plan, task.models, task.size, task.options, rejected):
                writer.add(_name(frame.sequence), f"{frame.number:06d}", frame.image, frame.mask, frame.keypoints)
                sequences[frame.sequence] += 1
            if not sequences:
                error = nothing_kept(path, rejected)
            record["fps"] = video.fps
        except BadInput as refusal:
            error, sequences = str(refusal), Counter()
        # From here on, what lies at the item's place is known to be ours, whenever a kill comes.
        _write(task, record)
        if sequences:
            writer.publish()
        else:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
    record |= {
        "state": "done",
        "kept": sum(sequences.values()),
        "rejected": dict(rejected),
        "sequences": {
            _name(index): {"frames": count, "box": asdict(plan[index].box)} for index, count in sequences.items()
        },
        "error": error,
        "seconds": round(time.monotonic() - started, 2),
    }
    _write(task, record)
    return Outcome(record)


def _place(task: Task, facts: dict) -> tuple[VideoFile, dict | None]:
    """The item this video is or becomes, and its record: another video of the same name keeps its place."""
    source = task.source
    record = _read(record_path(task.output, task.split, source.item))
    if record and not _same_file(record["source"], facts, source.path):
        source = replace(source, video=f"{source.video}-{facts['sha256'][:8]}")
        record = _read(record_path(task.output, task.split, source.item))
    return source, record


def _same_file(recorded: dict, facts: dict, path: Path) -> bool:
    """Size and time tell it at once; a copy elsewhere has another time, but the same content."""
    if all(recorded.get(name) == value for name, value in facts.items()):
        return True
    facts["sha256"] = sha256(path)
    return recorded.get("sha256") == facts["sha256"]


def _read(path: Path) -> dict | None:
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        if record["format"] == FORMAT and {"state", "source", "options"} <= record.keys():
            return record
    except (ValueError, TypeError, KeyError):
        pass
    raise BadInput(f"{path}: not a record of this version of `prepare`; choose another output")


def _write(task: Task, record: dict) -> None:
    path = record_path(task.output, task.split, record["item"])
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1))


def _name(sequence: int) -> str:
    return f"{sequence:05d}"
