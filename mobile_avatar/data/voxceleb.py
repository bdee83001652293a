"""Datasets on disk in the layout of VoxCeleb2: one item per person and video, read frame by frame.

    ROOT/imgs/SPLIT/PERSON/VIDEO/SEQUENCE/FRAME.jpg        square crops (.png is read, too)
    ROOT/keypoints/SPLIT/PERSON/VIDEO/SEQUENCE/FRAME.npy   68 points in pixels of the stored crop
    ROOT/segs/SPLIT/PERSON/VIDEO/SEQUENCE/FRAME.png        soft masks, white is the person

Files come from outside: nothing is unpickled, sizes are bounded before decoding, links are not followed.
"""

import math
import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mobile_avatar.data.clips import Clips, Draw
from mobile_avatar.errors import BadInput
from mobile_avatar.images import SMALLEST_SIDE
from mobile_avatar.keypoints.contract import POINT_COUNT, VECTOR_SIZE, check_keypoints

KINDS = {"imgs": (".jpg", ".jpeg", ".png"), "keypoints": (".npy",), "segs": (".png",)}
SPLITS = ("train", "test")
LARGEST_SIDE = 4096
LARGEST_SIZE = 1024
LARGEST_KEYPOINTS_BYTES = 1_000_000
# Steps of a low-discrepancy sequence: frames of one draw lie far apart without a plan for how many there are.
STEP = math.sqrt(5)
# Decoding leaves the interpreter free, so a few threads keep up with a GPU.
READERS = 8


class Frame(NamedTuple):
    """Where a frame lies below its person and video."""

    sequence: str
    """Name of the stretch without a cut; its frames share one crop."""
    name: str
    """File name without suffix."""


