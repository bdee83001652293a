"""Networks that read codes from pictures: hair and shoulders, the frame's pose, and DECA's face encoder."""

from dataclasses import dataclass

from torch import Tensor, nn

from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.mobilenet_v2 import MobileNetV2
from mobile_avatar.models.rome.resnet50 import ResNet50

FACE_SIZE = 224
"""Side of the face crop that `FlameEncoder` was trained on."""
ALBEDO = 50
LIGHT = 9, 3
HIDDEN = 1024


@dataclass(frozen=True)
class FrameCodes:
    """What changes from frame to frame."""

    expression: Tensor
    """(B, n_exp)."""
    pose: Tensor
    """(B, 6): axis-angle of the head, then of the jaw, in radians."""
    camera: Tensor
    """(B, 3): scale, then shift to the right and upwards, of the whole frame."""


@dataclass(frozen=True)
class FaceCodes(FrameCodes):
    """All that DECA reads from a face; its camera belongs to the crop."""

    shape: Tensor
    """(B, n_shape)."""
    albedo: Tensor
    """(B, 50)."""
    light: Tensor
    """(B, 9, 3): spherical harmonics per colour."""


def basis_regressor(config: RomeConfig) -> ResNet50:
    """Aligned photo (B, 3, S, S) in [0, 1] -> coefficients (B, n_basis) of the linear basis, once per avatar.

    With `photo_shape` n_shape coefficients of the head's shape follow.
    """
    return ResNet50(config.n_basis + config.n_shape * config.photo_shape, config.resnet_channels)


def frame_regressor(config: RomeConfig) -> MobileNetV2:
    """Whole frame (B, 3, S, S) in [0, 1], neither cropped nor aligned -> (B, 59) for `split_frame_codes`."""
    return MobileNetV2(sum(config.frame_codes), config.mobilenet_width)


def split_frame_codes(values: Tensor, config: RomeConfig) -> FrameCodes:
    """Output of the frame regressor (B, 59) in parts; the camera is used as it is."""
    return FrameCodes(*values.split(config.frame_codes, dim=1))


class FlameEncoder(nn.Module):
    """DECA's coarse encoder (Feng et al., 2021): ResNet-50 and two linear layers."""

    def __init__(self, config: RomeConfig) -> None:
        super().__init__()
        expression, pose, camera = config.frame_codes
        self.sizes = (config.n_shape, ALBEDO, expression, pose, camera, LIGHT[0] * LIGHT[1])
        self.encoder = ResNet50(None, config.resnet_channels)
        self.layers = nn.Sequential(
            nn.Linear(self.encoder.features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, sum(self.sizes))
        )  # fmt: skip

    def forward(self, faces: Tensor) -> FaceCodes:
        """Face crops (B, 3, 224, 224), RGB in [0, 1]."""
        shape, albedo, expression, pose, camera, light = self.layers(self.encoder(faces)).split(self.sizes, dim=1)
        return FaceCodes(expression, pose, camera, shape, albedo, light.unflatten(1, LIGHT))
