"""From a prepared photo to an avatar: embed, generate the texture, update it, refine it, fold."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mobile_avatar.avatar import Avatar, Rendered
from mobile_avatar.images import read_photo, to_uint8
from mobile_avatar.keypoints.models import TrackerModels
from mobile_avatar.keypoints.prepare import prepare_photo
from mobile_avatar.models.bilayer.fold import fold
from mobile_avatar.models.bilayer.inference_generator import warp
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.rendering.contact_sheet import contact_sheet

REFINE_RATE = 0.03
# What holds a refined texture back: roughness and size of the change, and how many pixels must read a texel before it
# may follow them freely. Chosen on synthetic people driven to other poses, which looser values make worse.
ROUGHNESS, CHANGE, READERS = 4e-3, 5e-3, 1.0


@dataclass(frozen=True)
class Source:
    """The person as the model sees them."""

    image: Tensor
    """(3, S, S) in [-1, 1]: the crop of the photo."""
    mask: Tensor
    """(1, S, S) in [0, 1]: where the person is."""
    keypoints: Tensor
    """(136,) in [-1, 1]."""
    landmarks: Tensor
    """(3, S, S) in [-1, 1]: landmark image."""


@dataclass(frozen=True)
class Created:
    """An avatar and how well it shows its own source photo."""

    avatar: Avatar
    psnr: dict[str, float]
    """Stage (`generated`, `updated`, `refined`) -> PSNR in dB of lf + hf against the photo, inside the mask: where the
    avatar shows something (its own mask) and the photo shows the person (the photo's mask)."""
    mask_iou: float
    """Overlap of the two masks, intersection over union: how much of the person the avatar shows at all."""
    rendered: Rendered
    """The source pose, rendered by the finished avatar."""


def create_avatar(
    model: BilayerModel,
    source: Source,
    facts: dict[str, str],
    update_steps: int = 4,
    refine_steps: int = 0,
    progress: Callable[[range], Iterable[int]] = iter,
) -> Created:
    """Make an avatar of one photo.

    Args:
        model: in eval mode, spectral norm resolved.
        source: prepared at the model's image size.
        facts: metadata of the avatar.
        update_steps: learned gradient descent steps (M, 4 in the thesis).
        refine_steps: Adam steps on the texture alone afterwards.
        progress: wraps the range of refine steps.
    """
    image, keypoints = source.image[None], source.keypoints[None]
    with torch.no_grad():
        person = model.person(image[None], source.mask[None, None], source.landmarks[None, None])
    textures = {"generated": person.texture}
    if update_steps:
        textures["updated"] = model.update_texture(person, image[None], keypoints[None], update_steps)[-1]
    generator = fold(model, person)
    if refine_steps:
        frame = Avatar(generator, person.texture, source.keypoints, {}).render(keypoints)
        start = list(textures.values())[-1]
        textures["refined"] = refine_texture(
            start, frame, image, source.mask[None], model.config.align_corners, refine_steps, progress
        )
    psnr = {}
    for stage, texture in textures.items():
        avatar = Avatar(generator, texture, source.keypoints, facts)
        rendered = avatar.render(keypoints)
        psnr[stage] = psnr_inside(rendered.lf + rendered.hf, image, rendered.mask * source.mask[None])
    both, either = torch.minimum(rendered.mask, source.mask), torch.maximum(rendered.mask, source.mask)
    return Created(avatar, psnr, float(both.sum() / either.sum()), rendered)


@torch.enable_grad()
def refine_texture(
    texture: Tensor,
    frame: Rendered,
    photo: Tensor,
    photo_mask: Tensor,
    align_corners: bool,
    steps: int,
    progress: Callable[[range], Iterable[int]] = iter,
) -> Tensor:
    """Adam on the texture (1, 3, S, S) so that the rendered source pose `frame` shows the person of `photo`.

    Warp, low-frequency layer and mask stay as they are. Only what both masks call the person counts (elsewhere the
    texture would learn the background), and only texels that this pose reads may change: Adam would move the others as
    far, and other poses show them. The rate falls to zero.

    Args:
        photo: (1, 3, S, S) in [-1, 1].
        photo_mask: (1, 1, S, S) in [0, 1].
    """
    uv, weight = frame.uv.permute(0, 2, 3, 1), frame.mask * photo_mask
    nothing = torch.zeros_like(texture[:, :1]).requires_grad_()
    (readers,) = torch.autograd.grad((warp(nothing, uv, align_corners) * weight).sum(), nothing)
    free = readers / (readers + READERS)
    change = torch.zeros_like(texture).requires_grad_()
    optimizer = torch.optim.Adam([change], REFINE_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in progress(range(steps)):
        # Compared before compositing: behind a half-transparent mask the texture would have to overshoot.
        shown = frame.lf + warp(texture + change * free, uv, align_corners)
        error = ((shown - photo).square() * weight).mean()
        rough = change.diff(dim=-1).abs().mean() + change.diff(dim=-2).abs().mean()
        optimizer.zero_grad()
        (error + ROUGHNESS * rough + CHANGE * change.square().mean()).backward()
        optimizer.step()
        schedule.step()
    return (texture + change * free).detach()


def psnr_inside(image: Tensor, goal: Tensor, mask: Tensor) -> float:
    """PSNR in dB of images (N, 3, S, S) in [-1, 1] (peak 2), weighted by a soft mask (N, 1, S, S)."""
    error = ((image.clamp(-1, 1) - goal).square() * mask).sum() / (3 * mask.sum()).clamp_min(1e-6)
    return 10 * math.log10(4 / max(error.item(), 1e-12))


def source_from_photo(photo: Path, image_size: int, models: Callable[[], TrackerModels]) -> tuple[Source, int]:
    """Track, crop and mask the largest face of a photo; also returns how many faces there are.

    `models` is called only once the photo has proved readable, since it may have to fetch something.
    """
    pixels = read_photo(photo)
    found = prepare_photo(pixels, image_size, models(), source=str(photo))
    arrays = (found.image, found.mask, found.keypoints, found.landmark_image)
    return Source(*map(torch.from_numpy, arrays)), found.faces_found


def write_contact_sheet(created: Created, source: Source, path: Path) -> None:
    """Photo, landmarks, low-frequency layer, warped texture, texture, mask and result, as one labelled picture."""
    rendered, masks = created.rendered, 2 * torch.cat([source.mask, created.rendered.mask[0]]) - 1
    stage, psnr = list(created.psnr.items())[-1]
    cells = [
        ("photo", source.image),
        ("keypoints", source.landmarks),
        ("mask of the photo", masks[:1].expand(3, -1, -1)),
        (f"result: {stage}, {psnr:.1f} dB", rendered.image[0]),
        ("lf: low frequencies", rendered.lf[0]),
        ("hf: warped texture", rendered.hf[0]),
        ("texture", created.avatar.texture[0]),
        ("mask", masks[1:].expand(3, -1, -1)),
    ]
    contact_sheet([(label, to_uint8(image)) for label, image in cells], 4, path)
