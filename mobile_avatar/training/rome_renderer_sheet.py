"""Contact sheets of a compact renderer: what it should show, what its teacher shows, what it shows itself."""

import importlib.util
from pathlib import Path

import torch

from mobile_avatar.images import to_uint8, write_png
from mobile_avatar.models.rome.appearance import Appearance
from mobile_avatar.training.rome_heads import RomeClips
from mobile_avatar.training.rome_renderer_teacher import Teacher, taught_and_seen

COLUMNS = ("truth", "teacher", "student", "difference of both", "teacher's mask", "student's mask")
MAGNIFIED = 4  # differences


@torch.no_grad()
def write_renderer_sheet(path: Path, teacher: Teacher, student: Appearance, clips: RomeClips) -> None:
    """A row per frame with COLUMNS; people are cut out along the mask of each on white.

    The difference is four times as bright as it is. Nothing is written where Pillow is missing: training needs no
    picture.
    """
    if importlib.util.find_spec("PIL") is None:
        return
    lesson, features = taught_and_seen(teacher, student, clips)
    image, mask = student(features)
    shown, taught = image * mask + 1 - mask, lesson.image * lesson.mask + 1 - lesson.mask
    images, masks = clips.images.flatten(0, 1), clips.masks.flatten(0, 1)
    cells = (
        images * masks + 1 - masks,
        taught,
        shown,
        (MAGNIFIED * (shown - taught).abs()).clamp(max=1),
        *(part.expand(-1, 3, -1, -1) for part in (lesson.mask, mask)),
    )
    rows = torch.cat(cells, dim=3)
    write_png(path, to_uint8(torch.cat(list(rows), dim=1) * 2 - 1))
