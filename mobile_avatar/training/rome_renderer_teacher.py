"""What a student of the rendering network is shown: what a phone draws and what the teacher makes of it.

One rasterisation serves both; each reads a texture of its own.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.appearance import Appearance
from mobile_avatar.models.rome.compact_renderer import TEXTURE
from mobile_avatar.models.rome.feature_image import sample_texture
from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.mesh_maps import image_features, mesh_maps
from mobile_avatar.models.rome.model import FRONT, Person, Rome
from mobile_avatar.models.rome.networks import RomeNetworks
from mobile_avatar.models.rome.parametric import rotation_matrices
from mobile_avatar.models.rome.photo_texture import PhotoSurface, PhotoUnfolding
from mobile_avatar.models.rome.regressors import FrameCodes
from mobile_avatar.training.rome_heads import WIDEST, RomeClips, axis_angle
from mobile_avatar.training.rome_person import per_frame, photo_person

LINEAR_PARTS = {"linear_basis", "basis_regressor"}
LARGEST_TILT, LARGEST_JAW = 0.45, 0.3
"""Of invented frames in radians, as far as those of the synthetic heads."""
ZOOM, SHIFT = 0.15, 0.1
"""Of invented cameras: relative change of the scale, and shift in the picture, which is 2 wide."""


@dataclass(frozen=True)
class Lesson:
    """n frames."""

    places: Tensor
    """(n, S, S, 2) in [-1, 1]: where pixels read the texture."""
    normals: Tensor
    """(n, 3, S, S) in head space."""
    coverage: Tensor
    """(n, 1, S, S), 0 or 1."""
    image: Tensor | None
    """(n, 3, S, S) in [0, 1]: the teacher's colours; outside its mask they mean nothing. None where nobody asked."""
    mask: Tensor | None
    """(n, 1, S, S) in [0, 1]: the teacher's mask."""

    def features(self, texture: Tensor) -> Tensor:
        """(n, 12, S, S), as `feature_image` gives them to a phone's renderer, with textures (n, 8, T, T)."""
        parts = (sample_texture(texture, self.places) * self.coverage, self.normals, self.coverage)
        return torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last)


class Sources(NamedTuple):
    """What textures of b people are made of, see `Appearance.texture`."""

    photo: Tensor
    matte: Tensor
    seen: PhotoSurface


class Teacher:
    """A frozen ROME: the linear mode where the networks have its parts, since that is what a phone draws, else full.

    Args:
        networks: with texture encoder and rendering network; they are frozen here.
        head: the head model they were made for.
        size: side of the pictures in pixels; the rendering network is convolutional and takes any multiple of 8.

    Raises:
        BadInput: the neural texture has other channels than a phone's renderer reads.
    """

    def __init__(self, networks: RomeNetworks, head: HeadModel, size: int) -> None:
        if networks.config.tex_outputs != TEXTURE:
            raise BadInput(
                f"these ROME weights have a texture of {networks.config.tex_outputs} channels, but renderers of phones "
                f"read {TEXTURE}; train the full model with tex_outputs {TEXTURE}"
            )
        mode = "linear" if set(networks.parts) >= LINEAR_PARTS else "full"
        self.model, self.size = Rome(networks.eval().requires_grad_(False), head, mode), size
        self.unfolding = PhotoUnfolding(head.template, head.faces, head.uv, head.uv_faces, size)

    def to(self, device: str) -> "Teacher":
        """Itself, on a device."""
        self.model, self.unfolding = self.model.to(device), self.unfolding.to(device)
        return self

    @torch.no_grad()
    def person(self, clips: RomeClips) -> Person:
        """Once per avatar, from the first frames of b people."""
        return photo_person(self.model, clips)

    @torch.no_grad()
    def sources(self, clips: RomeClips, person: Person) -> Sources:
        """What a phone's textures of these people are made of: their first frames, and where they show the mesh."""
        first = FrameCodes(clips.expression[:, 0], clips.pose[:, 0], clips.camera[:, 0])
        mesh = self.model.mesh(person, first)
        seen = self.unfolding(mesh.projected, clips.images[:, 0], clips.masks[:, 0])
        return Sources(*clips.source(self.model.config.image_size), seen)

    @torch.no_grad()
    def __call__(self, person: Person, codes: FrameCodes, pictures: bool = True) -> Lesson:
        """n frames of n people, see `per_frame`; with the teacher's own pictures or without."""
        model = self.model
        mesh = model.mesh(person, codes)
        front = mesh.projected + mesh.projected.new_tensor([0, 0, FRONT])
        maps = mesh_maps(front, mesh.vertices, model.faces, model.uv, model.uv_faces, self.size)
        drawn = (maps.uv.permute(0, 2, 3, 1), maps.normals, maps.mask)
        if not pictures:
            return Lesson(*drawn, None, None)
        inputs = image_features(person.texture, maps.uv, maps.normals, maps.mask, model.config.octaves)
        image, mask = torch.sigmoid(model.networks.part("rendering_unet")(inputs)).split([3, 1], dim=1)
        return Lesson(*drawn, image, mask)


def taught_and_seen(teacher: Teacher, student: Appearance, clips: RomeClips) -> tuple[Lesson, Tensor]:
    """All frames (b * n) of people: what the teacher makes of them, and the features that the student gets to see."""
    person, frames = teacher.person(clips), clips.images.shape[1]
    texture = student.texture(*teacher.sources(clips, person)).repeat_interleave(frames, 0)
    lesson = teacher(per_frame(person, frames), clips.codes())
    return lesson, lesson.features(texture)


def invented_codes(clips: RomeClips, frames: int) -> FrameCodes:
    """Random codes (b * frames, ...) around those of b people: any expression, seen from anywhere in front.

    Renderers have to work for codes that nobody showed the camera of the training data.
    """
    camera = clips.camera[:, :1].repeat_interleave(frames, 1).flatten(0, 1)
    count, expressions = len(camera), clips.expression.shape[2]

    def evenly(columns: int, largest: float) -> Tensor:
        return largest * (2 * torch.rand(count, columns) - 1)

    zero = torch.zeros(count, 1)
    yaw, tilt, jaw = evenly(1, WIDEST), evenly(2, LARGEST_TILT), evenly(1, LARGEST_JAW).abs()
    turned = rotation_matrices(torch.cat((zero, yaw, zero), 1))
    tilted = rotation_matrices(torch.cat((tilt[:, :1], zero, tilt[:, 1:]), 1))
    pose = torch.cat((axis_angle(tilted @ turned), jaw, zero, zero), 1)
    expression = torch.randn(count, expressions)
    zoom, shift = 1 + evenly(1, ZOOM), evenly(2, SHIFT)
    expression, pose, zoom, shift = (part.to(camera.device) for part in (expression, pose, zoom, shift))
    scale = camera[:, :1] * zoom
    return FrameCodes(expression, pose, torch.cat((scale, camera[:, 1:] + shift / scale), 1))
