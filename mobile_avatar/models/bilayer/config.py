"""The numbers that define a bi-layer model, and the named members of its family."""

import dataclasses
import math
from dataclasses import dataclass, replace

from mobile_avatar.errors import BadInput
from mobile_avatar.models.config_fields import config_from_dict

EPS = 1e-7  # batch norm and spectral norm of the official code; 1e-5 visibly changes its outputs
SLOPE = 0.2  # every leaky ReLU
BASE_SIZE = 4  # both generators start at 4x4
LARGEST = 2048  # of any size or width: a damaged or hostile file must not allocate the machine away
EMBEDDING_SIZE = 8  # identity embeddings are 8x8
INF_SCALES = (1, 2, 4)
INF_ACTIVATIONS = ("leaky_relu", "relu")


@dataclass(frozen=True)
class BilayerConfig:
    """Capacities and options of all six networks (Zakharov et al., ECCV 2020; defaults are the released ones)."""

    image_size: int = 256
    """Side of images, textures and masks in pixels: a power of two, at least 64."""
    emb_channels: int = 64
    """Identity embedder: channels after its first convolution, doubled per level ..."""
    emb_max_channels: int = 512
    """... up to this many."""
    tex_channels: int = 64
    """Texture generator: channels at full resolution, doubled per level going down ..."""
    tex_max_channels: int = 512
    """... up to this many."""
    inf_channels: int = 32
    """Inference generator: channels at full resolution ..."""
    inf_max_channels: int = 256
    """... and at most."""
    inf_scale: int = 1
    """It stops at image_size / inf_scale and leaves the rest to a bilinear step: all that it decodes is smooth."""
    inf_activation: str = "leaky_relu"
    """Activation of all per-frame layers: `leaky_relu` (official) or `relu`, which runtimes fuse and quantise best."""
    pose_channels: int = 256
    """Hidden width of the keypoints embedder."""
    pose_blocks: int = 4
    """Number of its linear layers."""
    num_harmonics: int = 0
    """Harmonic encoding of keypoints: 0 is off (the released weights), 4 is the official 'on'."""
    enh_channels: int = 64
    """Texture updater: channels at full resolution ..."""
    enh_max_channels: int = 128
    """... and at most."""
    enh_bottleneck: int = 128
    """Side of the updater's bottleneck in pixels."""
    enh_blocks: int = 8
    """Residual blocks at the bottleneck."""
    dis_channels: int = 64
    """Discriminator: channels after its first convolution ..."""
    dis_max_channels: int = 512
    """... and at most."""
    dis_blocks: int = 6
    """Residual blocks of the discriminator, those that keep the resolution included."""
    tex_spade: bool = True
    """Adaptive SPADE in the texture generator; off (the ablation of thesis table 5.1): adaptive batch norm."""
    adaptive_skips: bool = True
    """Skips of both generators are predicted per person; off (same ablation): learned 1x1 convolutions."""
    align_corners: bool = False
    """`grid_sample` convention of the warp; which one trained the released weights is not known."""

    def __post_init__(self) -> None:
        size = self.image_size
        if not 64 <= size <= LARGEST or size & (size - 1):
            raise BadInput(f"image_size {size} is not a power of two from 64 to {LARGEST}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith(("channels", "blocks")) and not 1 <= value <= LARGEST:
                raise BadInput(f"{field.name} {value} is not between 1 and {LARGEST}")
        if not EMBEDDING_SIZE <= self.enh_bottleneck <= size:
            raise BadInput(f"enh_bottleneck {self.enh_bottleneck} is not between {EMBEDDING_SIZE} and {size}")
        if self.inf_scale not in INF_SCALES:
            raise BadInput(f"inf_scale {self.inf_scale} is not one of {', '.join(map(str, INF_SCALES))}")
        if self.inf_activation not in INF_ACTIVATIONS:
            raise BadInput(f"inf_activation {self.inf_activation!r} is not one of {', '.join(INF_ACTIVATIONS)}")
        if not 0 <= self.num_harmonics <= 16:
            raise BadInput(f"num_harmonics {self.num_harmonics} is not between 0 and 16")

    @property
    def num_blocks(self) -> int:
        """Blocks of a generator that decodes to full size: 6 at 256 px."""
        return int(math.log2(self.image_size // BASE_SIZE))

    @property
    def inf_blocks(self) -> int:
        """Blocks of the inference generator."""
        return self.num_blocks - int(math.log2(self.inf_scale))

    @property
    def emb_widths(self) -> list[int]:
        """Channels of embedding i, from the deepest (i = 0) to the shallowest."""
        return [
            widen(self.emb_channels, self.num_blocks - 1 - i, self.emb_max_channels) for i in range(self.num_blocks)
        ]

    def at_size(self, size: int) -> "BilayerConfig":
        """The same widths at another image size; the updater's bottleneck and the discriminator's depth follow."""
        levels = (size // EMBEDDING_SIZE).bit_length() - (self.image_size // EMBEDDING_SIZE).bit_length()
        return replace(
            self,
            image_size=size,
            enh_bottleneck=max(EMBEDDING_SIZE, self.enh_bottleneck * size // self.image_size),
            dis_blocks=self.dis_blocks + levels,
        )

    def to_dict(self) -> dict:
        """Plain numbers, for metadata."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict, source: str = "model config") -> "BilayerConfig":
        """The reverse of `to_dict`; BadInput names `source` when a field is unknown or of the wrong type."""
        return config_from_dict(cls, values, source)


def widen(channels: int, level: int, maximum: int) -> int:
    """Channels `level` halvings below full resolution: doubled each time, capped."""
    return min(channels * 2**level, maximum)


# All networks slim, so that it trains on a CPU and creates an avatar in a second: the shipped default.
_COMPACT = BilayerConfig(
    image_size=128,
    emb_channels=16,
    emb_max_channels=128,
    tex_channels=16,
    tex_max_channels=128,
    inf_channels=16,
    inf_max_channels=128,
    pose_channels=128,
    enh_channels=16,
    enh_max_channels=32,
    enh_bottleneck=64,
    enh_blocks=4,
    dis_channels=16,
    dis_max_channels=128,
    dis_blocks=5,
)
# For today's phones: the decoder of `compact` stops at half size (same widths at the same sides), with ReLUs.
_MOBILE = replace(_COMPACT, inf_channels=32, inf_scale=2, inf_activation="relu").at_size(256)

PRESETS: dict[str, BilayerConfig] = {
    "quarter": BilayerConfig(inf_channels=16, inf_max_channels=128),
    "medium": BilayerConfig(),
    "full": BilayerConfig(inf_channels=64, inf_max_channels=512),
    "compact": _COMPACT,
    "mobile": _MOBILE,
    "mobile-512": _MOBILE.at_size(512),
    # To try things and for tests: a step takes a fraction of a second on one core.
    "tiny": BilayerConfig(
        image_size=64,
        emb_channels=8,
        emb_max_channels=32,
        tex_channels=8,
        tex_max_channels=32,
        inf_channels=8,
        inf_max_channels=32,
        pose_channels=64,
        enh_channels=8,
        enh_max_channels=16,
        enh_bottleneck=32,
        enh_blocks=2,
        dis_channels=8,
        dis_max_channels=32,
        dis_blocks=4,
    ),
}
