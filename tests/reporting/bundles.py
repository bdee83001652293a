"""Real bundles that are made fast: a small head of random numbers, exported for ONNX Runtime."""

from pathlib import Path

import torch

from mobile_avatar.assets import shipped
from mobile_avatar.avatar import Avatar
from mobile_avatar.exporters.bundle import Plan, export_bundle
from mobile_avatar.models.bilayer.config import BilayerConfig
from tests.deployment_cases import lively_generator

SMALLEST = BilayerConfig(image_size=64, inf_channels=8, inf_max_channels=16, pose_channels=16, enh_bottleneck=16)
FACTS = {"license": "CC0-1.0", "weights_sha256": "ab" * 32, "person": "nobody", "created": "2026-01-02"}


def export(folder: Path, warp: str = "split", precision: str = "fp32", config: BilayerConfig = SMALLEST) -> Path:
    """Export and verify; the file runs wherever ONNX Runtime does."""
    generator = lively_generator(config).requires_grad_(False)
    size = config.image_size
    texture = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), (size, size), mode="bilinear") * 2 - 1
    points = Avatar.load(shipped("default.avatar")).source_keypoints
    avatar = Avatar(generator, texture, points, dict(FACTS))
    export_bundle(avatar, Plan("onnx", precision, warp, "desktop"), folder, say=lambda line: None)
    return folder
