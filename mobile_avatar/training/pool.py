"""A pool of synthetic frames on disk: rendered once, sampled many times by training."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.data.clips import Clips, Draw
from mobile_avatar.data.synthetic.heads import HeadBatch
from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file
from mobile_avatar.progress import progress

CHUNK = 4  # identities rendered at once


@dataclass(frozen=True)
class PoolSpec:
    """What is in a pool; a folder made for another spec is refused."""

    image_size: int
    identities: int
    frames: int
    """Frames per identity."""
    split: str = "train"


class FramePool:
    """Memory-mapped frames; filling can be interrupted and goes on where it stopped.

    A pool of more people than asked for serves as well, and one of fewer grows: people are numbered by their seed.
    """

    def __init__(self, folder: Path, spec: PoolSpec) -> None:
        """Raises BadInput for a folder that was made for other pictures."""
        self.folder, self.spec = Path(folder), spec
        self.folder.mkdir(parents=True, exist_ok=True)
        self.done, made = self._stored()
        if made is not None and made | {"identities": 0} != asdict(spec) | {"identities": 0}:
            raise BadInput(f"{self.folder} was made with other options; remove the folder or choose another --run")
        self.size = max(spec.identities, made["identities"] if made else 0)
        n, f, s = self.size, spec.frames, spec.image_size
        self.images = self._array("images", (n, f, 3, s, s), np.uint8)
        self.masks = self._array("masks", (n, f, 1, s, s), np.uint8)
        self.keypoints = self._array("keypoints", (n, f, 136), np.float32)
        self.texture_uv = self._array("texture_uv", (n, f, 2, s, s), np.float16)

    def _stored(self) -> tuple[int, dict | None]:
        """How many people are finished, and for which spec the files were made."""
        stored = self.folder / "pool.json"
        if not stored.exists():
            return 0, None
        state = json.loads(stored.read_text())
        return state["done"], state["spec"]

    def _array(self, name: str, shape: tuple[int, ...], dtype: type) -> np.memmap:
        # The person is the first axis, so a longer file holds the same people and more.
        path, length = self.folder / f"{name}.raw", int(np.prod(shape)) * np.dtype(dtype).itemsize
        with open(path, "ab") as file:
            if file.tell() < length:
                file.truncate(length)
        return np.memmap(path, dtype, "r+", shape=shape)

    def fill(self, device: str = "cpu") -> None:
        """Render what is missing."""
        count = self.spec.identities
        starts = range(self.done, count, CHUNK)
        chunks = len(range(0, count, CHUNK))
        for start in progress(starts, chunks, "rendering people", True, chunks - len(starts), CHUNK):
            stop = min(start + CHUNK, count)
            self._write(slice(start, stop), self._render(range(start, stop), device))
            # Another run may have gone further meanwhile.
            done, made = self._stored()
            self.done, size = max(stop, done), max(self.size, made["identities"] if made else 0)
            with replace_file(self.folder / "pool.json") as temporary:
                temporary.write_text(json.dumps({"spec": asdict(self.spec) | {"identities": size}, "done": self.done}))

    def _render(self, people: range, device: str) -> HeadBatch:
        """The frames of some people."""
        from mobile_avatar.data.synthetic import SyntheticHeads

        heads = SyntheticHeads(self.spec.image_size, self.spec.split)
        return heads.sample(list(people), self.spec.frames, device=device)

    def _write(self, people: slice, batch: HeadBatch) -> None:
        """Store the frames of some people."""
        self.images[people] = _to_bytes((batch.images + 1) / 2)
        self.masks[people] = _to_bytes(batch.masks)
        self.keypoints[people] = batch.keypoints.cpu().numpy()
        self.texture_uv[people] = batch.texture_uv.cpu().numpy()

    @property
    def image_size(self) -> int:
        return self.spec.image_size

    def draw(self, generator: np.random.Generator, people: int, frames: int) -> list[Draw]:
        """Random people, different random frames of each."""
        who = generator.choice(self.spec.identities, people, replace=False).tolist()
        return [Draw(p, tuple(generator.choice(self.spec.frames, frames, replace=False).tolist())) for p in who]

    def load(self, draws: Sequence[Draw], device: str = "cpu") -> Clips:
        """The frames of a draw."""
        index = np.array([d.person for d in draws])[:, None], np.array([d.frames for d in draws])

        def take(array: np.memmap) -> Tensor:
            return torch.from_numpy(array[index]).to(device)

        images, masks = take(self.images).float() / 127.5 - 1, take(self.masks).float() / 255
        return Clips(images, masks, take(self.keypoints), take(self.texture_uv).float())


def _to_bytes(values: Tensor) -> np.ndarray:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
