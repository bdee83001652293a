"""mobile-avatar personalize"""

from collections.abc import Iterator
from pathlib import Path

import click

from mobile_avatar.cli.common import (
    find_weights,
    force_option,
    json_option,
    print_json,
    print_table,
    say,
    tracker_option,
    weights_option,
)

COLUMNS = ("psnr_masked", "psnr_shown", "psnr_raw", "ssim_masked", "ssim_raw", "nme_percent", "psnr_masked_unseen")


@click.command()
@click.argument("video", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Avatar file; default: VIDEO's name with .avatar."
)
@weights_option
@click.option("--steps", default=1200, show_default=True, type=click.IntRange(1), help="Steps of fine-tuning at most.")
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Take fewer steps where this machine would need longer for them.",
)
@click.option(
    "--holdout",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0.05, 0.5),
    help="Share of the frames, at the end, that is never trained on.",
)
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--device", default="cpu", show_default=True, help="Torch device.")
@click.option("--resume", is_flag=True, help="Go on with unfinished work.")
@tracker_option
@force_option
@json_option
def command(video, output, weights, steps, minutes, holdout, seed, device, resume, tracker_models, force, as_json):
    """Make the avatar of the face in VIDEO by fine-tuning, with a film and a contact sheet of held-out frames."""
    from mobile_avatar.files import check_output
    from mobile_avatar.personalization import check_work

    output = output or Path(video.stem + ".avatar")
    film, sheet, work = (output.with_name(output.name + suffix) for suffix in (".mp4", ".png", ".work"))
    check_output(output, force, inputs=(video, weights))
    for path in (film, sheet):
        # The avatar is written last: without it, these are leftovers of the work that is gone on with.
        check_output(path, force or (resume and work.is_dir()), inputs=(video, weights))

    import shutil

    from mobile_avatar.avatar import avatar_facts
    from mobile_avatar.data.frames import Frames
    from mobile_avatar.data.prepare import prepare_clip
    from mobile_avatar.files import sha256
    from mobile_avatar.keypoints.models import tracker_models as find_models
    from mobile_avatar.keypoints.tracker import Tracker
    from mobile_avatar.keypoints.video import Video
    from mobile_avatar.models.bilayer.weights import load_weights
    from mobile_avatar.personalization import personalize, scores, split_frames, with_facts
    from mobile_avatar.personalization_report import write_film, write_sheet
    from mobile_avatar.progress import progress
    from mobile_avatar.training.distributed import check_device
    from mobile_avatar.training.finetune import FinetuneOptions
    from mobile_avatar.training.landmark_error import LandmarkError

    check_device(device)
    check_work(work, resume, force)
    Video(video)  # a file that is no video is refused before the tracker may have to be fetched
    weights = find_weights(weights)
    model, facts = load_weights(weights)
    models = find_models(tracker_models)
    clip = prepare_clip(video, models, model.config.image_size, show_progress=True)
    split = split_frames(Frames.from_bytes(clip.images, clip.masks, clip.keypoints), holdout, str(video))
    if work.exists() and not resume:
        shutil.rmtree(work)
    left_out = sum(clip.rejected.values())
    say(
        f"{video}: {len(split.train)} frames to train on, {len(split.held_out)} held out"
        + (f", {left_out} not usable" if left_out else "")
        + f"; unfinished work is kept in {work}, --resume goes on with it"
    )
    facts = avatar_facts(weights, facts, None) | {"clip_sha256": sha256(video)}
    options = FinetuneOptions(steps=steps, seed=seed)

    def told(left: range) -> Iterator[int]:
        return progress(left, left.stop, "fine-tuning", start=left.start, samples=options.batch_size)

    done = personalize(model, split, facts, options, minutes, work, device, told)
    table = scores(done, len(split.unseen), LandmarkError(Tracker(models)))
    write_sheet(done, sheet)
    write_film(done, film, clip.fps)
    with_facts(done, table).save(output)
    shutil.rmtree(work)

    result = {"avatar": str(output), "film": str(film), "contact_sheet": str(sheet)}
    result["frames"] = {"train": len(split.train), "held_out": len(split.held_out), "unseen": len(split.unseen)}
    result |= {"rejected": clip.rejected, "steps": done.finetuned.history[-1]["step"]}
    result |= {"best_step": done.finetuned.best_step, "held_out": table}
    if as_json:
        print_json(result)
        return
    rows = [
        (name, *(None if row[key] is None else round(row[key], 3) for key in COLUMNS)) for name, row in table.items()
    ]
    print_table(("held-out frames", *COLUMNS), rows)
    click.echo(f"\nkept step {result['best_step']} of {result['steps']}\n{output}\n{film}\n{sheet}")
