"""Which metrics an evaluation can run, and in words why it cannot run the others."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mobile_avatar.errors import MissingTool
from mobile_avatar.keypoints.models import tracker_models
from mobile_avatar.keypoints.tracker import Tracker
from mobile_avatar.training.evaluation import Metric
from mobile_avatar.training.face_similarity import FaceSimilarity
from mobile_avatar.training.landmark_error import LandmarkError
from mobile_avatar.training.lpips import Lpips
from mobile_avatar.training.metrics import pixel_metrics


@dataclass(frozen=True)
class Wanted:
    """What the user brought for the metrics that need more than pictures."""

    lpips_vgg: Path | None = None
    """VGG16 for LPIPS, and ..."""
    lpips_lin: Path | None = None
    """... the weights of its features."""
    csim: Path | None = None
    """Face-recognition network, ONNX."""
    nme: bool = True
    """Whether to track the rendered frames."""
    tracker: Path | None = None
    """Folder with the tracker's models; None: the cache, or fetched."""


def open_metrics(wanted: Wanted, device: str = "cpu") -> tuple[dict[str, Metric], dict[str, str]]:
    """Metrics that run, and column -> reason of those that do not.

    Raises:
        BadInput: a file that was given is missing or unusable.
    """
    metrics: dict[str, Metric] = {"pixels": pixel_metrics}
    not_run = {}
    for name, (columns, opener) in OPENERS.items():
        opened = opener(wanted, device)
        if isinstance(opened, str):
            not_run |= dict.fromkeys(columns, opened)
        else:
            metrics[name] = opened
    return metrics, not_run


def _lpips(wanted: Wanted, device: str) -> Metric | str:
    if wanted.lpips_vgg is None or wanted.lpips_lin is None:
        return "no weights were given (--lpips-vgg, --lpips-lin)"
    return Lpips(wanted.lpips_vgg, wanted.lpips_lin, device)


def _csim(wanted: Wanted, _: str) -> Metric | str:
    if wanted.csim is None:
        return "no face-recognition network was given (--csim)"
    return FaceSimilarity(wanted.csim)


def _nme(wanted: Wanted, _: str) -> Metric | str:
    if not wanted.nme:
        return "left out on request (--no-nme)"
    try:
        return LandmarkError(Tracker(tracker_models(wanted.tracker)))
    except MissingTool as error:
        return str(error)


Opener = Callable[[Wanted, str], Metric | str]
"""A metric, or why it cannot run."""

OPENERS: dict[str, tuple[tuple[str, ...], Opener]] = {
    "lpips": (("lpips",), _lpips),
    "csim": (("csim",), _csim),
    "nme": (("nme_percent", "no_face"), _nme),
}
