"""The protocol of the thesis: a person's first frame makes the avatar, their other frames are what it should show.

Beside the model's own stages two baselines run on the same frames. All numbers are means per person first, then over
people, with a bootstrap confidence interval over people: frames of one person are not independent.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.avatar import Rendered
from mobile_avatar.creation import refine_texture
from mobile_avatar.data.clips import Clips, Draw
from mobile_avatar.keypoints.landmark_image import draw_landmarks_batched
from mobile_avatar.models.bilayer.inference_generator import masked, warp
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.training.baselines import still_source, warp_source
from mobile_avatar.training.metrics import Driven

CHUNK = 16  # frames rendered together
RESAMPLES = 10_000

Metric = Callable[[Driven], dict[str, Tensor]]
"""Driven frames -> named columns, one value per frame; NaN where a frame could not be measured."""


@dataclass(frozen=True)
class Column:
    """What a number means."""

    label: str
    digits: int
    how: str
    """One sentence: how it is measured."""
    better: str = "higher"


COLUMNS: dict[str, Column] = {
    "psnr_masked": Column("PSNR masked, dB", 2, "both behind the photo's mask, squared error inside it, peak 2"),
    "psnr_shown": Column("PSNR shown, dB", 2, "the frame behind its own mask, squared error inside the photo's mask"),
    "psnr_raw": Column("PSNR raw, dB", 2, "the whole frame, each on black behind its own mask"),
    "ssim_masked": Column(
        "SSIM masked", 3, "both behind the photo's mask: Gaussian window 11, sigma 1.5; mean inside it"
    ),
    "ssim_raw": Column("SSIM raw", 3, "mean of the whole frame, each on black behind its own mask"),
    "mask_iou": Column("mask IoU", 3, "overlap of the soft masks, intersection over union"),
    "lpips": Column("LPIPS", 3, "v0.1, VGG16, whole frame, both on black", "lower"),
    "csim": Column("CSIM", 3, "cosine of face-recognition features of frame and photo, both on black, aligned alike"),
    "nme_percent": Column(
        "NME, %",
        2,
        "points that the tracker finds in the frame against those that drove it, over the outer eye distance",
        "lower",
    ),
    "no_face": Column("no face", 3, "share of frames in which the tracker finds no face; NME leaves them out", "lower"),
}

STAGES = ("generated", "updated", "refined")
METHODS: dict[str, str] = {
    "still": "baseline: the source photo, not moved",
    "warp": "baseline: the source photo, warped piecewise by the keypoints",
    "generated": "the texture as the generator makes it",
    "updated": "the texture after the learned updates",
    "refined": "the updated texture after Adam steps on the source photo",
    "photo": "the target photo itself, on black: what the tracker's NME cannot go below",
}
# The target itself is perfect in every metric but this one.
PHOTO_METRIC = "nme"


@dataclass(frozen=True)
class Stages:
    """What is done to the texture."""

    update_steps: int = 4
    """Learned updates; 0 leaves `updated` out."""
    refine_steps: int = 0
    """Adam steps on the source photo; 0 leaves `refined` out."""


@dataclass(frozen=True)
class Measured:
    """One person."""

    name: str
    frames: int
    """Driven frames."""
    values: dict[str, dict[str, np.ndarray]] = field(repr=False)
    """Method -> column -> (frames,) float64, NaN where a frame could not be measured."""

    def mean(self, method: str, column: str) -> float:
        """Over the frames that could be measured; NaN when there are none."""
        values = self.values[method][column]
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def measure(
    model: BilayerModel,
    load: Callable[[Draw], Clips],
    draws: dict[str, Draw],
    metrics: dict[str, Metric],
    stages: Stages,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Measured]:
    """Evaluate a model.

    Args:
        model: in eval mode, on the device of the clips.
        load: clips of one draw; its first frame is the source, all others are driven.
        draws: name of a person -> what to load.
        metrics: name -> metric; `nme` is also asked about the target photos.
        stages: what is done to the texture.
        progress: wraps the list of people.
    """
    people = []
    for name, draw in progress(list(draws.items())):
        clips = load(draw)
        parts: dict[str, dict[str, list[Tensor]]] = {}
        for driven in drive(model, clips, stages):
            for method, frames in driven.items():
                chosen = metrics if method != "photo" else {k: m for k, m in metrics.items() if k == PHOTO_METRIC}
                for column, values in (item for metric in chosen.values() for item in metric(frames).items()):
                    parts.setdefault(method, {}).setdefault(column, []).append(values.double().cpu())
        values = {
            method: {column: torch.cat(rows).numpy() for column, rows in columns.items()}
            for method, columns in parts.items()
        }
        people.append(Measured(name, clips.images.shape[1] - 1, values))
    return people


def choose(people: list[Measured], stage: str) -> dict[str, Measured]:
    """The best, the median and the worst person by masked PSNR of a stage; fewer where there are fewer people."""
    ranked = sorted(people, key=lambda person: -person.mean(stage, "psnr_masked"))
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    chosen = {word: ranked[place] for word, place in places.items()}
    return {word: person for word, person in chosen.items() if word == "best" or person is not chosen["best"]}


@torch.no_grad()
def drive(model: BilayerModel, clips: Clips, stages: Stages) -> Iterable[dict[str, Driven]]:
    """Drive the first frame of one person's clips (1, n, ...) by all others; yields method -> frames, by chunks."""
    image, mask, points = clips.images[:, :1], clips.masks[:, :1], clips.keypoints[:, :1]
    landmarks = draw_landmarks_batched(points[0], image.shape[-1])[None]
    person = model.person(image, mask, landmarks)
    textures = {"generated": person.texture}
    if stages.update_steps:
        textures["updated"] = model.update_texture(person, image, points, stages.update_steps)[-1]
    if stages.refine_steps:
        layers, start = model.frame_layers(points, person), list(textures.values())[-1]
        hf = warp(start, layers.uv(), model.config.align_corners)
        frame = Rendered(
            layers.uv().permute(0, 3, 1, 2), layers.lf, hf, layers.mask(), masked(layers.lf + hf, layers.mask())
        )
        corners = model.config.align_corners
        textures["refined"] = refine_texture(start, frame, image[0], mask[0], corners, stages.refine_steps)
    source = image[0, 0], mask[0, 0]
    targets = (values[0, 1:].split(CHUNK) for values in (clips.images, clips.masks, clips.keypoints))
    for goals, goal_masks, keypoints in zip(*targets, strict=True):
        layers = model.frame_layers(keypoints[None], person)
        shown = {
            "still": still_source(*source, len(goals)),
            "warp": warp_source(*source, points[0, 0], keypoints),
        }
        for stage, texture in textures.items():
            shown[stage] = model.unmasked(layers, texture), layers.mask()
        shown["photo"] = goals, goal_masks
        yield {method: Driven(*pair, goals, goal_masks, keypoints) for method, pair in shown.items()}


def summarise(people: list[Measured]) -> dict[str, dict[str, dict | None]]:
    """Method -> column -> `mean`, `ci95` (low, high), `identities` and `frames` that could be measured.

    None in place of a column that no frame allowed. The interval is a percentile bootstrap over identities.
    """
    methods = people[0].values
    return {method: {column: _summary(people, method, column) for column in methods[method]} for method in methods}


def _summary(people: list[Measured], method: str, column: str) -> dict | None:
    means = np.array([person.mean(method, column) for person in people])
    means = means[np.isfinite(means)]
    if not len(means):
        return None
    low, high = bootstrap(means)
    frames = sum(int(np.isfinite(person.values[method][column]).sum()) for person in people)
    return {"mean": float(means.mean()), "ci95": [low, high], "identities": len(means), "frames": frames}


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of values (K,): percentiles over 10,000 resamples, always the same ones for one K."""
    picks = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)
