"""People of the training data as the model sees them: from a photo to frames, and to the offsets of their rest pose."""

import torch
from torch import Tensor

from mobile_avatar.models.rome.model import Frame, Mesh, Person, Rome
from mobile_avatar.models.rome.regressors import FrameCodes
from mobile_avatar.training.rome_heads import RomeClips


def draw(model: Rome, clips: RomeClips, person: Person | None = None) -> Frame:
    """All frames (b * n) of people (those of their first frames if none are given).

    Pictures do not move vertices: what comes back through the rasteriser and the encoded normals is a hundred times as
    large as what outlines say, and points nowhere.
    """
    person = person or photo_person(model, clips)
    with torch.no_grad():
        mesh = pose_mesh(model, person, clips)
    return model.render(per_frame(person, clips.images.shape[1]), mesh)


def pose_mesh(model: Rome, person: Person, clips: RomeClips) -> Mesh:
    """The meshes of all frames (b * n) of b people.

    Codes are the given ones, as a face encoder's would be, where the mode has no network for them.
    """
    codes = model.frame_codes(clips.images.flatten(0, 1)) if model.mode.mobile else clips.codes()
    return model.mesh(per_frame(person, clips.images.shape[1]), codes)


def per_frame(person: Person, frames: int) -> Person:
    """b people -> b * frames, each as often as it has frames."""
    return Person(*(None if part is None else part.repeat_interleave(frames, 0) for part in vars(person).values()))


def photo_person(model: Rome, clips: RomeClips) -> Person:
    """What the encoders read off the first frames of b people; the shape is the given one where no network reads it."""
    photo, matte = clips.source(model.config.image_size)
    shape, offsets = model.linear_codes(photo)
    texture = model.networks.part("texture_encoder")(photo, matte)
    return Person(texture, clips.shape if shape is None else shape, offsets)


def rest_mesh(model: Rome, person: Person) -> Mesh:
    """People without expression, looking ahead; nothing sensible is projected."""
    n, zeros = len(person.shape), person.shape.new_zeros
    return model.mesh(person, FrameCodes(zeros(n, model.config.n_exp), zeros(n, 6), zeros(n, 3)))


@torch.no_grad()
def full_offsets(model: Rome, clips: RomeClips) -> Tensor:
    """Offsets (b, v, 3) that the full mode gives to people in rest pose."""
    return rest_mesh(model, photo_person(model, clips)).offsets
