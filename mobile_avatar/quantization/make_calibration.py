"""Writes the default calibration vectors: python -m mobile_avatar.quantization.make_calibration FILE"""

from pathlib import Path

import click
import numpy as np

from mobile_avatar.data.synthetic import SyntheticHeads
from mobile_avatar.files import replace_file
from mobile_avatar.rendering.tracks import varied_keypoints

NAMED, PEOPLE, FRAMES = 16, 24, 2
SEED = 1000  # another one than verification's, so that a graph is never judged on what it was calibrated with
SIDE = 64  # of the pictures, which are thrown away


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
def main(path: Path) -> None:
    """Write float32 (64, 136) keypoints to PATH; the same on every machine up to float rounding."""
    heads = SyntheticHeads(SIDE, "train").sample(list(range(PEOPLE)), FRAMES)
    rows = [varied_keypoints(NAMED, SEED), heads.keypoints.flatten(0, 1).numpy()]
    with replace_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.concatenate(rows).astype(np.float32).clip(-1, 1), allow_pickle=False)


if __name__ == "__main__":
    main()
