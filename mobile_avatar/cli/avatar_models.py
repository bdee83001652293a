"""The models that `create` makes avatars with: one row each."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mobile_avatar.assets import shipped
from mobile_avatar.cli.common import find_weights
from mobile_avatar.errors import BadInput

ROME_DEFAULT = "rome.safetensors"


@dataclass(frozen=True)
class Request:
    """What the command was asked for."""

    photo: Path
    weights: Path | None
    tracker_models: Path | None
    update_steps: int
    refine: int
    say: Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """An avatar, ready to be written, and what is said of it."""

    save: Callable[[Path], None]
    write_sheet: Callable[[Path], None]
    faces_found: int
    stage: str
    """What the stages of `psnr` are."""
    psnr: dict[str, float]
    """dB of the source photo, inside both masks."""
    mask_iou: float


@dataclass(frozen=True)
class Model:
    """How avatars of one model are made."""

    make: Callable[[Request], Made]
    """May raise BadInput."""
    options: tuple[str, ...]
    """Options of the command that not every model has but this one."""


def _bilayer(request: Request) -> Made:
    from mobile_avatar.avatar import avatar_facts
    from mobile_avatar.creation import create_avatar, write_contact_sheet
    from mobile_avatar.models.bilayer.weights import load_weights

    weights = find_weights(request.weights)
    model, facts = load_weights(weights)
    source, faces = _source(request, model.config.image_size)
    created = create_avatar(
        model,
        source,
        avatar_facts(weights, facts, request.photo),
        request.update_steps,
        request.refine,
        _refining,
    )
    return Made(
        created.avatar.save,
        lambda path: write_contact_sheet(created, source, path),
        faces,
        "texture",
        created.psnr,
        created.mask_iou,
    )


def _rome(request: Request) -> Made:
    from mobile_avatar.avatar import avatar_facts
    from mobile_avatar.models.rome.avatar_weights import load_avatar_weights
    from mobile_avatar.models.rome.synthetic_rig import synthetic_head
    from mobile_avatar.rome_creation import create_rome_avatar, write_rome_contact_sheet

    path = request.weights or shipped(ROME_DEFAULT)
    weights = load_avatar_weights(path)
    source, faces = _source(request, weights.renderer.config.image_size)
    facts = avatar_facts(path, weights.facts, request.photo)
    created = create_rome_avatar(weights, synthetic_head(), source, facts, request.refine, _refining)
    return Made(
        created.avatar.save,
        lambda sheet: write_rome_contact_sheet(created, source, sheet),
        faces,
        "stage",
        created.psnr,
        created.mask_iou,
    )


def _refining(steps: range) -> Iterable[int]:
    from mobile_avatar.progress import progress

    return progress(steps, len(steps), "refining the texture")


def _source(request: Request, image_size: int):
    """The photo as models see it, and how many faces are in it."""
    from mobile_avatar.creation import source_from_photo
    from mobile_avatar.keypoints.models import tracker_models

    source, faces = source_from_photo(request.photo, image_size, lambda: tracker_models(request.tracker_models))
    if faces > 1:
        request.say(f"{request.photo}: {faces} faces found, taking the largest")
    return source, faces


MODELS = {
    "bilayer": Model(_bilayer, options=("update_steps", "refine")),
    "rome": Model(_rome, options=("refine",)),
}
DEFAULT_MODEL = "bilayer"


def check_options(model: str, given: set[str]) -> None:
    """Refuse options, by their parameter names, that only other models have: BadInput names one of them."""
    foreign = {option: name for name, other in MODELS.items() for option in other.options}
    for option in sorted(given & set(foreign) - set(MODELS[model].options)):
        raise BadInput(
            f"--{option.replace('_', '-')} belongs to --model {foreign[option]}, not to {model}; leave it out"
        )
