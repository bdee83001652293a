"""From a prepared photo to a ROME avatar: align, read texture, shape, hair and pose off it, refine, see how it fits."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mobile_avatar.creation import Source, psnr_inside
from mobile_avatar.images import resized, to_uint8
from mobile_avatar.models.rome.alignment import align, alignment, widened
from mobile_avatar.models.rome.avatar import RomeAvatar, RomeFrame
from mobile_avatar.models.rome.avatar_looks import expressive_codes, turned_codes
from mobile_avatar.models.rome.avatar_weights import AvatarWeights
from mobile_avatar.models.rome.compact_renderer import PHOTO_COLOURS
from mobile_avatar.models.rome.feature_image import feature_image
from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.landmark_fit import POINTS, AvatarLandmarks, fit_codes
from mobile_avatar.models.rome.model import Rome
from mobile_avatar.models.rome.networks import read_frames
from mobile_avatar.models.rome.photo_texture import avatar_texture
from mobile_avatar.rendering.contact_sheet import contact_sheet
from mobile_avatar.rome_refinement import refine_rome_texture

YAWS = (-45, -20, 20, 45)  # degrees, on the contact sheet
COLUMNS, CELL = 4, 192  # pixels of a cell at least: its label has to fit


@dataclass(frozen=True)
class RomeCreated:
    """An avatar and how well it shows its own source photo."""

    avatar: RomeAvatar
    landmarks: AvatarLandmarks
    """Of the avatar's mesh."""
    psnr: dict[str, float]
    """Stage -> PSNR in dB of the rendered colours against the photo, where both the avatar's and the photo's mask are:
    `encoder`, with the codes that a phone would read off the photo; `fitted`, with these moved so that the mesh has its
    landmarks at the photo's keypoints, which is what the avatar keeps; `refined`, with the texture refined as well."""
    mask_iou: float
    """Overlap of the two masks, intersection over union, of the finished avatar."""
    photo: Tensor
    """(1, 3, s, s) RGB in [0, 1], aligned: what texture, shape and hair were read off."""
    frame: RomeFrame
    """The photo's pose, rendered."""


@torch.no_grad()
def create_rome_avatar(
    weights: AvatarWeights,
    head: HeadModel,
    source: Source,
    facts: dict[str, str],
    refine_steps: int = 0,
    progress: Callable[[range], Iterable[int]] = iter,
) -> RomeCreated:
    """Make a ROME avatar of one photo.

    Args:
        weights: made for `head`.
        source: prepared at the renderer's image size; cropped as the training pictures are.
        facts: metadata of the avatar.
        refine_steps: Adam steps on the texture afterwards, 0 for none; the avatar then shows this photo better.
        progress: wraps the range of refine steps.

    Raises:
        BadInput: the head has other numbers of vertices or coefficients than the networks.
    """
    image, mask = (source.image[None] + 1) / 2, source.mask[None]
    read = read_person(weights, head, image, mask, source.keypoints.view(1, POINTS, 2), facts)
    avatar = read.avatar
    stages = {"encoder": replace(avatar, source_codes=read.encoder_codes), "fitted": avatar}
    if refine_steps:
        avatar = replace(avatar, texture=refine_rome_texture(avatar, image, mask, refine_steps, progress))
        stages["refined"] = avatar
    psnr = {}
    for stage, made in stages.items():
        frame = made.render(made.source_codes[None])
        colours, shown = frame.rgba.split((3, 1), dim=1)
        psnr[stage] = psnr_inside(colours * 2 - 1, source.image[None], shown * mask)
    both, either = torch.minimum(shown, mask), torch.maximum(shown, mask)
    return RomeCreated(avatar, read.landmarks, psnr, float(both.sum() / either.sum()), read.photo, frame)


