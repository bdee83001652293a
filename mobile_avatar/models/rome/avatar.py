"""A ROME avatar: one person with everything that a frame needs, as one file."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file
from mobile_avatar.models.bilayer.weights import load_state, read_safetensors
from mobile_avatar.models.rome.avatar_mesh import AvatarMesh
from mobile_avatar.models.rome.batch_norms import fold_batch_norms
from mobile_avatar.models.rome.compact_renderer import TEXTURE, CompactConfig, CompactRenderer
from mobile_avatar.models.rome.feature_image import feature_image
from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.mobilenet_v2 import MobileNetV2
from mobile_avatar.models.rome.model import Person
from mobile_avatar.models.rome.networks import RomeNetworks

FORMAT = "mobile-avatar-rome-avatar"
VERSION = 1
REMEDY = "make one with `mobile-avatar create --model rome`"
OWN = ("format", "version", "config", "synthetic_media")
CODES = 9  # behind the expression: rotations of head and jaw, camera
LARGEST_PICTURE = 2048  # pixels a side of what the encoder reads
LARGEST = 1_000_000  # vertices, faces, texels a side: a damaged file must not allocate the machine away


@dataclass(frozen=True)
class RomeFrame:
    """One frame and what it was made from."""

    positions: Tensor
    """(1, w, 3), see `AvatarMesh`."""
    normals: Tensor
    """(1, w, 3)."""
    features: Tensor
    """(1, 12, S, S), see `feature_image`."""
    rgba: Tensor
    """(1, 4, S, S) in [0, 1]: RGB, not multiplied by the mask, and the mask."""


@dataclass(frozen=True)
class RomeAvatar:
    """One person. All networks are folded and frozen."""

    encoder: MobileNetV2
    """Frame (1, 3, E, E) in [0, 1] -> codes (1, e + 9)."""
    mesh: AvatarMesh
    """Codes -> positions and normals of drawn vertices; shape and offsets are constants in it."""
    texture: Tensor
    """(1, 8, T, T) neural texture, unbounded."""
    renderer: CompactRenderer
    """Feature image (1, 12, S, S) -> RGBA."""
    source_codes: Tensor
    """(e + 9,): the codes of the photo, from which built-in tracks start."""
    encoder_size: int
    """Side E of the frames that the encoder reads, in pixels: it needs less to see than the renderer shows."""
    encoder_width: float = 1.0
    """Factor on the channels of the encoder."""
    facts: dict[str, str] = field(default_factory=dict)
    """weights_sha256, photo_sha256, license, created, ..."""

    def __post_init__(self) -> None:
        codes, side = self.mesh.expressions + CODES, self.texture.shape[-1]
        wanted = {"texture": (1, TEXTURE, side, side), "source_codes": (codes,)}
        for name, shape in wanted.items():
            if tuple(getattr(self, name).shape) != shape:
                raise BadInput(f"{name} of this avatar is {tuple(getattr(self, name).shape)}, expected {shape}")
        if self.encoder.classifier[1].out_features != codes:
            raise BadInput(f"the encoder gives {self.encoder.classifier[1].out_features} codes, the mesh takes {codes}")

    @classmethod
    def of(
        cls,
        networks: RomeNetworks,
        head: HeadModel,
        person: Person,
        renderer: CompactRenderer,
        source_codes: Tensor,
        facts: dict[str, str],
    ) -> "RomeAvatar":
        """The avatar of one person of a linear mode.

        Args:
            networks: their frame regressor becomes the encoder.
            head: the head model that the networks were made for.
            person: with offsets; a single one.
            renderer: as trained, not folded.
            source_codes: (e + 9,) of the photo.
            facts: see the field; the licence is that of all that went in, the head model included.
        """
        if person.offsets is None or len(person.texture) != 1:
            raise BadInput("an avatar is made of one person of a linear ROME mode")
        encoder = fold_batch_norms(networks.part("frame_regressor"))
        mesh = AvatarMesh.of(head, person.shape, person.offsets)
        config = networks.config
        drawn = (mesh, person.texture, renderer.fold(), source_codes)
        return cls(encoder, *drawn, config.frame_side, config.mobilenet_width, facts)

    @property
    def size(self) -> int:
        """Side of the picture in pixels."""
        return self.renderer.config.image_size

    @torch.no_grad()
    def features(self, positions: Tensor, normals: Tensor) -> Tensor:
        """(n, w, 3) each -> feature images (n, 12, S, S), drawn by the software rasteriser."""
        return feature_image(positions, normals, self.mesh.corners.long(), self.mesh.uv, self.texture, self.size)

    @torch.no_grad()
    def render(self, codes: Tensor) -> RomeFrame:
        """One frame from codes (1, e + 9)."""
        positions, normals = self.mesh(codes)
        features = self.features(positions, normals)
        return RomeFrame(positions, normals, features, self.renderer(features))

    def save(self, path: Path) -> None:
        """Write the avatar as one safetensors file, atomically."""
        state = {"texture": self.texture, "source_codes": self.source_codes}
        for name in ("encoder", "mesh", "renderer"):
            state |= {f"{name}.{key}": value for key, value in getattr(self, name).state_dict().items()}
        state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
        own = {
            "format": FORMAT,
            "version": str(VERSION),
            "config": json.dumps(self.config),
            "synthetic_media": "true",
        }
        with replace_file(Path(path)) as temporary:
            save_file(state, temporary, self.facts | own)

    @property
    def config(self) -> dict:
        """The numbers that fix every shape, for metadata and manifests."""
        return {
            "vertices": len(self.mesh.vertex),
            "triangles": len(self.mesh.corners),
            "expressions": self.mesh.expressions,
            "encoder_size": self.encoder_size,
            "encoder_width": self.encoder_width,
            # Unbounded in training, but known once the avatar is made; at least 1, which normals and coverage reach.
            "texture_limit": max(1.0, float(self.texture.abs().max())),
            "renderer": self.renderer.config.to_dict(),
        }

    @classmethod
    def load(cls, path: Path) -> "RomeAvatar":
        """Read an avatar; never unpickles.

        Raises BadInput for a missing, truncated, foreign or newer file, naming it and the remedy.
        """
        path = Path(path)
        metadata, state = read_safetensors(path, FORMAT, VERSION, "ROME avatar", REMEDY)
        parts = _empty_parts(json.loads(metadata["config"]), str(path))
        for name in ("texture", "source_codes"):
            if name not in state or not state[name].isfinite().all():
                raise BadInput(f"{path}: {name} is missing or not finite; {REMEDY}")
        texture, codes = (state.pop(name).float() for name in ("texture", "source_codes"))
        for name in ("encoder", "mesh", "renderer"):
            prefix = f"{name}."
            own = {key.removeprefix(prefix): state.pop(key) for key in list(state) if key.startswith(prefix)}
            load_state(parts[name], own, path)
        if state:
            raise BadInput(f"{path}: unknown tensor {next(iter(state))}; it was written by another version")
        mesh = parts["mesh"]
        for name in ("vertex", "corners"):
            values = getattr(mesh, name)
            if not (values.min() >= 0 and values.max() < len(mesh.vertex)):
                raise BadInput(f"{path}: mesh.{name} numbers vertices that are not there; {REMEDY}")
        mesh.ready()
        facts = {key: value for key, value in metadata.items() if key not in OWN}
        return cls(**parts, texture=texture, source_codes=codes, facts=facts)

    def describe(self) -> dict:
        """What a manifest says of the avatar."""
        return self.facts | {"format_version": VERSION, "model": "rome", "config": self.config}


def is_rome_avatar(path: Path) -> bool:
    """Whether a file says that it is one; what is no readable file at all is left to the loaders to explain."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def _empty_parts(config: dict, source: str) -> dict:
    """Structures of the given sizes, in the names of RomeAvatar's fields; BadInput when a size is impossible."""
    try:
        sizes = [config[name] for name in ("vertices", "triangles", "expressions")]
        side, width, renderer = config["encoder_size"], config["encoder_width"], config["renderer"]
    except KeyError as error:
        raise BadInput(f"{source} does not say its {error.args[0]}; {REMEDY}") from error
    if any(type(size) is not int or not 1 <= size <= LARGEST for size in sizes) or sizes[2] > 1000:
        raise BadInput(f"{source} has impossible sizes {sizes}; {REMEDY}")
    if type(side) is not int or not 8 <= side <= LARGEST_PICTURE:
        raise BadInput(f"{source} has an impossible encoder_size {side!r}; {REMEDY}")
    if type(width) not in (int, float) or not 0.1 <= width <= 4:
        raise BadInput(f"{source} has an impossible encoder_width {width!r}; {REMEDY}")
    return {
        "encoder": fold_batch_norms(MobileNetV2(sizes[2] + CODES, width)),
        "mesh": AvatarMesh(*sizes),
        "renderer": CompactRenderer.folded(CompactConfig.from_dict(renderer, source)),
        "encoder_size": side,
        "encoder_width": width,
    }
