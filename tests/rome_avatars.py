"""A small ROME avatar of random numbers in which everything moves something."""

import torch
from torch import nn

from mobile_avatar.models.rome.avatar import CODES, RomeAvatar
from mobile_avatar.models.rome.avatar_mesh import AvatarMesh
from mobile_avatar.models.rome.batch_norms import fold_batch_norms
from mobile_avatar.models.rome.compact_renderer import CompactConfig, CompactRenderer
from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.mobilenet_v2 import MobileNetV2
from tests.models.rome.heads import random_head

SIZE, ENCODER_SIZE, ENCODER_WIDTH = 64, 32, 0.1
FACTS = {"license": "Apache-2.0", "weights_sha256": "0" * 64}


def source_codes(head: HeadModel) -> torch.Tensor:
    """Codes (e + 9,) of a frontal head that fills most of the picture."""
    codes = torch.zeros(head.expression_basis.shape[2] + CODES)
    codes[-3:] = torch.tensor([7.0, 0.01, -0.01])
    return codes


@torch.no_grad()
def small_avatar(head: HeadModel | None = None, size: int = SIZE) -> RomeAvatar:
    """An avatar whose encoder gives codes near the photo's for any picture.

    Its encoder reads smaller pictures than it shows, and its texture is finer.
    """
    head = head or random_head()
    torch.manual_seed(3)
    shape = torch.randn(1, head.shape_basis.shape[2])
    offsets = 0.005 * torch.randn(1, len(head.template), 3) * head.deforms_mask
    codes = source_codes(head)
    encoder = MobileNetV2(len(codes), ENCODER_WIDTH)
    # Statistics of some pictures: without them the signal fades on its way through the layers.
    pictures, last = nn.functional.interpolate(torch.rand(16, 3, 8, 8), (ENCODER_SIZE,) * 2), encoder.classifier[1]
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    encoder.train()(pictures)
    found = encoder.eval()(pictures)
    last.weight.mul_(0.02 / found.std(0).mean())
    last.weight[-3:].mul_(0.1)  # cameras are steady
    last.bias += codes - encoder(pictures).mean(0)
    renderer = CompactRenderer(CompactConfig(size, width=4, middle=1))
    for module in renderer.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    renderer.direct.bias.zero_()  # random weights beside a mask that begins with nobody show nobody
    smooth = nn.functional.interpolate(torch.randn(1, 8, 8, 8), (2 * size,) * 2, mode="bilinear")
    return RomeAvatar(
        fold_batch_norms(encoder),
        AvatarMesh.of(head, shape, offsets),
        smooth,
        renderer.fold(),
        codes,
        ENCODER_SIZE,
        ENCODER_WIDTH,
        dict(FACTS),
    )
