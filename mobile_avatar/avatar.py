"""Avatar: one person, ready to render; everything per-person is folded into plain convolutions."""

import datetime
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file, sha256
from mobile_avatar.models.bilayer.config import BilayerConfig
from mobile_avatar.models.bilayer.folded import FoldedGenerator
from mobile_avatar.models.bilayer.inference_generator import masked, pixel_grid, warp
from mobile_avatar.models.bilayer.weights import load_state, read_safetensors

FORMAT = "mobile-avatar"
VERSION = 1
UNKNOWN_LICENSE = "unknown: ask whoever gave you the weights"
REMEDY = "make one with `mobile-avatar create PHOTO -o me.avatar`"


@dataclass(frozen=True)
class Rendered:
    """Everything a frame is made of, batch first, NCHW."""

    uv: Tensor
    """(N, 2, S, S): where each pixel reads the texture; channel 0 is x."""
    lf: Tensor
    """(N, 3, S, S) in [-1, 1]: low-frequency image."""
    hf: Tensor
    """(N, 3, S, S): the warped texture."""
    mask: Tensor
    """(N, 1, S, S) in [0, 1]."""
    image: Tensor
    """(N, 3, S, S): (lf + hf) * mask - (1 - mask), not clamped."""


@dataclass(frozen=True)
class Avatar:
    """One person: a folded generator, a texture and where they came from."""

    generator: FoldedGenerator
    """Keypoints -> delta uv, lf, mask."""
    texture: Tensor
    """(1, 3, S, S) float32; learned updates may leave [-1, 1]."""
    source_keypoints: Tensor
    """(136,) in [-1, 1]: the points of the source photo, to which built-in tracks adapt."""
    facts: dict[str, str]
    """weights_sha256, photo_sha256, license, created, ..."""

    @property
    def config(self) -> BilayerConfig:
        return self.generator.config

    @property
    def size(self) -> int:
        """Side of the image in pixels."""
        return self.config.image_size

    @torch.no_grad()
    def render(self, keypoints: Tensor) -> Rendered:
        """Keypoints (N, 136) in [-1, 1] -> all layers and the composited image."""
        delta, lf, mask = self.generator(keypoints)
        uv = pixel_grid(self.size, delta.device) + delta
        texture = self.texture.expand(keypoints.shape[0], -1, -1, -1)
        hf = warp(texture, uv.permute(0, 2, 3, 1), self.config.align_corners)
        return Rendered(uv, lf, hf, mask, masked(lf + hf, mask))

    def save(self, path: Path) -> None:
        """Write the avatar as one safetensors file, atomically."""
        state = {f"generator.{k}": v.detach().cpu().contiguous() for k, v in self.generator.state_dict().items()}
        state |= {"texture": self.texture.contiguous(), "source_keypoints": self.source_keypoints.contiguous()}
        metadata = self.facts | {
            "format": FORMAT,
            "version": str(VERSION),
            "config": json.dumps(self.config.to_dict()),
            "mask": json.dumps({"apply": True, "background": -1.0}),
            "synthetic_media": "true",
        }
        with replace_file(Path(path)) as temporary:
            save_file(state, temporary, metadata)

    @classmethod
    def load(cls, path: Path) -> "Avatar":
        """Read a `.avatar` file; never unpickles.

        Raises BadInput for a missing, truncated, foreign or newer file, naming it and the remedy.
        """
        path = Path(path)
        metadata, state = read_safetensors(path, FORMAT, VERSION, ".avatar", REMEDY)
        config = BilayerConfig.from_dict(json.loads(metadata.pop("config")), str(path))
        generator = FoldedGenerator(config).eval().requires_grad_(False)
        texture, points = (state.pop(name, None) for name in ("texture", "source_keypoints"))
        for name, value, shape in (
            ("texture", texture, (1, 3, config.image_size, config.image_size)),
            ("source_keypoints", points, (136,)),
        ):
            if value is None or tuple(value.shape) != shape or not torch.isfinite(value).all():
                raise BadInput(f"{path}: {name} is missing, of a wrong shape or not finite; {REMEDY}")
        load_state(generator, {key.removeprefix("generator."): value for key, value in state.items()}, path)
        for key in ("format", "version", "mask", "synthetic_media"):
            metadata.pop(key, None)
        metadata.setdefault("license", UNKNOWN_LICENSE)
        return cls(generator, texture.float(), points.float(), metadata)

    def describe(self) -> dict:
        """What a manifest says of the avatar."""
        return self.facts | {"format_version": VERSION, "config": self.config.to_dict()}


def avatar_facts(weights: Path, weights_facts: dict[str, str], photo: Path | None) -> dict[str, str]:
    """Metadata of a new avatar: hashes of what it was made from, never the photo itself."""
    facts = {
        "weights_sha256": sha256(weights),
        "license": weights_facts.get("license", UNKNOWN_LICENSE),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return facts | ({"photo_sha256": sha256(photo)} if photo else {})
