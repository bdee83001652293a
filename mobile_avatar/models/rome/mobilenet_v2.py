"""MobileNetV2 (Sandler et al., 2018); tensors are named as in torchvision."""

from torch import Tensor, nn

from mobile_avatar.models.rome.resnet50 import start_convolutions

# Expansion, channels, repeats, stride of the first.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM, LAST = 32, 1280
DROPOUT = 0.2


class InvertedResidual(nn.Module):
    """Expand, filter per channel, project; the input is added where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        layers = [_convolution(inputs, inner, 1)] if expansion != 1 else []
        layers += [_convolution(inner, inner, 3, stride, inner)]
        self.conv = nn.Sequential(*layers, nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    """The network with its linear layer.

    Args:
        outputs: of the linear layer.
        width: factor on all channels; results are rounded to multiples of 8.
    """

    head = "classifier.1"

    def __init__(self, outputs: int, width: float = 1.0) -> None:
        super().__init__()
        before, last = _round(STEM * width), _round(LAST * max(1.0, width))
        self.features = nn.Sequential(_convolution(3, before, 3, 2))
        for expansion, channels, repeats, stride in STAGES:
            after = _round(channels * width)
            for i in range(repeats):
                self.features.append(InvertedResidual(before, after, 1 if i else stride, expansion))
                before = after
        self.features.append(_convolution(before, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(last, outputs))
        start_convolutions(self)
        nn.init.normal_(self.classifier[1].weight, 0, 0.01)
        nn.init.zeros_(self.classifier[1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in [0, 1], as it is: ROME normalises no image -> (B, outputs)."""
        return self.classifier(self.features(x).mean((2, 3)))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


def _round(channels: float) -> int:
    """The nearest multiple of 8, but never a tenth less than was asked for."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