class VoxCelebClips:
    """A `ClipSource` over one split of a dataset; folders of frames are listed when they are first needed.

    Attributes:
        people: "PERSON/VIDEO" of every item, sorted; `Draw.person` counts in it.
        image_size: side S of the pictures that `load` returns.
        unreadable: how many times a damaged frame was met; another one of its item takes its place.
    """

    def __init__(self, root: str | Path, split: str = "train", image_size: int = 256) -> None:
        """Raises BadInput when `root` is not such a dataset or has no people in `split`, or for a bad `image_size`."""
        if split not in SPLITS:
            raise BadInput(f"unknown split {split!r} of a dataset: use one of {', '.join(SPLITS)}")
        if not SMALLEST_SIDE <= image_size <= LARGEST_SIZE:
            raise BadInput(f"datasets cannot be read at {image_size} px: use {SMALLEST_SIDE} to {LARGEST_SIZE}")
        self.root, self.split, self.image_size = Path(root), split, image_size
        self.unreadable = 0
        self._folders = {kind: _folder(self.root, kind, split) for kind in KINDS}
        images = self._folders["imgs"]
        self.people = [f"{person}/{video}" for person in _folders_in(images) for video in _folders_in(images / person)]
        if not self.people:
            raise BadInput(f"{images}: no PERSON/VIDEO folders in this split; make some with `mobile-avatar prepare`")
        self._frames: dict[int, tuple[Frame, ...]] = {}
        self._files: dict[tuple[int, Frame], str] = {}

    def frames_of(self, person: int) -> tuple[Frame, ...]:
        """All frames of an item that have a picture, keypoints and a mask, in order; `Draw.frames` counts in it.

        Raises:
            BadInput: there is none.
        """
        if person not in self._frames:
            stems = [self._listing(kind, person) for kind in KINDS]
            frames = tuple(sorted(set.intersection(*map(set, stems))))
            if not frames:
                raise BadInput(
                    f"{self._folders['imgs'] / self.people[person]}: no frame has a picture, keypoints and a mask; "
                    "prepare this video again or remove its folder"
                )
            self._files.update({(person, frame): stems[0][frame] for frame in frames})
            self._frames[person] = frames
        return self._frames[person]

    def draw(self, generator: np.random.Generator, people: int, frames: int) -> list[Draw]:
        """Random people and frames far apart in time; only `generator` decides, nothing is remembered.

        Everybody is drawn once before anybody comes twice; a frame comes twice only where there are too few.

        Raises:
            BadInput: a drawn person has no complete frame.
        """
        rounds = -(-people // len(self.people))
        who = np.concatenate([generator.permutation(len(self.people)) for _ in range(rounds)])[:people]
        return [self._draw_frames(int(person), float(generator.random()), frames) for person in who]

    def load(self, draws: Sequence[Draw], device: str = "cpu") -> Clips:
        """Read the frames of a draw; every draw must have the same number of them.

        An unreadable frame is replaced by the next readable one of its item, which is said on stderr.

        Raises:
            BadInput: a drawn person has no readable frame.
        """
        wanted = [(draw.person, index) for draw in draws for index in draw.frames]
        with ThreadPoolExecutor(min(READERS, len(wanted), os.cpu_count() or 1)) as pool:
            read = list(pool.map(lambda item: self._read_or_next(*item), wanted))
        for _, errors in read:
            self._complain(errors)
        shape, size = (len(draws), len(draws[0].frames)), self.image_size
        arrays = zip(*(frame for frame, _ in read), strict=True)
        images, masks, keypoints = (torch.from_numpy(np.stack(array)) for array in arrays)
        return Clips(
            images.view(*shape, 3, size, size).to(device),
            masks.view(*shape, 1, size, size).to(device),
            keypoints.view(*shape, VECTOR_SIZE).to(device),
        )

    def _draw_frames(self, person: int, u: float, count: int) -> Draw:
        last = len(self.frames_of(person)) - 1
        chosen: list[int] = []
        while len(chosen) < count:
            index = round(u * last)
            if index not in chosen or len(chosen) > last:
                chosen.append(index)
            u = (u + STEP) % 1
        return Draw(person, tuple(chosen))

    def _listing(self, kind: str, person: int) -> dict[Frame, str]:
        """Frame to file name, of one kind of file."""
        folder = self._folders[kind] / self.people[person]
        found = {}
        for sequence in _folders_in(folder):
            with os.scandir(folder / sequence) as entries:
                for entry in entries:
                    stem, suffix = os.path.splitext(entry.name)
                    if suffix.lower() in KINDS[kind] and entry.is_file(follow_symlinks=False) and stem[0] != ".":
                        found[Frame(sequence, stem)] = entry.name
        return found

    def _read_or_next(self, person: int, index: int) -> tuple[tuple[np.ndarray, ...], list[BadInput]]:
        """A frame as `_read` returns it, and what was wrong with the frames before it."""
        frames, errors = self.frames_of(person), []
        for offset in range(len(frames)):
            try:
                return self._read(person, frames[(index + offset) % len(frames)]), errors
            except BadInput as error:
                errors.append(error)
        raise BadInput(
            f"{self._folders['imgs'] / self.people[person]}: none of {len(frames)} frames can be read; "
            "prepare this video again or remove its folder"
        )

    def _complain(self, errors: list[BadInput]) -> None:
        """Say the first of them, and later only how many there were."""
        for error in errors:
            self.unreadable += 1
            if self.unreadable == 1:
                print(f"{error}; another frame takes its place", file=sys.stderr)
            elif math.log10(self.unreadable).is_integer():
                print(f"{self.root}: unreadable frames were met {self.unreadable} times so far", file=sys.stderr)

    def _read(self, person: int, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image (3, S, S) in [-1, 1], mask (1, S, S) in [0, 1], keypoints (136,) in [-1, 1]; all float32."""
        place = Path(self.people[person], frame.sequence)
        picture = self._folders["imgs"] / place / self._files[person, frame]
        image, width = _read_square(picture, "RGB", self.image_size)
        mask, _ = _read_square(self._folders["segs"] / place / f"{frame.name}.png", "L", self.image_size)
        points = _read_points(self._folders["keypoints"] / place / f"{frame.name}.npy", width)
        return image.transpose(2, 0, 1) / np.float32(127.5) - 1, mask[None] / np.float32(255), points


def _folder(root: Path, kind: str, split: str) -> Path:
    folder = root / kind / split
    if not root.is_dir():
        raise BadInput(f"{root}: there is no such dataset folder")
    if not folder.is_dir():
        remedy = {
            "imgs": "this is not a dataset in the layout of VoxCeleb2, see docs/prepare.md",
            "keypoints": "every picture needs its 68 keypoints; make them with `mobile-avatar prepare` from the videos",
            "segs": "every picture needs a mask of the person; make them with `mobile-avatar prepare` from the videos",
        }[kind]
        raise BadInput(f"{folder}: this folder is missing; {remedy}")
    if not folder.resolve().is_relative_to(root.resolve()):
        raise BadInput(f"{folder} is a link that leads out of {root}; links are not followed, move the folder there")
    return folder


def _folders_in(folder: Path) -> list[str]:
    """Sorted names of real folders; hidden ones are work in progress."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith("."))


def _read_square(path: Path, mode: str, size: int) -> tuple[np.ndarray, int]:
    """A square picture at `size`, float32 (S, S[, 3]) in 0 to 255, and the side it is stored with."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=("JPEG", "PNG")) as image:
                width, height = image.size
                if width != height or width > LARGEST_SIDE:
                    raise BadInput(f"{path}: {width}x{height} pixels, but square crops of at most {LARGEST_SIDE} go in")
                resized = image.convert(mode).resize((size, size), Image.Resampling.BICUBIC)
                return np.asarray(resized, dtype=np.float32), width
        except BadInput:
            raise
        except Exception as error:  # damaged files raise whatever the format's reader stumbles over
            raise BadInput(f"{path}: the picture is damaged and cannot be read") from error


def _read_points(path: Path, width: int) -> np.ndarray:
    """Keypoints in pixels of a crop, as float32 (136,) in [-1, 1]."""
    try:
        if path.stat().st_size > LARGEST_KEYPOINTS_BYTES:
            raise BadInput(f"{path}: too large for the keypoints of one frame")
        # Mapped, a header that promises more than the file holds is an error instead of an allocation.
        points = np.array(np.load(path, mmap_mode="r", allow_pickle=False)[:POINT_COUNT, :2], dtype=np.float64)
    except BadInput:
        raise
    except Exception as error:  # as above
        raise BadInput(f"{path}: not a readable .npy file of keypoints, (68, 2) or more") from error
    return check_keypoints((2 * points / width - 1).astype(np.float32), str(path))[0]
