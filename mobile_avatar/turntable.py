"""A ROME avatar and a bi-layer avatar of the same photo, turned alike, in two rows of one picture.

python -m mobile_avatar.turntable --rome FILE --bilayer FILE -o sheet.png
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from mobile_avatar.avatar import Avatar
from mobile_avatar.cli.common import failing_in_a_sentence
from mobile_avatar.files import check_output
from mobile_avatar.images import to_uint8
from mobile_avatar.models.rome.avatar import RomeAvatar
from mobile_avatar.models.rome.avatar_looks import turned_codes
from mobile_avatar.models.rome.landmark_fit import AvatarLandmarks
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.rendering.contact_sheet import contact_sheet
from mobile_avatar.rendering.tracks import turned_keypoints
from mobile_avatar.rome_creation import mesh_picture, on_white, rome_picture

DEGREES = (-45, -30, -15, 0, 15, 30, 45)
CELL = 160  # pixels, at least


def turntable(rome: RomeAvatar, bilayer: Avatar, output: Path) -> None:
    """Write the sheet: the picture of the ROME avatar, its mesh, and the bi-layer avatar, all on white.

    Both look to the sides by DEGREES, framed by the crop rule; the bi-layer avatar's keypoints are those of its photo,
    stretched over a template of a head and turned with it.

    Raises:
        BadInput: the ROME avatar's head is not the default one, so its landmarks are not known.
    """
    yaws = np.radians(DEGREES)
    landmarks = AvatarLandmarks.of(rome.mesh, synthetic_head())
    frames = [rome.render(turned_codes(landmarks, rome.source_codes, yaw)) for yaw in yaws]
    points = turned_keypoints(yaws, bilayer.source_keypoints.numpy())
    layers = [bilayer.render(torch.from_numpy(row)[None]) for row in points]
    rows = {
        "ROME": [rome_picture(frame) for frame in frames],
        "its mesh": [mesh_picture(rome, frame, max(CELL, rome.size)) for frame in frames],
        "bi-layer": [on_white((layer.lf + layer.hf + 1) / 2, layer.mask) for layer in layers],
    }
    cells = [
        (f"{name} {degrees:+d}°", to_uint8(picture[0] * 2 - 1))
        for name, pictures in rows.items()
        for degrees, picture in zip(DEGREES, pictures, strict=True)
    ]
    contact_sheet(cells, len(DEGREES), output)


def main() -> None:
    """Write the sheet of two avatar files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rome", type=Path, required=True, help="avatar of `create --model rome`")
    parser.add_argument("--bilayer", type=Path, required=True, help="avatar of `create`, of the same photo")
    parser.add_argument("--output", "-o", type=Path, required=True, help="a PNG")
    parser.add_argument("--force", action="store_true", help="replace an existing output")
    given = parser.parse_args()
    with failing_in_a_sentence():
        check_output(given.output, given.force, inputs=(given.rome, given.bilayer))
        turntable(RomeAvatar.load(given.rome), Avatar.load(given.bilayer), given.output)
    print(given.output)


if __name__ == "__main__":
    main()
