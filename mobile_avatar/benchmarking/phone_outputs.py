"""Outputs of a device tool: as real numbers of all golden cases, and beside those of another run."""

import numpy as np

from mobile_avatar.errors import CheckFailed
from mobile_avatar.graphs.spec import GraphSpec

Frames = list[dict[str, np.ndarray]]
"""Per golden case, output name -> array as the file stores it; empty where the tool writes none."""


def real_numbers(spec: GraphSpec, frames: Frames) -> dict[str, np.ndarray]:
    """Output name -> (T, ...) float32; CheckFailed when an output is missing or the cases differ in shape."""
    try:
        return {t.name: np.concatenate([t.load(frame[t.name]) for frame in frames]) for t in spec.outputs}
    except (KeyError, ValueError) as error:
        raise CheckFailed(f"the outputs that came from the phone are not those of the bundle ({error})") from error


def identical(frames: Frames, others: Frames) -> bool:
    """Whether two runs gave the same bits in every output of every case; False where one gave none."""
    if not frames or len(frames) != len(others):
        return False
    return all(
        mine.keys() == theirs.keys() and all(_bits(mine[name]) == _bits(theirs[name]) for name in mine)
        for mine, theirs in zip(frames, others, strict=True)
    )


def _bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()
