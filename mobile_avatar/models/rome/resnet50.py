"""ResNet-50 (He et al., 2016) with the stride in the 3x3 convolutions; tensors are named as in torchvision."""

from torch import Tensor, nn

STAGES = (3, 4, 6, 3)
EXPANSION = 4
CHANNELS = 64


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, and a projection beside them where the shape changes."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * inner
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + skip)


class ResNet50(nn.Module):
    """The network up to the average pool, and one linear layer behind it.

    Args:
        outputs: of the linear layer `fc`; None leaves it out.
        channels: of the stem; 64 is the standard network.
    """

    head = "fc"

    def __init__(self, outputs: int | None, channels: int = CHANNELS) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        before = channels
        for i, blocks in enumerate(STAGES):
            inner = channels * 2**i
            stage = nn.Sequential()
            for j in range(blocks):
                stage.append(Bottleneck(before, inner, 2 if i and not j else 1))
                before = EXPANSION * inner
            setattr(self, f"layer{i + 1}", stage)
        self.features = before
        self.fc = nn.Identity() if outputs is None else nn.Linear(before, outputs)
        start_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in [0, 1], as it is: ROME normalises no image -> (B, outputs)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def start_convolutions(module: nn.Module) -> None:
    """Random filters that keep the size of gradients (He et al., 2015), as torchvision starts them."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
