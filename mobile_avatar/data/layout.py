"""Writing the VoxCeleb2 layout that `voxceleb.VoxCelebClips` reads, one whole item at a time."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from mobile_avatar.keypoints.contract import POINT_COUNT

# The pictures come last: a reader that sees them finds the rest.
KINDS = ("segs", "keypoints", "imgs")
# Items grow here and are moved from here; readers never look into it.
WORK = ".work"
JPEG_QUALITY = 95


def item_folders(root: Path, split: str, item: str) -> list[Path]:
    """The three folders of "PERSON/VIDEO"."""
    return [root / kind / split / item for kind in KINDS]


@contextmanager
def item_writer(root: Path, split: str, item: str) -> Iterator["ItemWriter"]:
    """Collect the frames of one item in a working folder, which disappears unless `publish` is called.

    What an earlier, killed attempt at the same item left behind is removed first.
    """
    remove_work(root, split, item)
    folder = _make_work(root, _work_prefix(split, item))
    try:
        yield ItemWriter(root, split, item, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class ItemWriter:
    """Made by `item_writer`."""

    def __init__(self, root: Path, split: str, item: str, folder: Path) -> None:
        self._places = [
            (folder / kind, target) for kind, target in zip(KINDS, item_folders(root, split, item), strict=True)
        ]

    def add(self, sequence: str, name: str, image: np.ndarray, mask: np.ndarray, keypoints: np.ndarray) -> None:
        """Write one frame: uint8 (S, S, 3) RGB, uint8 (S, S) and float32 (136,) in [-1, 1]."""
        from PIL import Image

        mask_file, points_file, image_file = (self._file(part, sequence, name) for part, _ in self._places)
        Image.fromarray(mask).save(mask_file.with_suffix(".png"))
        pixels = (keypoints.reshape(POINT_COUNT, 2) + 1) / 2 * len(image)
        np.save(points_file.with_suffix(".npy"), pixels.astype(np.float32))
        # Colour at full resolution: lips and eyes are small in the crop.
        Image.fromarray(image).save(image_file.with_suffix(".jpg"), quality=JPEG_QUALITY, subsampling=0)

    def publish(self) -> None:
        """Move the item to its place, instead of an older one; between the moves, readers see no frame of it."""
        for _, target in reversed(self._places):
            shutil.rmtree(target, ignore_errors=True)
        for part, target in self._places:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(part, target)

    @staticmethod
    def _file(part: Path, sequence: str, name: str) -> Path:
        (part / sequence).mkdir(parents=True, exist_ok=True)
        # A dot in `name` would be taken for a suffix.
        return part / sequence / f"{name}.new"


def remove_work(root: Path, split: str, item: str) -> None:
    """Remove the unfinished remains of an item, and the working folder when it is empty."""
    for left in (root / WORK).glob(f"{_work_prefix(split, item)}*"):
        shutil.rmtree(left, ignore_errors=True)
    with suppress(OSError):  # other items are being written, or there is none
        (root / WORK).rmdir()


def _make_work(root: Path, prefix: str) -> Path:
    while True:
        (root / WORK).mkdir(parents=True, exist_ok=True)
        # Another shard may remove the working folder right now, because it was empty.
        with suppress(FileNotFoundError):
            return Path(tempfile.mkdtemp(prefix=prefix, dir=root / WORK))


def _work_prefix(split: str, item: str) -> str:
    return hashlib.sha256(f"{split}/{item}".encode()).hexdigest()[:16] + "-"
