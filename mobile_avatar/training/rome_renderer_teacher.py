"""What a student of the rendering network is shown: the features that a phone draws and what the teacher makes of them.

One rasterisation serves both: the student's features are the teacher's own without their encoding.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.compact_renderer import TEXTURE
from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.mesh_maps import image_features, mesh_maps
from mobile_avatar.models.rome.model import FRONT, Person, Rome
from mobile_avatar.models.rome.networks import RomeNetworks
from mobile_avatar.models.rome.parametric import rotation_matrices
from mobile_avatar.models.rome.regressors import FrameCodes
from mobile_avatar.training.rome_heads import WIDEST, RomeClips, axis_angle
from mobile_avatar.training.rome_person import photo_person

LINEAR_PARTS = {"linear_basis", "basis_regressor"}
LARGEST_TILT, LARGEST_JAW = 0.45, 0.3
"""Of invented frames in radians, as far as those of the synthetic heads."""
ZOOM, SHIFT = 0.15, 0.1
"""Of invented cameras: relative change of the scale, and shift in the picture, which is 2 wide."""


@dataclass(frozen=True)
class Lesson:
    """n frames."""

    features: Tensor
    """(n, 12, S, S), as `feature_image` gives them to a phone's renderer."""
    image: Tensor
    """(n, 3, S, S) in [0, 1]: the teacher's colours; outside its mask they mean nothing."""
    mask: Tensor
    """(n, 1, S, S) in [0, 1]: the teacher's mask."""


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

    @torch.no_grad()
    def person(self, clips: RomeClips) -> Person:
        """Once per avatar, from the first frames of b people, in the size that the encoders were made for."""
        wanted = self.model.config.image_size
        if clips.images.shape[-1] != wanted:
            first = {name: _resized(getattr(clips, name)[:, 0], wanted)[:, None] for name in ("images", "masks")}
            clips = replace(clips, **first)
        return photo_person(self.model, clips)

    @torch.no_grad()
    def __call__(self, person: Person, codes: FrameCodes) -> Lesson:
        """n frames of n people, see `per_frame`."""
        model = self.model
        mesh = model.mesh(person, codes)
        front = mesh.projected + mesh.projected.new_tensor([0, 0, FRONT])
        maps = mesh_maps(front, mesh.vertices, model.faces, model.uv, model.uv_faces, self.size)
        inputs = image_features(person.texture, maps.uv, maps.normals, maps.mask, model.config.octaves)
        image, mask = torch.sigmoid(model.networks.part("rendering_unet")(inputs)).split([3, 1], dim=1)
        return Lesson(torch.cat((inputs[:, :TEXTURE], maps.normals, maps.mask), dim=1), image, mask)


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


def _resized(images: Tensor, size: int) -> Tensor:
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
