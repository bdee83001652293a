"""Synthetic people as ROME is trained on them: pictures, masks, keypoints and the codes of each frame.

What the losses see is a picture with its masks and keypoints. The codes are inputs, as DECA's are for photographs: they
say how the bare head is shaped, moved and seen, and nothing about hair, neck or shoulders.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from math import radians
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.data.clips import Draw
from mobile_avatar.data.synthetic import SyntheticHeads
from mobile_avatar.data.synthetic.expression import Frames, draw_frames, join_frames
from mobile_avatar.data.synthetic.heads import SPLITS, HeadBatch
from mobile_avatar.data.synthetic.identity import Identity, draw_identities
from mobile_avatar.data.synthetic.paint import PART
from mobile_avatar.images import resized
from mobile_avatar.models.rome.alignment import align, alignment, widened
from mobile_avatar.models.rome.camera import fit_camera, turn
from mobile_avatar.models.rome.parametric import ParametricHead
from mobile_avatar.models.rome.regressors import FrameCodes
from mobile_avatar.models.rome.synthetic_rig import synthetic_codes, synthetic_head
from mobile_avatar.training.distributed import is_first, wait_for_all
from mobile_avatar.training.pool import FramePool, PoolSpec
from mobile_avatar.training.rome_options import RomeTrainOptions

NOT_HEAD = ("background", "neck", "clothes")
FAR = 300.0
"""Distance of the camera of outline views, in head units: the mesh is seen without perspective, and an outline drawn
with it would shrink everything behind the face by several millimetres."""
WIDEST = radians(75)
"""Yaw of outline views at most: how deep hair is shows from the side only, and no loss sees it otherwise."""


@dataclass(frozen=True)
class RomeClips:
    """n frames of b people; frame 0 is the source."""

    images: Tensor
    """(b, n, 3, S, S) float32 RGB in [0, 1], background as photographed."""
    masks: Tensor
    """(b, n, 1, S, S) float32 in [0, 1], 1 is the person."""
    head_masks: Tensor
    """(b, n, 1, S, S) float32, 1 is face, ears or hair, 0 anything else."""
    keypoints: Tensor
    """(b, n, 68, 2) float32 in [-1, 1] of the picture."""
    shape: Tensor
    """(b, n_shape)."""
    expression: Tensor
    """(b, n, n_exp)."""
    pose: Tensor
    """(b, n, 6)."""
    camera: Tensor
    """(b, n, 3)."""
    row: Tensor
    """(b,) int64: which of all frames of the pool the first ones are; -1 for people who are in none."""

    def codes(self) -> FrameCodes:
        """Of all frames in a row: (b * n, ...)."""
        return FrameCodes(*(part.flatten(0, 1) for part in (self.expression, self.pose, self.camera)))

    def source(self, size: int) -> tuple[Tensor, Tensor]:
        """Aligned photos (b, 3, size, size) and mattes (b, 1, size, size) of the first frames."""
        theta = widened(alignment((self.keypoints[:, 0] + 1) * size / 2, size))
        first = resized(torch.cat((self.images[:, 0], self.masks[:, 0]), dim=1), size)
        return align(first, theta, size).split((3, 1), dim=1)

    def judged(self) -> "RomeClips":
        """Those frames whose outlines are compared: all but the first, or the only one."""
        first = min(1, self.images.shape[1] - 1)
        return RomeClips(
            **{
                f.name: getattr(self, f.name) if f.name in ("shape", "row") else getattr(self, f.name)[:, first:]
                for f in fields(self)
            }
        )


@dataclass(frozen=True)
class People:
    """Parameters of synthetic people and their frames, a row per frame."""

    identity: Identity
    frames: Frames


def draw_people(numbers: Sequence[int], frames: int, split: str, frame_seed: int = 0, outlines: int = 0) -> People:
    """The first `frames` frames of people, as `SyntheticHeads.sample` draws them; the last of them are outline views.

    Args:
        outlines: how many of each person's frames are outline views: people turned as a whole, seen from far away. In
            other frames the head tilts on shoulders that stay where they are, which the mesh cannot do.
    """
    rows = torch.arange(len(numbers) * frames) // frames
    identity = draw_identities(list(numbers), SPLITS[split]).take(rows)
    moments = join_frames([draw_frames(number, frames, frame_seed, SPLITS[split]) for number in numbers])
    outline = torch.arange(len(rows)) % frames >= frames - outlines
    # Evenly over all directions, by the frame's own random number.
    yaw = WIDEST * (moments.noise / 2**29 - 1)
    still = torch.zeros_like(yaw)
    pose, body = torch.stack((yaw, still, still), 1), torch.stack((yaw, still), 1)
    pose, body = (torch.where(outline[:, None], *pair) for pair in ((pose, moments.pose), (body, moments.body)))
    moments = replace(moments, pose=pose, body=body)
    lens = torch.where(outline[:, None], identity.lens.new_tensor(FAR), identity.lens)
    return People(replace(identity, lens=lens), moments)


@torch.no_grad()
def true_codes(people: People, keypoints: Tensor) -> tuple[Tensor, FrameCodes]:
    """What a perfect face encoder says: shape (n, s) and the codes of n frames with keypoints (n, 68, 2) in [-1, 1].

    The camera is fitted to the keypoints: theirs has perspective, ROME's has none.
    """
    head = _posing()
    known = synthetic_codes(people.identity, people.frames)
    pose = torch.cat((axis_angle(known.rotations[:, 0] @ known.rotations[:, 1]), axis_angle(known.rotations[:, 2])), 1)
    posed = head(known.shape, known.expression, pose)
    points = turn(head.landmarks(posed.vertices, posed.rotation), posed.rotation, posed.root)
    return known.shape, FrameCodes(known.expression, pose, fit_camera(points, keypoints))


@lru_cache(maxsize=1)
def _posing() -> ParametricHead:
    return ParametricHead(synthetic_head())


def axis_angle(rotation: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) by less than half a turn -> axis times angle (..., 3) in radians."""
    cosine = (rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    axis = torch.stack([rotation[..., i, j] - rotation[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0))], dim=-1) / 2
    sine = axis.norm(dim=-1)
    angle = torch.atan2(sine, cosine)
    return axis * torch.where(sine > 1e-6, angle / sine.clamp(min=1e-6), 1.0)[..., None]


