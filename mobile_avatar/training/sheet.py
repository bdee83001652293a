"""Contact sheets of a model in training: sources, driven frames and what they should be."""

import importlib.util
from pathlib import Path

import torch

from mobile_avatar.data.clips import Clips
from mobile_avatar.images import to_uint8, write_png
from mobile_avatar.keypoints.landmark_image import draw_landmarks_batched
from mobile_avatar.models.bilayer.inference_generator import masked
from mobile_avatar.models.bilayer.model import BilayerModel


@torch.no_grad()
def write_sheet(path: Path, model: BilayerModel, clips: Clips, update_steps: int = 0) -> None:
    """One row per person: source | texture | then per other frame: landmarks, goal, lf, result.

    Nothing is written where Pillow is missing: training needs no picture.
    """
    if importlib.util.find_spec("PIL") is None:
        return
    size = clips.images.shape[-1]
    landmarks = draw_landmarks_batched(clips.keypoints.flatten(0, 1), size).unflatten(0, clips.images.shape[:2])
    person = model.person(clips.images[:, :1], clips.masks[:, :1], landmarks[:, :1])
    texture = person.texture
    if update_steps:
        texture = model.update_texture(person, clips.images[:, :1], clips.keypoints[:, :1], update_steps)[-1]
    layers = model.frame_layers(clips.keypoints, person)
    shape = clips.images.shape[:2]
    result = masked(model.unmasked(layers, texture), layers.mask()).unflatten(0, shape)
    goal, lf = masked(clips.images, clips.masks), layers.lf.unflatten(0, shape)
    rows = []
    for i in range(shape[0]):
        cells = [clips.images[i, 0], texture[i], goal[i, 0], result[i, 0]]
        for j in range(1, shape[1]):
            cells += [landmarks[i, j], goal[i, j], lf[i, j], result[i, j]]
        rows.append(torch.cat(cells, dim=2))
    write_png(path, to_uint8(torch.cat(rows, dim=1)))
