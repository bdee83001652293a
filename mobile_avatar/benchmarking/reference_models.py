"""Work tables of the networks whose published times calibrate the estimate, layer by layer."""

import functools
from collections.abc import Callable

from mobile_avatar.graphs.layers import Layer


class _Net:
    """Layers of a network as it is written down; element-wise operators belong to the convolution before them."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []

    def conv(
        self,
        inner: int,
        out: int,
        kernel: int,
        pixels: int,
        stride: int = 1,
        groups: int = 1,
        beside: int = 0,
        constants: int = 0,
    ) -> int:
        """A convolution with bias on `pixels` input pixels.

        Args:
            beside: further elements read by operators that belong to it (a skip, an addition).
            constants: further constants of such operators (a norm).

        Returns:
            The number of its output pixels.
        """
        after = pixels // stride**2
        filters = out * inner // groups * kernel**2
        self._add("Conv", after * filters, filters + out + constants, inner * pixels + beside, out * after)
        return after

    def linear(self, inner: int, out: int) -> None:
        self._add("Gemm", inner * out, inner * out + out, inner, out)

    def transposed(self, inner: int, out: int, pixels: int) -> int:
        """A transposed convolution 2x2, stride 2; returns the number of its output pixels."""
        filters = inner * out * 4
        self._add("ConvTranspose", pixels * filters, filters + out, inner * pixels, out * pixels * 4)
        return pixels * 4

    def move(self, kind: str, read: int, written: int, weights: int = 0) -> None:
        """A layer without multiply-accumulates."""
        self._add(kind, 0, weights, read, written)

    def _add(self, kind: str, macs: int, weights: int, read: int, written: int) -> None:
        self.layers.append(Layer(f"{kind.lower()}{len(self.layers)}", kind, macs, weights, read, written))


def _mobilenet_v1(net: _Net) -> None:
    pixels = net.conv(3, 32, 3, 224**2, 2)
    inner = 32
    rows = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for out, stride in rows:
        pixels = net.conv(inner, inner, 3, pixels, stride, inner)
        net.conv(inner, out, 1, pixels)
        inner = out
    net.move("Pool", inner * pixels, inner)
    net.linear(inner, 1000)


def _mobilenet_v2(net: _Net) -> None:
    pixels = net.conv(3, 32, 3, 224**2, 2)
    inner = 32
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for factor, out, repeats, first in stages:
        for stride in (first, *[1] * (repeats - 1)):
            wide = inner * factor
            if factor > 1:
                net.conv(inner, wide, 1, pixels)
            pixels = net.conv(wide, wide, 3, pixels, stride, wide)
            net.conv(wide, out, 1, pixels, beside=out * pixels if stride == 1 and inner == out else 0)
            inner = out
    net.conv(inner, 1280, 1, pixels)
    net.move("Pool", 1280 * pixels, 1280)
    net.linear(1280, 1000)


def _resnet_50(net: _Net) -> None:
    pixels = net.conv(3, 64, 7, 224**2, 2)
    net.move("Pool", 64 * pixels, 16 * pixels)
    pixels //= 4
    inner = 64
    for width, repeats, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for stride in (first, *[1] * (repeats - 1)):
            net.conv(inner, width, 1, pixels)
            after = net.conv(width, width, 3, pixels, stride)
            if inner != 4 * width:
                net.conv(inner, 4 * width, 1, pixels, stride)
            net.conv(width, 4 * width, 1, after, beside=4 * width * after)
            inner, pixels = 4 * width, after
    net.move("Pool", inner * pixels, inner)
    net.linear(inner, 1000)


def _unet(net: _Net) -> None:
    """U-Net of 31 M parameters with transposed convolutions at 640 x 1280, two classes."""
    widths, pixels = (64, 128, 256, 512, 1024), 640 * 1280
    inner = 3
    for level, width in enumerate(widths):
        if level:
            net.move("Pool", inner * pixels, inner * pixels // 4)
            pixels //= 4
        net.conv(inner, width, 3, pixels)
        net.conv(width, width, 3, pixels)
        inner = width
    for width in widths[-2::-1]:
        pixels = net.transposed(inner, width, pixels)
        net.move("Concat", 2 * width * pixels, 2 * width * pixels)
        net.conv(2 * width, width, 3, pixels)
        net.conv(width, width, 3, pixels)
        inner = width
    net.conv(inner, 2, 1, pixels)


def _fomm_generator(net: _Net) -> None:
    """Generator and dense motion of the first-order motion model at 256 px."""
    small, ends = 64**2, [44, 128, 256, 512, 1024, 1024]
    pixels = small
    for inner, out in zip(ends, ends[1:], strict=False):
        net.conv(inner, out, 3, pixels)
        net.move("Pool", out * pixels, out * pixels // 4)
        pixels //= 4
    for inner, out in ((1024, 1024), (2048, 512), (1024, 256), (512, 128), (256, 64)):
        net.move("Resize", inner * pixels, inner * pixels * 4)
        pixels *= 4
        net.conv(inner, out, 3, pixels)
        net.move("Concat", 2 * out * pixels, 2 * out * pixels)
    net.conv(64 + 44, 11, 7, small)
    net.conv(64 + 44, 1, 7, small)
    pixels = net.conv(3, 64, 7, 256**2)
    for inner, out in ((64, 128), (128, 256)):
        net.conv(inner, out, 3, pixels)
        net.move("Pool", out * pixels, out * pixels // 4)
        pixels //= 4
    net.move("GridSample", 258 * pixels, 256 * pixels)
    for _ in range(6):
        net.conv(256, 256, 3, pixels)
        net.conv(256, 256, 3, pixels, beside=256 * pixels)
    for inner, out in ((256, 128), (128, 64)):
        net.move("Resize", inner * pixels, inner * pixels * 4)
        pixels *= 4
        net.conv(inner, out, 3, pixels)
    net.conv(64, 3, 7, pixels)


def _medium_as_released(net: _Net) -> None:
    """The official medium generator at 256 px: skips behind the up-sampling, norms apart, three heads."""
    for inner, out in ((136, 256), (256, 256), (256, 256), (256, 4096)):
        net.linear(inner, out)
    widths = (256, 256, 256, 256, 128, 64, 32)
    pixels = 16
    for inner, out in zip(widths, widths[1:], strict=False):
        # Four statistics, a scale and a bias per channel.
        net.move("BatchNormalization", inner * pixels, inner * pixels, 6 * inner)
        net.conv(inner, out, 3, pixels, constants=2 * out)
        net.move("Resize", out * pixels, 4 * out * pixels)
        net.conv(out, out, 3, 4 * pixels)
        net.move("Resize", inner * pixels, 4 * inner * pixels)
        pixels *= 4
        # The norm in front of the heads is read by nobody else and belongs to the last skip.
        net.conv(inner, out, 1, pixels, beside=out * pixels, constants=6 * out if out == 32 else 0)
    for part in (2, 3, 1):
        net.conv(32, part, 3, pixels)
    net.move("Concat", 6 * pixels, 6 * pixels)
    for part, grid in ((2, 2 * pixels), (3, 0), (1, 0)):
        net.move("Slice", part * pixels, part * pixels, grid)


_BUILDERS: dict[str, Callable[[_Net], None]] = {
    "MobileNet v1": _mobilenet_v1,
    "MobileNet v2": _mobilenet_v2,
    "ResNet-50": _resnet_50,
    "U-Net 640x1280": _unet,
    "FOMM generator": _fomm_generator,
    "bi-layer medium as released": _medium_as_released,
}


CLASSIFIERS = frozenset({"MobileNet v1", "MobileNet v2", "ResNet-50"})
"""They shrink the picture early; all others keep its size, as avatars do."""


@functools.cache
def reference_layers(model: str) -> tuple[Layer, ...]:
    """The work table of a published network, input 224 x 224 unless its name says otherwise; KeyError if unknown."""
    net = _Net()
    _BUILDERS[model](net)
    return tuple(net.layers)
