"""Many videos into one dataset, on several processes, and the account of what was left out."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mobile_avatar.data.layout import remove_work
from mobile_avatar.data.prepare import PrepareOptions, check_size
from mobile_avatar.data.prepare_files import RECORDS, Outcome, Task, prepare_video
from mobile_avatar.data.prepare_jobs import VideoFile, in_shard
from mobile_avatar.data.workers import run_jobs
from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file
from mobile_avatar.keypoints.models import TrackerModels
from mobile_avatar.progress import progress

DIED = "the process that read it died (a crash of the decoder, or out of memory: use fewer --workers)"


def prepare_dataset(
    videos: Sequence[VideoFile],
    output: Path,
    models: TrackerModels,
    size: int = 256,
    split: str = "train",
    options: PrepareOptions | None = None,
    workers: int = 1,
    shard: tuple[int, int] = (1, 1),
    force: bool = False,
    show_progress: bool = False,
) -> dict:
    """Prepare this shard's share of `videos`; finished ones of an earlier run are left as they are.

    Returns:
        The summary, which also lies in OUTPUT/records/summary-SPLIT[-I-of-N].json: videos and frames that were kept
        and rejected, and why.

    Raises:
        BadInput: the output cannot be written, holds other things, or was made with other options (without `force`).
    """
    check_size(size)
    if output.exists() and not output.is_dir():
        raise BadInput(f"{output} is a file; choose a folder as the output")
    started = time.monotonic()
    options = options or PrepareOptions()
    mine = in_shard(videos, *shard)
    tasks = [Task(video, output, split, size, options, models, force) for video in mine]
    outcomes: list[tuple[VideoFile, Outcome]] = []
    running = run_jobs(prepare_video, tasks, workers)
    try:
        for task, result in progress(running, len(tasks), "preparing videos", show_progress):
            outcome = result or Outcome(failed=f"{task.source.path}: {DIED}")
            if outcome.stop:
                raise BadInput(outcome.stop)
            outcomes.append((task.source, outcome))
    finally:
        running.close()
        for task in tasks:
            remove_work(output, split, task.source.item)
    summary = {
        "output": str(output),
        "split": split,
        "shard": None if shard[1] == 1 else f"{shard[0]}/{shard[1]}",
        **_count(outcomes),
        "seconds": round(time.monotonic() - started, 1),
    }
    name = f"summary-{split}" + ("" if shard[1] == 1 else f"-{shard[0]}-of-{shard[1]}")
    with replace_file(output / RECORDS / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1))
    return summary


def _count(outcomes: list[tuple[VideoFile, Outcome]]) -> dict:
    records = [outcome.record for _, outcome in outcomes if outcome.record]
    reasons = sum((Counter(record["rejected"]) for record in records), Counter())
    kept = sum(record["kept"] for record in records)
    return {
        "videos": {
            "given": len(outcomes),
            "kept": sum(record["kept"] > 0 for record in records),
            "rejected": sum(record["kept"] == 0 for record in records),
            "failed": sum(outcome.failed is not None for _, outcome in outcomes),
            "done_earlier": sum(outcome.earlier for _, outcome in outcomes),
        },
        "frames": {"seen": kept + sum(reasons.values()), "kept": kept},
        "rejected_frames": dict(reasons.most_common()),
        "rejected_videos": sorted(
            outcome.failed or outcome.record["error"]
            for _, outcome in outcomes
            if outcome.failed or outcome.record["error"]
        ),
    }
