"""Contact sheets of a mesh avatar in training: what it was given, what it draws, and the mesh behind it."""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from mobile_avatar.images import resized, to_uint8, write_png
from mobile_avatar.models.rome.camera import project, turn
from mobile_avatar.models.rome.model import FRONT, Rome
from mobile_avatar.rendering.mesh_normals import vertex_normals
from mobile_avatar.rendering.rasterize import rasterize
from mobile_avatar.training.rome_heads import RomeClips
from mobile_avatar.training.rome_person import draw

SHEET_PEOPLE, SHEET_FRAMES = 4, 2
COLUMNS = ("photo", "goal", "textured mesh", "rendered", "mask", "normals", "normals of the bare head")


@torch.no_grad()
def write_rome_sheet(path: Path, model: Rome, clips: RomeClips) -> None:
    """A row per frame with COLUMNS: of each person the photo's own frame and another one.

    The textured mesh shows the first three channels of the neural texture, stretched to the range of colours. Nothing
    is written where Pillow is missing: training needs no picture.
    """
    if importlib.util.find_spec("PIL") is None:
        return
    size = model.config.image_size
    frame, photo = draw(model, clips), clips.source(size)[0]
    images, masks = (resized(part.flatten(0, 1), size) for part in (clips.images, clips.masks))
    posed = frame.mesh.posed
    bare = project(turn(posed.vertices, posed.rotation, posed.root), clips.codes().camera, FRONT)
    seen = rasterize(bare, model.faces, size)
    normals = seen.interpolate(vertex_normals(posed.vertices, model.faces), model.faces)
    cells = (
        photo.repeat_interleave(clips.images.shape[1], 0),
        images * masks + 1 - masks,
        _stretched(frame.features[:, :3], frame.maps.mask),
        frame.image * frame.mask + 1 - frame.mask,
        frame.mask.expand(-1, 3, -1, -1),
        (frame.maps.normals + 1) / 2,
        (normals + 1) / 2,
    )
    rows = torch.cat(cells, dim=3)
    write_png(path, to_uint8(torch.cat(list(rows), dim=1) * 2 - 1))


def _stretched(values: Tensor, mask: Tensor) -> Tensor:
    """Values (n, 3, S, S) between 0 and 1 by each channel's extremes of the batch, white off the mask."""
    low, high = (pick(values, dim=(0, 2, 3), keepdim=True) for pick in (torch.amin, torch.amax))
    return (values - low) / (high - low).clamp(min=1e-6) * mask + 1 - mask
