"""Identity loss: features of a face-recognition ResNet-50 that the user supplies should not change.

Officially it is the network of VGGFace2; any ResNet-50 in torchvision's format does. Nothing is downloaded.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.models.rome.camera import crop, crop_box
from mobile_avatar.models.rome.resnet50 import ResNet50
from mobile_avatar.training.backbones import load_torchvision


class IdentityLoss(nn.Module):
    """One minus the cosine of pooled features of face crops, mean over the batch.

    Raises BadInput where `path` is no ResNet-50 in torchvision's format.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.network = ResNet50(1)
        load_torchvision(self.network, path)
        self.network.fc = nn.Identity()
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, goal: Tensor, keypoints: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [-1, 1] with keypoints (N, 68, 2) in [-1, 1]; the derivative goes to `image` only."""
        box = crop_box(keypoints)
        with torch.no_grad():
            wanted = self.network(crop((goal + 1) / 2, box))
        return 1 - F.cosine_similarity(self.network(crop((image + 1) / 2, box)), wanted).mean()