@dataclass(frozen=True)
class Read:
    """What was read off a photo."""

    avatar: RomeAvatar
    """Its codes are fitted to the keypoints."""
    landmarks: AvatarLandmarks
    """Of the avatar's mesh."""
    encoder_codes: Tensor
    """(e + 9,): codes as a phone would read them off the photo."""
    photo: Tensor
    """(1, 3, s, s) RGB in [0, 1], aligned, in the networks' size."""


@torch.no_grad()
def read_person(
    weights: AvatarWeights, head: HeadModel, image: Tensor, mask: Tensor, keypoints: Tensor, facts: dict[str, str]
) -> Read:
    """Read shape, hair, pose and texture off a photo.

    Args:
        weights, head, facts: see `create_rome_avatar`.
        image, mask: (1, 3, S, S) and (1, 1, S, S) in [0, 1], of the renderer's size.
        keypoints: (1, 68, 2) in [-1, 1] of the picture.
    """
    model = Rome(weights.networks, head, "linear_mobile").eval()
    size = weights.networks.config.image_size
    small = resized(torch.cat((image, mask), dim=1), size)
    theta = widened(alignment((keypoints + 1) * size / 2, size))
    photo, matte = align(small, theta, size).split((3, 1), dim=1)
    person = model.person(photo, matte, keypoints)
    codes = read_frames(weights.networks, image)
    plain = RomeAvatar.of(weights.networks, head, person, weights.renderer, codes[0], facts)
    landmarks = AvatarLandmarks.of(plain.mesh, head)
    fitted = fit_codes(landmarks, keypoints, codes[0])
    texture = avatar_texture(plain.mesh, fitted, plain.texture, image, mask)
    return Read(replace(plain, texture=texture, source_codes=fitted[0]), landmarks, codes[0], photo)


@torch.no_grad()
def write_rome_contact_sheet(created: RomeCreated, source: Source, path: Path) -> None:
    """Photo, cut-out, aligned photo and result; mask, mesh, texture and keypoints; turned; with expressions."""
    avatar, frame = created.avatar, created.frame
    stage, psnr = list(created.psnr.items())[-1]
    photo = (source.image[None] + 1) / 2
    cells = [
        ("photo", photo),
        ("cut-out", on_white(photo, source.mask[None])),
        ("aligned photo", created.photo),
        (f"result: {stage}, {psnr:.1f} dB", rome_picture(frame)),
        ("mask", frame.rgba[:, 3:].expand(-1, 3, -1, -1)),
        ("mesh: normals", mesh_picture(avatar, frame, max(CELL, avatar.size))),
        ("texture: colours", avatar.texture[:, :PHOTO_COLOURS].clamp(0, 1)),
        ("keypoints", (source.landmarks[None] + 1) / 2),
    ]
    for degrees in YAWS:
        codes = turned_codes(created.landmarks, avatar.source_codes, math.radians(degrees))
        cells.append((f"turned {degrees:+d} degrees", rome_picture(avatar.render(codes))))
    for label, codes in expressive_codes(created.landmarks, avatar.source_codes).items():
        cells.append((label, rome_picture(avatar.render(codes))))
    contact_sheet([(label, to_uint8(image[0] * 2 - 1)) for label, image in cells], COLUMNS, path)


def rome_picture(frame: RomeFrame) -> Tensor:
    """A frame's person on white, (1, 3, S, S) in [0, 1]."""
    return on_white(*frame.rgba.split((3, 1), dim=1))


def mesh_picture(avatar: RomeAvatar, frame: RomeFrame, size: int) -> Tensor:
    """The mesh behind a frame, coloured by its normals, on white: (1, 3, size, size) in [0, 1]."""
    mesh = avatar.mesh
    features = feature_image(frame.positions, frame.normals, mesh.corners.long(), mesh.uv, avatar.texture, size)
    normals, coverage = features[:, -4:].split((3, 1), dim=1)
    return on_white((normals + 1) / 2, coverage)


def on_white(image: Tensor, mask: Tensor) -> Tensor:
    """Image (n, 3, S, S) and soft mask (n, 1, S, S), both in [0, 1] -> the person on white."""
    return image * mask + 1 - mask
