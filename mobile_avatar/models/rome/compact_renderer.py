"""The rendering network for phones: what the U-Net of 98 GMAC does, learned by one of 2.6.

It reads what the GPU's draw call leaves behind, without any encoding: 8 channels of neural texture, 3 of normals and
the coverage. Plain 3x3 convolutions, batch norms that fold away, ReLU, additions and nearest up-sampling: operators
that every mobile runtime has, and no statistics at run time.
"""

import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.batch_norms import fold_batch_norms

TEXTURE, NORMALS, COVERAGE = 8, 3, 1
"""Channels of the feature image, in this order: three RGBA render targets."""
FEATURES = TEXTURE + NORMALS + COVERAGE
COLOURS = 4
PHOTO_COLOURS = 3
"""Channels of the texture, the first ones, that are the picture's colours, see `photo_texture`."""
PERSON = 3
"""The channel of the texture that says whether the photo shows the person there."""
COLOUR_SLOPE, MASK_SLOPE = 4.0, 8.0
"""Before the sigmoid: 4 (x - 1/2) gives back a colour nearly as it is, 8 a mask that is nearly sure."""
SMALL_START = 0.1
LEVELS = 4
LARGEST = 256  # of `width`: a damaged file must not allocate the machine away


@dataclass(frozen=True)
class CompactConfig:
    """Size of a compact renderer."""

    image_size: int = 256
    """Side of feature image and picture in pixels, a multiple of 8."""
    width: int = 16
    """Channels at full resolution, doubled per level."""
    middle: int = 2
    """Residual blocks at the coarsest level."""

    def __post_init__(self) -> None:
        step = 2 ** (LEVELS - 1)
        if not step <= self.image_size <= 2048 or self.image_size % step:
            raise BadInput(f"image_size {self.image_size} is not a multiple of {step} from {step} to 2048")
        if not 1 <= self.width <= LARGEST:
            raise BadInput(f"width {self.width} is not between 1 and {LARGEST}")
        if not 1 <= self.middle <= 16:
            raise BadInput(f"middle {self.middle} is not between 1 and 16")

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each level, from full resolution down."""
        return tuple(self.width * 2**level for level in range(LEVELS))

    def to_dict(self) -> dict:
        """Plain numbers, for metadata."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict, source: str) -> "CompactConfig":
        """The reverse of `to_dict`; BadInput that names `source` when it is not such a dictionary."""
        names = {field.name for field in dataclasses.fields(cls)}
        numbers = isinstance(values, dict) and all(type(value) is int for value in values.values())
        if not numbers or set(values) != names:
            raise BadInput(f"{source} does not describe a compact renderer; make it again")
        return cls(**values)


def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """3x3 and batch norm, which `fold_batch_norms` merges."""
    return [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs)]


class Residual(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(*convolution(channels, channels), nn.ReLU(), *convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.main(x))


class CompactRenderer(nn.Module):
    """Feature image -> picture and mask.

    Four levels. On the way up a convolution halves the channels before the up-sampling, where it costs a quarter, and
    the skip is added instead of concatenated. Beside them colours and coverage of the drawn mesh, cut off where the
    photo shows nobody, go straight to the output: the network starts from the textured mesh and learns what is wrong
    with it.
    """

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        full, *lower = config.channels
        self.stem = nn.Sequential(*convolution(FEATURES, full), nn.ReLU())
        self.down, self.narrow, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, (before, after) in enumerate(zip(config.channels, lower, strict=False), start=1):
            blocks = config.middle if level == LEVELS - 1 else 1
            self.down.append(
                nn.Sequential(*convolution(before, after, 2), nn.ReLU(), *(Residual(after) for _ in range(blocks)))
            )
            # Full resolution is where time goes: a single convolution there.
            refine = [Residual(before)] if level > 1 else [*convolution(before, before), nn.ReLU()]
            self.narrow.append(nn.Sequential(*convolution(after, before)))
            self.up.append(nn.Sequential(*refine))
        self.to_colours = nn.Conv2d(full, COLOURS, 3, padding=1)
        self.direct = nn.Conv2d(FEATURES, COLOURS, 1)
        self._start_with_the_mesh()

    @torch.no_grad()
    def _start_with_the_mesh(self) -> None:
        self.to_colours.weight.mul_(SMALL_START)
        self.direct.weight.zero_()
        self.direct.bias.zero_()
        # Off the mesh colours begin in the middle: dark ones would make a dark rim around everybody.
        for channel in range(PHOTO_COLOURS):
            self.direct.weight[channel, channel] = COLOUR_SLOPE
            self.direct.weight[channel, -1] = -COLOUR_SLOPE / 2
        self.direct.weight[-1, PERSON] = self.direct.weight[-1, -1] = MASK_SLOPE
        self.direct.bias[-1] = -MASK_SLOPE / 2

    def forward(self, features: Tensor) -> Tensor:
        """Feature images -> RGB, not multiplied by the mask, and the mask: (B, 4, S, S) in [0, 1].

        Args:
            features: (B, 12, S, S): texture times coverage (8, unbounded), normals in head space (3, in [-1, 1]) and
                coverage (0 or 1); all 0 off the mesh.
        """
        skips = [self.stem(features)]
        for step in self.down:
            skips.append(step(skips[-1]))
        x = skips.pop()
        for narrow, step, skip in zip(reversed(self.narrow), reversed(self.up), reversed(skips), strict=True):
            x = step(F.relu(F.interpolate(narrow(x), scale_factor=2.0, mode="nearest") + skip))
        return torch.sigmoid(self.to_colours(x) + self.direct(features))

    def fold(self) -> "CompactRenderer":
        """A copy for inference, see `fold_batch_norms`."""
        return fold_batch_norms(self)

    @classmethod
    def folded(cls, config: CompactConfig) -> "CompactRenderer":
        """The structure that `fold` gives, to load folded weights into."""
        return cls(config).fold()
