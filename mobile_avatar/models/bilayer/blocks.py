"""The plain residual block of the identity embedder, the texture updater and the discriminator."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.models.bilayer.config import EPS, SLOPE


def conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """3x3 convolution, stride 1, zero padding, with bias: the only spatial convolution in these networks."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def conv1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """1x1 convolution with bias."""
    return nn.Conv2d(in_channels, out_channels, 1)


def batch_norm(channels: int, affine: bool) -> nn.BatchNorm2d:
    """Batch norm with the official epsilon and momentum (1.0: running statistics are those of the last batch)."""
    return nn.BatchNorm2d(channels, eps=EPS, momentum=1.0, affine=affine)


def upsample(x: Tensor) -> Tensor:
    """Nearest x2."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU, slope 0.2. Never in place: the skip branch reads the raw input."""
    return F.leaky_relu(x, SLOPE)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"leaky_relu": activate, "relu": F.relu}
"""By the name that a config gives."""


class ResidualBlock(nn.Module):
    """Pre-activation block: out = conv2(act(norm2(conv1(act(norm1(x)))))) + skip(x).

    Args:
        resize: `up` (nearest x2 before the first convolution), `down` (average pool after the second) or `same`.
        normalise: batch norm in front of both activations (discriminator) or none.
        features_only: leave out the second convolution and the skip; only `features` may be called.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        resize: str = "same",
        normalise: bool = False,
        features_only: bool = False,
    ) -> None:
        super().__init__()
        self.resize = resize
        self.norm1 = batch_norm(in_channels, affine=True) if normalise else nn.Identity()
        self.conv1 = conv3(in_channels, out_channels)
        self.norm2 = batch_norm(out_channels, affine=True) if normalise else nn.Identity()
        if features_only:
            return
        self.conv2 = conv3(out_channels, out_channels)
        same = resize == "same" and in_channels == out_channels
        self.skip = nn.Identity() if same else conv1(in_channels, out_channels)

    def features(self, x: Tensor) -> Tensor:
        """The tensor behind the second activation, before the second convolution."""
        h = activate(self.norm1(x))
        if self.resize == "up":
            h = upsample(h)
        return activate(self.norm2(self.conv1(h)))

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x, self.features(x))

    def finish(self, x: Tensor, features: Tensor) -> Tensor:
        """The block's output from its input and its `features`."""
        h, skip = self.conv2(features), self.skip(x)
        if self.resize == "down":
            # Pooling is linear and the 1x1 skip has no padding, so one pool serves both branches.
            return F.avg_pool2d(h + skip, 2)
        # Nearest up-sampling commutes with the 1x1 skip; after it, it costs a quarter.
        return h + (upsample(skip) if self.resize == "up" else skip)
