"""Once per avatar, one thread: embedder, texture generator, four updates, folding."""

import pytest
import torch

from mobile_avatar.creation import Source, create_avatar
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.models.bilayer.model import BilayerModel


@pytest.mark.parametrize("preset", ["medium", "compact", "mobile"])
@pytest.mark.benchmark(group="avatar creation, one thread")
def test_creation(benchmark, preset: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = PRESETS[preset]
    size = config.image_size
    model = BilayerModel(config).eval()
    image = torch.rand(3, size, size) * 2 - 1
    source = Source(image, torch.ones(1, size, size), torch.rand(136) * 2 - 1, image)
    created = benchmark.pedantic(lambda: create_avatar(model, source, {}), rounds=3, warmup_rounds=1)
    assert created.avatar.size == size
