"""A tiny model and made-up people: tests of training need neither the synthetic heads nor official data."""

import numpy as np
import pytest
import torch

from mobile_avatar.data.clips import Clips, Draw
from mobile_avatar.training import sources
from mobile_avatar.training.options import TrainOptions

OPTIONS = TrainOptions(
    data="made-up",
    preset="tiny",
    steps=4,
    batch_size=2,
    targets=1,
    device="cpu",
    standing_batches=2,
    checkpoint_every=2,
    sheet_every=2,
    log_every=1,
)


class MadeUp:
    """Coloured discs that follow their keypoints; any number of people."""

    image_size = 64

    def draw(self, generator: np.random.Generator, people: int, frames: int) -> list[Draw]:
        who = generator.integers(1000, size=people)
        return [Draw(int(p), tuple(generator.choice(50, frames, replace=False).tolist())) for p in who]

    def load(self, draws, device="cpu") -> Clips:
        rows = [[_frame(draw.person, frame, self.image_size) for frame in draw.frames] for draw in draws]
        parts = zip(*(tuple(torch.stack(part) for part in zip(*row, strict=True)) for row in rows), strict=True)
        return Clips(*(torch.stack(part).to(device) for part in parts))


def _frame(person: int, frame: int, size: int) -> tuple[torch.Tensor, ...]:
    own, moment = torch.Generator().manual_seed(person), torch.Generator().manual_seed(1000 * person + frame)
    colour, wave = torch.rand(3, 1, 1, generator=own) * 2 - 1, 2 + 4 * torch.rand(2, 1, 1, generator=own)
    centre = 0.3 * torch.rand(2, 1, 1, generator=moment) - 0.15
    line = (2 * torch.arange(size) + 1) / size - 1
    place = torch.stack([line.expand(size, size), line[:, None].expand(size, size)]) - centre
    mask = torch.sigmoid(20 * (0.7 - place.norm(dim=0, keepdim=True)))
    image = (colour + 0.3 * (wave * place).sin().sum(0)).clamp(-1, 1) * mask - (1 - mask)
    angle = torch.arange(68) / 68 * 2 * torch.pi
    keypoints = torch.stack([angle.cos(), angle.sin()], dim=1) * 0.6 + centre.view(2)
    return image, mask, keypoints.flatten(), place.where(mask > 0.5, torch.nan)


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """`--data made-up`."""
    monkeypatch.setitem(sources.SOURCES, "made-up", lambda options, folder, size, split: MadeUp())
