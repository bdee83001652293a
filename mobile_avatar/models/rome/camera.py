"""From head space to the picture: the head's rotation, the weak-perspective camera, and the crop of its encoder.

A camera is (s, tx, ty). The picture is the square [-1, 1], x right, y down; the smallest z is nearest.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

DEPTH = 10.0  # added to z by every call of the official renderer, so that all is in front of the camera
CROP_SIZE = 224  # pixels of the encoder's input
CROP_SCALE = 1.1 * 1.25  # of the keypoints' mean side: the margin of the detector's box, then that of the crop


def turn(points: Tensor, rotation: Tensor, root: Tensor) -> Tensor:
    """Rotate points (n, k, 3) by (n, 3, 3) about roots (n, 3)."""
    centre = root[:, None]
    return (points - centre) @ rotation.transpose(1, 2) + centre


def project(points: Tensor, camera: Tensor, depth: float = 0.0) -> Tensor:
    """Points (n, k, 3) through cameras (n, 3) -> (n, k, 3): x, y in the picture, z growing away from the viewer.

    Args:
        depth: added to z; a rasteriser needs `DEPTH`, and official inference adds it twice.
    """
    scale, x, y = (c[:, None] for c in camera.unbind(-1))
    px, py, pz = points.unbind(-1)
    return torch.stack((scale * (px + x), -(scale * (py + y)), depth - scale * pz), dim=-1)


def crop_box(keypoints: Tensor) -> Tensor:
    """The square that the encoder of cameras sees, around keypoints (n, k, 2) in [-1, 1].

    Returns (n, 3): left, top and side, with the picture spanning [0, 1]; the square may reach beyond it.
    """
    unit = (keypoints + 1) / 2
    low, high = unit.amin(1), unit.amax(1)
    size = (high - low).mean(1, keepdim=True) * CROP_SCALE
    return torch.cat(((low + high) / 2 - size / 2, size), dim=1)


def crop(images: Tensor, box: Tensor, size: int = CROP_SIZE) -> Tensor:
    """Cut boxes (n, 3) out of images (n, c, H, W) -> (n, c, size, size), bilinear, 0 outside.

    Rows and columns span the box from edge to edge although pixels are sampled by their centres: as official.
    """
    return F.grid_sample(images, crop_grid(box, size), mode="bilinear", padding_mode="zeros", align_corners=False)


def crop_grid(box: Tensor, size: int = CROP_SIZE) -> Tensor:
    """Sampling positions (n, size, size, 2) of `crop` in [-1, 1] of the picture."""
    steps = torch.linspace(0, 1, size, dtype=box.dtype, device=box.device)
    left, top, side = (b[:, None] for b in box.unbind(1))
    x, y = (2 * (edge + side * steps) - 1 for edge in (left, top))
    return torch.stack((x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)), dim=-1)


def uncrop_camera(camera: Tensor, box: Tensor) -> Tensor:
    """Cameras (n, 3) that were predicted for the crop of boxes (n, 3) -> cameras of the whole picture (n, 3)."""
    scale, x, y = camera.unbind(1)
    left, top, side = box.unbind(1)
    whole = scale * side
    return torch.stack((whole, x + 1 / scale + (2 * left - 1) / whole, y - 1 / scale - (2 * top - 1) / whole), dim=1)


def fit_camera(points: Tensor, positions: Tensor) -> Tensor:
    """The cameras (n, 3) that see points (n, k, 3) closest to positions (n, k, 2) in the picture: least squares."""
    flat = points[..., :2] * points.new_tensor([1.0, -1.0])
    middle, target = flat.mean(1), positions.mean(1)
    spread, wanted = flat - middle[:, None], positions - target[:, None]
    scale = (spread * wanted).sum((1, 2)) / (spread * spread).sum((1, 2))
    x, y = (target / scale[:, None] - middle).unbind(1)
    return torch.stack((scale, x, -y), dim=1)
