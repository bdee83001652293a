"""From a short video to the avatar of one person: begin with its first frame, fine-tune, judge on held-out frames."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.avatar import Avatar
from mobile_avatar.creation import Source, create_avatar
from mobile_avatar.data.frames import Frames
from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file
from mobile_avatar.keypoints.landmark_image import draw_landmarks
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.rendering.tracks import varied_keypoints
from mobile_avatar.training.baselines import warp_source
from mobile_avatar.training.finetune import Finetuned, FinetuneOptions, finetune, seconds_per_step
from mobile_avatar.training.metrics import Driven, pixel_metrics

FEWEST_FRAMES = 30
UPDATE_STEPS = 4  # as `create` does
OTHER_POSES = 64
CHOOSING_FRAMES = 24  # at most so many are rendered to judge a step
RENDERED_AT_ONCE = 8
OPTIONS_FILE, CHECKPOINT_FILE = "options.json", "checkpoint.pt"


@dataclass(frozen=True)
class Split:
    """Frames of a video in order of time, by what they may be used for."""

    train: Frames
    """The first part."""
    choosing: Frames
    """The first half of what was held out: decides which step is kept, never trained on."""
    unseen: Frames
    """The second half of what was held out: only reported."""

    @property
    def held_out(self) -> Frames:
        """Both halves."""
        pairs = (
            (getattr(self.choosing, name), getattr(self.unseen, name)) for name in ("images", "masks", "keypoints")
        )
        return Frames(*map(torch.cat, pairs))


@dataclass(frozen=True)
class Personalized:
    """The result, and what it is to be compared with."""

    avatar: Avatar
    """Fine-tuned, at the best step."""
    before: Avatar
    """Made from the first frame alone, as `create` does."""
    finetuned: Finetuned
    driven: dict[str, Driven]
    """How the held-out frames are shown by `before`, `warp` (the first frame, warped by the keypoints), `after` (the
    avatar) and `end` (the avatar at the last step, whatever the held-out frames say)."""


def split_frames(frames: Frames, share: float, name: str) -> Split:
    """Hold out the last `share` of the frames. Raises BadInput, naming `name`, when there are too few."""
    total = len(frames)
    held = round(share * total)
    if total < FEWEST_FRAMES or held < 4 or total - held < 4:
        raise BadInput(
            f"{name}: {total} usable frames, of which {held} are held out, are too few; at least {FEWEST_FRAMES} are "
            "needed, and ten seconds of talking and turning are better"
        )
    train, middle = total - held, total - held // 2
    return Split(frames[:train], frames[train:middle], frames[middle:])


def personalize(
    model: BilayerModel,
    split: Split,
    facts: dict[str, str],
    options: FinetuneOptions,
    minutes: float | None,
    work: Path,
    device: str = "cpu",
    progress: Callable[[range], Iterable[int]] = iter,
) -> Personalized:
    """Make and fine-tune an avatar.

    Args:
        model: in eval mode, spectral norm resolved.
        split: frames at the model's image size, on the CPU.
        facts: metadata of the avatar; those of the personalisation are added.
        options: of fine-tuning.
        minutes: take fewer steps where this machine would need longer for all of them; None sets no limit.
        work: folder for the state, which the caller has seen to with `check_work`; unfinished work is gone on with.
        device: where to train.
        progress: wraps the range of steps.
    """
    before = avatar_of_frame(model, split.train, 0, facts)
    typical = typical_frame(split.train.keypoints)
    start = replace(before, source_keypoints=split.train.keypoints[typical])
    poses = torch.from_numpy(varied_keypoints(OTHER_POSES, 0, neutral=start.source_keypoints.numpy()))
    every = max(1, -(-len(split.choosing) // CHOOSING_FRAMES))
    judges = split.choosing[::every]
    train, others = split.train.to(device), poses.to(device)

    def limited() -> FinetuneOptions:
        if minutes is None:
            return options
        fit = int(60 * minutes / seconds_per_step(start, train, others, options))
        return replace(options, steps=max(1, min(options.steps, fit)))

    options = _open_work(work, _fingerprint(split, facts, options, minutes), limited)
    done = finetune(
        start, train, others, lambda avatar: _psnr(avatar, judges), options, work / CHECKPOINT_FILE, progress
    )
    held_out, source = split.held_out, split.train[:1]
    warped, warped_masks = warp_source(source.images[0], source.masks[0], source.keypoints[0], held_out.keypoints)
    driven = {
        "before": drive(before, held_out),
        "warp": Driven(warped, warped_masks, held_out.images, held_out.masks, held_out.keypoints),
        "after": drive(done.best, held_out),
        "end": drive(done.end, held_out),
    }
    return Personalized(done.best, before, done, driven)


def avatar_of_frame(model: BilayerModel, frames: Frames, index: int, facts: dict[str, str]) -> Avatar:
    """The avatar that `create` makes of one frame."""
    points = frames.keypoints[index]
    landmarks = torch.from_numpy(draw_landmarks(points.numpy(), model.config.image_size))
    source = Source(frames.images[index], frames.masks[index], points, landmarks)
    return create_avatar(model, source, facts, UPDATE_STEPS).avatar


def typical_frame(keypoints: Tensor) -> int:
    """The frame whose points (T, 136) are nearest to the median of all: a face at rest, as a rule."""
    return int((keypoints - keypoints.median(dim=0).values).abs().mean(dim=1).argmin())


def drive(avatar: Avatar, frames: Frames) -> Driven:
    """The avatar, driven by the keypoints of frames."""
    rendered = [avatar.render(points) for points in frames.keypoints.split(RENDERED_AT_ONCE)]
    pictures, masks = (torch.cat(parts) for parts in zip(*((r.lf + r.hf, r.mask) for r in rendered), strict=True))
    return Driven(pictures, masks, frames.images, frames.masks, frames.keypoints)


def scores(
    done: Personalized, unseen: int, landmark_error: Callable[[Driven], dict[str, Tensor]]
) -> dict[str, dict[str, float | None]]:
    """Row of the table -> means over the held-out frames; None where no face was found in any.

    Args:
        unseen: how many frames at the end chose nothing; their masked PSNR is `psnr_masked_unseen`.
        landmark_error: a `training.landmark_error.LandmarkError`.
    """
    table = {}
    for name, driven in done.driven.items():
        pixels = pixel_metrics(driven)
        rows = pixels | {"psnr_masked_unseen": pixels["psnr_masked"][-unseen:]} | landmark_error(driven)
        means = {key: float(values.double().nanmean()) for key, values in rows.items()}
        table[name] = {key: None if np.isnan(mean) else round(mean, 4) for key, mean in means.items()}
    return table


def with_facts(done: Personalized, table: dict[str, dict[str, float | None]]) -> Avatar:
    """The avatar with what its file should say of its making; `table` is that of `scores`."""
    facts = {
        "personalised": "true",
        "personalised_steps": str(done.finetuned.best_step),
        "held_out_before": json.dumps(table["before"]),
        "held_out_after": json.dumps(table["after"]),
    }
    return replace(done.avatar, facts=done.avatar.facts | facts)


def check_work(folder: Path, resume: bool, force: bool) -> None:
    """Refuse, before any work, a folder that is not ours, and unfinished work that is neither to be gone on with
    (`resume`) nor to be begun anew (`force`). Raises BadInput.
    """
    if not folder.exists():
        return
    if not (folder / OPTIONS_FILE).is_file():
        raise BadInput(f"{folder} holds other things (no {OPTIONS_FILE}) and is never replaced; choose another output")
    if not (resume or force):
        raise BadInput(f"{folder} holds unfinished work; pass --resume to go on with it or --force to begin anew")


def _open_work(folder: Path, fingerprint: str, limited: Callable[[], FinetuneOptions]) -> FinetuneOptions:
    path = folder / OPTIONS_FILE
    if path.is_file():
        stored = json.loads(path.read_text())
        if stored["fingerprint"] != fingerprint:
            raise BadInput(f"{folder} was begun with another video or other options; repeat those or pass --force")
        return FinetuneOptions(**stored["options"])
    options = limited()
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps({"fingerprint": fingerprint, "options": asdict(options)}))
    return options


def _fingerprint(split: Split, facts: dict[str, str], options: FinetuneOptions, minutes: float | None) -> str:
    """Of everything that decides the result."""
    digest = hashlib.sha256(json.dumps([facts["weights_sha256"], asdict(options), minutes]).encode())
    for part in (split.train, split.choosing):
        for values in (part.images, part.masks, part.keypoints):
            digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def _psnr(avatar: Avatar, frames: Frames) -> float:
    """What decides: of what an app would show, the avatar's own mask included."""
    return float(pixel_metrics(drive(avatar, frames))["psnr_shown"].mean())
