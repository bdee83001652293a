"""mobile-avatar prepare"""

from pathlib import Path

import click

from mobile_avatar.cli.common import json_option, print_json, print_table, say, tracker_option

SHOWN_VIDEOS = 20


@click.command()
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Dataset folder; may exist.")
@click.option("--size", default=256, show_default=True, help="Side of the crops in pixels.")
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True, help="Which part.")
@click.option("--fps", type=float, help="Keep at most so many frames per second; default: all.")
@click.option("--min-face", type=int, help="Smallest face in pixels of the video; default: a quarter of --size.")
@click.option("--min-sharpness", default=0.05, show_default=True, help="0 keeps blurred frames.")
@click.option("--workers", type=click.IntRange(1), help="Processes; default: one per usable core.")
@click.option("--shard", default="1/1", metavar="I/N", help="Prepare only part I of N, as 3/64 in a job array.")
@click.option("--force", is_flag=True, help="Prepare again what was prepared with other options.")
@tracker_option
@json_option
def command(
    videos, output, size, split, fps, min_face, min_sharpness, workers, shard, force, tracker_models, as_json
):  # fmt: skip
    """Turn VIDEOS (files, folders or .txt lists) into a dataset: square crops, keypoints and masks.

    Finished videos are skipped, so a killed run is resumed by starting it again.
    """
    from mobile_avatar.data.prepare import REASONS, PrepareOptions
    from mobile_avatar.data.prepare_dataset import prepare_dataset
    from mobile_avatar.data.prepare_jobs import find_videos, parse_shard
    from mobile_avatar.data.workers import usable_cores
    from mobile_avatar.errors import BadInput
    from mobile_avatar.keypoints.models import tracker_models as find_models

    options = PrepareOptions(fps, min_face, min_sharpness)
    part = parse_shard(shard)
    found = find_videos(videos)
    summary = prepare_dataset(
        found,
        output,
        find_models(tracker_models),
        size,
        split,
        options,
        workers or usable_cores(),
        part,
        force,
        show_progress=True,
    )
    counts, frames = summary["videos"], summary["frames"]
    if not counts["given"]:
        say(f"none of the {len(found)} videos is in shard {shard}; nothing to do")
    elif not counts["kept"]:
        more = f" (and {counts['given'] - 1} more)" if counts["given"] > 1 else ""
        raise BadInput(f"nothing was kept of {counts['given']} videos: {summary['rejected_videos'][0]}{more}")
    if as_json:
        print_json(summary)
        return
    print_table(
        ("", "given", "kept", "rejected", "failed", "done earlier"),
        [
            ("videos", *(counts[name] for name in ("given", "kept", "rejected", "failed", "done_earlier"))),
            ("frames", frames["seen"], frames["kept"], frames["seen"] - frames["kept"], "", ""),
        ],
    )
    if summary["rejected_frames"]:
        click.echo()
        print_table(
            ("rejected frames", "", "because"), [(k, n, REASONS[k]) for k, n in summary["rejected_frames"].items()]
        )
    for line in summary["rejected_videos"][:SHOWN_VIDEOS]:
        say(f"rejected: {line}")
    if len(summary["rejected_videos"]) > SHOWN_VIDEOS:
        say(f"and {len(summary['rejected_videos']) - SHOWN_VIDEOS} more: see the summary in {output / 'records'}")
