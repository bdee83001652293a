"""A pool of synthetic frames on disk: rendered once, sampled many times by training."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mobile_avatar.data.clips import Clips, Draw
from mobile_avatar.data.synthetic import SyntheticHeads
from mobile_avatar.errors import BadInput

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
    """Memory-mapped frames; filling can be interrupted and goes on where it stopped."""

    def __init__(self, folder: Path, spec: PoolSpec) -> None:
        self.folder, self.spec = Path(folder), spec
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = self.folder / "pool.json"
        if stored.exists() and json.loads(stored.read_text())["spec"] != asdict(spec):
            raise BadInput(f"{stored} was made with other options; remove the folder or choose another --run")
        n, f, s = spec.identities, spec.frames, spec.image_size
        self.images = self._array("images", (n, f, 3, s, s), np.uint8)
        self.masks = self._array("masks", (n, f, 1, s, s), np.uint8)
        self.keypoints = self._array("keypoints", (n, f, 136), np.float32)
        self.texture_uv = self._array("texture_uv", (n, f, 2, s, s), np.float16)
        self.done = json.loads(stored.read_text())["done"] if stored.exists() else 0

    def _array(self, name: str, shape: tuple[int, ...], dtype: type) -> np.memmap:
        path = self.folder / f"{name}.raw"
        return np.memmap(path, dtype, "r+" if path.exists() else "w+", shape=shape)

    def fill(self, device: str = "cpu") -> None:
        """Render what is missing."""
        heads = SyntheticHeads(self.spec.image_size, self.spec.split)
        bar = tqdm(total=self.spec.identities, initial=self.done, desc="synthetic identities", mininterval=5)
        while self.done < self.spec.identities:
            stop = min(self.done + CHUNK, self.spec.identities)
            batch = heads.sample(list(range(self.done, stop)), self.spec.frames, device=device)
            self.images[self.done : stop] = _to_bytes((batch.images + 1) / 2)
            self.masks[self.done : stop] = _to_bytes(batch.masks)
            self.keypoints[self.done : stop] = batch.keypoints.cpu().numpy()
            self.texture_uv[self.done : stop] = batch.texture_uv.cpu().numpy()
            bar.update(stop - self.done)
            self.done = stop
            state = {"spec": asdict(self.spec), "done": self.done}
            (self.folder / "pool.json").write_text(json.dumps(state))
        bar.close()

    @property
    def image_size(self) -> int:
        return self.spec.image_size

    def draw(self, generator: np.random.Generator, people: int, frames: int) -> list[Draw]:
        """Random people, different random frames of each."""
        who = generator.choice(self.done, people, replace=False).tolist()
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
