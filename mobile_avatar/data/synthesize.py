"""Synthetic heads as a dataset on disk, in the same layout as prepared videos."""

import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mobile_avatar.data.layout import item_folders, item_writer, remove_work
from mobile_avatar.data.workers import run_jobs
from mobile_avatar.errors import BadInput, CheckFailed
from mobile_avatar.files import replace_file
from mobile_avatar.progress import progress

VIDEO = "synthetic"
SEQUENCE = "00000"
SHEET_PEOPLE, SHEET_FRAMES, SHEET_SIZE = 6, 4, 160


@dataclass(frozen=True)
class SynthesizeOptions:
    """What the pictures of a dataset of synthetic heads depend on, besides the people."""

    frames: int
    """Of each person."""
    size: int
    """Side of the pictures in pixels."""
    split: str = "train"
    """train or test: no person is in both."""
    seed: int = 0
    """Chooses other poses, expressions and lights of the same people."""

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= 1000:
            raise BadInput(f"{self.frames} frames per person cannot be made: use 1 to 1000")
        if not 0 <= self.seed < 2**31:
            raise BadInput(f"the seed {self.seed} is out of range: use 0 to {2**31 - 1}")


@dataclass(frozen=True)
class _Person:
    number: int
    output: Path
    options: SynthesizeOptions
    device: str


def synthesize(
    output: Path,
    people: Sequence[int],
    options: SynthesizeOptions,
    workers: int = 1,
    device: str = "cpu",
    show_progress: bool = False,
) -> dict:
    """Write the people whose numbers are given; those that are there already stay.

    A picture of the first of them, with everything that is known exactly, is written beside the dataset.

    Returns:
        {"output", "split", "people", "made", "frames"}: how many people are there now, how many were made by this
        call, and the frames of each.

    Raises:
        BadInput: the output cannot be written, holds other things, or people made with other options.
        CheckFailed: a process died (out of memory).
    """
    from mobile_avatar.data.synthetic import SyntheticHeads

    SyntheticHeads(options.size, options.split)  # refuses bad sizes
    if output.exists() and not output.is_dir():
        raise BadInput(f"{output} is a file; choose a folder as the output")
    _claim(output, options)
    jobs = [_Person(number, output, options, device) for number in people]
    missing = [job for job in jobs if not all(folder.is_dir() for folder in _folders(job))]
    running = run_jobs(_make, missing, workers)
    try:
        for job, done in progress(running, len(missing), "rendering people", show_progress):
            if done is None:
                raise CheckFailed(f"{_item(job)}: the process that drew it died (out of memory?); use fewer --workers")
    finally:
        running.close()
        for job in missing:
            remove_work(output, options.split, _item(job))
    if missing:
        _write_sheet(output, jobs[:SHEET_PEOPLE], options, device)
    return {
        "output": str(output),
        "split": options.split,
        "people": len(jobs),
        "made": len(missing),
        "frames": options.frames,
    }


def _claim(output: Path, options: SynthesizeOptions) -> None:
    """Say in synthetic-SPLIT.json how the pictures are made, or check that the old ones were made like this."""
    version = importlib.metadata.version("mobile-avatar")
    facts = {"made_by": f"mobile-avatar {version} synthesize", "synthetic_media": True, **asdict(options)}
    path = output / f"synthetic-{options.split}.json"
    if path.is_file():
        try:
            old = json.loads(path.read_text())
        except ValueError:
            old = None
        if old != facts:
            raise BadInput(
                f"{path}: this folder holds heads made with other options or another version; choose another --output"
            )
        return
    if taken := [kind for kind in ("imgs", "keypoints", "segs") if (output / kind / options.split).exists()]:
        raise BadInput(f"{output / taken[0] / options.split} holds other data; choose another --output")
    try:
        with replace_file(path) as temporary:
            temporary.write_text(json.dumps(facts, indent=1))
    except OSError as error:
        raise BadInput(f"{output} cannot be written ({error.strerror}); choose another --output") from error


def _write_sheet(output: Path, jobs: list[_Person], options: SynthesizeOptions, device: str) -> None:
    """The first people and what is known about them as one picture, beside the dataset."""
    from mobile_avatar.data.synthetic import SyntheticHeads
    from mobile_avatar.data.synthetic.sheet import write_truth_sheet

    heads = SyntheticHeads(SHEET_SIZE, options.split)
    batch = heads.sample([job.number for job in jobs], min(options.frames, SHEET_FRAMES), options.seed, device)
    write_truth_sheet(output / f"synthetic-{options.split}.png", batch)


def _make(job: _Person) -> bool:
    import torch

    from mobile_avatar.data.synthetic import SyntheticHeads
    from mobile_avatar.images import to_uint8

    torch.set_num_threads(1)
    options = job.options
    batch = SyntheticHeads(options.size, options.split).sample([job.number], options.frames, options.seed, job.device)
    masks = (batch.masks[0, :, 0] * 255).round().to(torch.uint8).cpu().numpy()
    keypoints = batch.keypoints[0].cpu().numpy()
    with item_writer(job.output, options.split, _item(job)) as writer:
        for index in range(options.frames):
            writer.add(SEQUENCE, f"{index:06d}", to_uint8(batch.images[0, index]), masks[index], keypoints[index])
        writer.publish()
    return True


def _item(job: _Person) -> str:
    return f"id{job.number:06d}/{VIDEO}"


def _folders(job: _Person) -> list[Path]:
    return item_folders(job.output, job.options.split, _item(job))