def head_clips(batch: HeadBatch, people: People) -> RomeClips:
    """What `SyntheticHeads.render` drew of these people, with the codes."""
    count = batch.images.shape[1]
    keypoints = batch.keypoints.unflatten(2, (68, 2))
    shape, codes = true_codes(people, keypoints.flatten(0, 1).cpu())
    codes = [part.unflatten(0, (-1, count)).to(keypoints.device) for part in vars(codes).values()]
    masks, shape = (batch.masks, head_masks(batch.parts)), shape[::count].to(keypoints.device)
    nowhere = torch.full((len(shape),), -1, device=shape.device)
    return RomeClips((batch.images + 1) / 2, *masks, keypoints, shape, *codes, nowhere)


def head_masks(parts: Tensor) -> Tensor:
    """Parts (..., S, S) -> (..., 1, S, S) float32: face, ears and hair."""
    other = torch.tensor([PART[name] for name in NOT_HEAD], device=parts.device, dtype=parts.dtype)
    return (~torch.isin(parts, other)).float().unsqueeze(-3)


class RomePool(FramePool):
    """A pool of frames that also knows which pixels are head, and the codes; the second half are outline views.

    Args:
        photos_first: draws hold more photos before they hold outline views: for what reads or shows pictures.
    """

    def __init__(self, folder: Path, spec: PoolSpec, photos_first: bool = False) -> None:
        super().__init__(folder, spec)
        self.photos_first = photos_first
        self.outlines = spec.frames // 2
        rows, size = (self.size, spec.frames), spec.image_size
        self.parts = self._array("parts", (*rows, size, size), np.uint8)
        head = synthetic_head()
        self.lengths = (head.shape_basis.shape[2], head.expression_basis.shape[2], 6, 3)
        self.codes = self._array("codes", (*rows, sum(self.lengths)), np.float32)

    def _people(self, numbers: range) -> People:
        return draw_people(numbers, self.spec.frames, self.spec.split, outlines=self.outlines)

    def _render(self, people: range, device: str) -> HeadBatch:
        drawn, heads = self._people(people), SyntheticHeads(self.spec.image_size, self.spec.split)
        return heads.render(drawn.identity.to(device), drawn.frames.to(device), self.spec.frames)

    def draw(self, generator: np.random.Generator, people: int, frames: int) -> list[Draw]:
        """Random people: a photo of each, then outline views and then more photos, or the other way round."""
        photos = self.spec.frames - self.outlines
        draws = []
        for draw in super().draw(generator, people, self.spec.frames):
            photo = next(frame for frame in draw.frames if frame < photos)
            others = (frame for frame in draw.frames if frame != photo)
            others = sorted(others, key=lambda frame: (frame < photos) != self.photos_first)
            draws.append(Draw(draw.person, (photo, *others[: frames - 1])))
        return draws

    def _write(self, people: slice, batch: HeadBatch) -> None:
        super()._write(people, batch)
        self.parts[people] = batch.parts.cpu().numpy()
        clips = head_clips(batch, self._people(range(people.start, people.stop)))
        shape = clips.shape[:, None].expand(-1, self.spec.frames, -1)
        joined = torch.cat((shape, clips.expression, clips.pose, clips.camera), dim=2)
        self.codes[people] = joined.cpu().numpy()

    def load(self, draws: Sequence[Draw], device: str = "cpu") -> RomeClips:
        """The frames of a draw."""
        clips = super().load(draws, device)
        index = np.array([d.person for d in draws])[:, None], np.array([d.frames for d in draws])
        parts, codes = (torch.from_numpy(array[index]).to(device) for array in (self.parts, self.codes))
        shape, *moving = codes.split(self.lengths, dim=2)
        keypoints = clips.keypoints.unflatten(2, (68, 2))
        row = torch.tensor([draw.person * self.spec.frames + draw.frames[0] for draw in draws], device=device)
        return RomeClips((clips.images + 1) / 2, clips.masks, head_masks(parts), keypoints, shape[:, 0], *moving, row)


def open_pool(options: RomeTrainOptions, folder: Path, image_size: int, photos_first: bool = False) -> RomePool:
    """The pool of a run, filled; it lies beside the run's folder."""
    place = Path(folder).absolute().parent / f"pool-rome-{image_size}"
    spec = PoolSpec(image_size, options.identities, options.frames)
    if is_first():
        RomePool(place, spec).fill(options.device)
    wait_for_all()
    return RomePool(place, spec, photos_first)


def unseen_clips(size: int, people: int, frames: int, device: str = "cpu", frame_seed: int = 0) -> RomeClips:
    """The first people of the test split."""
    numbers = list(range(people))
    drawn = draw_people(numbers, frames, "test", frame_seed)
    clips = head_clips(SyntheticHeads(size, "test").render(drawn.identity, drawn.frames, frames), drawn)
    return RomeClips(**{field.name: getattr(clips, field.name).to(device) for field in fields(clips)})
