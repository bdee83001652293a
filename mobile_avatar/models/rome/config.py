"""The numbers that define a ROME model."""

import dataclasses
from dataclasses import dataclass

from mobile_avatar.errors import BadInput
from mobile_avatar.models.config_fields import config_from_dict
from mobile_avatar.models.rome.encoding import OCTAVES

LARGEST = 2048  # of any width: a damaged or hostile file must not allocate the machine away
LEVELS = 4  # resolutions of every network
GLOBAL_AND_JAW = 6
CAMERA = 3


@dataclass(frozen=True)
class RomeConfig:
    """Widths of all networks and lengths of all codes (Khakhulin et al., ECCV 2022; defaults are the released ones)."""

    image_size: int = 256
    """Side of images, textures and maps over the mesh, in pixels; a multiple of 8."""
    tex_channels: int = 64
    """Texture encoder: inner channels at full resolution (blocks carry four times as many), doubled per level ..."""
    tex_max_channels: int = 512
    """... up to this many."""
    tex_outputs: int = 8
    """Channels of the neural texture."""
    geom_channels: int = 64
    """Geometry U-Net: channels at full resolution, doubled per level ..."""
    geom_max_channels: int = 512
    """... up to this many."""
    geom_outputs: int = 32
    """Channels of the latent geometry map."""
    mlp_channels: int = 256
    """Hidden width of the network that moves vertices."""
    img_channels: int = 64
    """Rendering U-Net: channels at full resolution, doubled per level ..."""
    img_max_channels: int = 512
    """... up to this many."""
    norm_groups: int = 32
    """Groups of every group norm, or one per channel where there are fewer channels, which hides from narrow networks
    how strong a feature is in the whole picture."""
    octaves: int = OCTAVES
    """Of all harmonic encodings."""
    n_shape: int = 100
    """Shape coefficients of the head model."""
    n_exp: int = 50
    """Expression coefficients of the head model."""
    n_basis: int = 60
    """Coefficients of the linear basis of hair and shoulders."""
    n_vertices: int = 5023
    """Vertices of the head model."""
    resnet_channels: int = 64
    """ResNet-50 regressors: channels of the stem, 64 in the standard network."""
    mobilenet_width: float = 1.0
    """MobileNetV2 regressor: factor on all widths, 1 in the standard network."""
    photo_shape: bool = False
    """The basis regressor also gives the shape, behind the basis' coefficients (thesis); released: DECA's does."""
    frame_size: int = 0
    """Side in pixels of the frames that the per-frame regressor reads; 0 for image_size."""

    def __post_init__(self) -> None:
        if not 8 <= self.image_size <= LARGEST or self.image_size % 2 ** (LEVELS - 1):
            raise BadInput(f"image_size {self.image_size} is not a multiple of 8 from 8 to {LARGEST}")
        if self.frame_size and not 8 <= self.frame_size <= LARGEST:
            raise BadInput(f"frame_size {self.frame_size} is not between 8 and {LARGEST}, or 0")
        counts = ("tex_outputs", "geom_outputs", "mlp_channels", "n_shape", "n_exp", "n_basis", "resnet_channels")
        for name in (*counts, "norm_groups"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise BadInput(f"{name} {getattr(self, name)} is not between 1 and {LARGEST}")
        for network in ("tex", "geom", "img"):
            first, top = getattr(self, f"{network}_channels"), getattr(self, f"{network}_max_channels")
            for width in {min(first * 2**level, top) for level in range(LEVELS)}:
                if not 1 <= width <= LARGEST or (width > self.norm_groups and width % self.norm_groups):
                    raise BadInput(
                        f"{network}_channels {first} up to {top} gives {width} channels, but group norms need "
                        f"at most {self.norm_groups} or a multiple of {self.norm_groups}, up to {LARGEST}"
                    )
        if not 0 <= self.octaves <= 16:
            raise BadInput(f"octaves {self.octaves} is not between 0 and 16")
        if not 1 <= self.n_vertices <= 1_000_000:
            raise BadInput(f"n_vertices {self.n_vertices} is not between 1 and a million")
        if not 0.1 <= self.mobilenet_width <= 4:
            raise BadInput(f"mobilenet_width {self.mobilenet_width} is not between 0.1 and 4")

    def encoded(self, numbers: int) -> int:
        """Channels of the harmonic encoding of so many numbers: 39 for 3, 26 for 2."""
        return numbers * (1 + 2 * self.octaves)

    @property
    def map_channels(self) -> int:
        """Inputs of both U-Nets: the texture and three encoded numbers per pixel (47)."""
        return self.tex_outputs + self.encoded(3)

    @property
    def point_channels(self) -> int:
        """Inputs of the vertex network: the latent map and the encoded place in the texture (58)."""
        return self.geom_outputs + self.encoded(2)

    @property
    def frame_codes(self) -> tuple[int, int, int]:
        """What the per-frame regressor gives, in its order: expression, global and jaw rotation, camera."""
        return self.n_exp, GLOBAL_AND_JAW, CAMERA

    @property
    def frame_side(self) -> int:
        """Side in pixels of the frames that the per-frame regressor reads."""
        return self.frame_size or self.image_size

    def to_dict(self) -> dict:
        """Plain numbers, for metadata."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict, source: str = "model config") -> "RomeConfig":
        """The reverse of `to_dict`; BadInput names `source` when a field is unknown or of the wrong type."""
        return config_from_dict(cls, values, source)
