"""Per frame, one thread: pytest benchmarks/test_frames.py"""

import pytest

from benchmarks.frames import VARIANTS, frame_of
from mobile_avatar.errors import MissingTool


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.benchmark(group="per frame, 256 px, one thread")
def test_frame(benchmark, name: str) -> None:
    try:
        with frame_of(VARIANTS[name]) as frame:
            frame()
            benchmark.pedantic(frame, rounds=20, warmup_rounds=3)
    except MissingTool as error:
        pytest.skip(str(error))
