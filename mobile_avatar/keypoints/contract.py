"""The 68-point contract: order, groups, ranges, and reading keypoints that came from outside.

Points are in iBUG order, (x, y) in [-1, 1] of the square crop, x to the right, y down. "right" and "left" are the
person's own. On the wire one frame is a float32 vector of 136: x0, y0, x1, y1, ... (docs/preprocessing.md).
"""

import warnings
from pathlib import Path

import numpy as np

from mobile_avatar.errors import BadInput

POINT_COUNT = 68
VECTOR_SIZE = 2 * POINT_COUNT
# A point far outside of [-1, 1] is a mistake in units; a turned head in a tight crop stays well inside of this.
LARGEST_COORDINATE = 4.0

GROUPS: dict[str, range] = {
    "jaw": range(0, 17),
    "right_brow": range(17, 22),
    "left_brow": range(22, 27),
    "nose": range(27, 31),
    "nostrils": range(31, 36),
    "right_eye": range(36, 42),
    "left_eye": range(42, 48),
    "outer_lips": range(48, 60),
    "inner_lips": range(60, 68),
}


def check_keypoints(array: np.ndarray, source: str) -> np.ndarray:
    """Bring keypoints of any accepted shape to float32 (T, 136), or refuse them.

    Args:
        array: float array in [-1, 1] of the crop: (T, 136), (136,), (T, 68, 2) or (68, 2).
        source: what to call the array in the message, usually the file's path.

    Raises:
        BadInput: another shape or dtype, no frames, NaN or infinity, or values beyond +-4, which are pixels.
    """
    array = np.asarray(array)
    shape = array.shape
    if array.dtype.kind != "f":
        raise BadInput(f"{source}: keypoints must be floating-point numbers in [-1, 1], not {array.dtype}")
    if array.shape[-2:] == (POINT_COUNT, 2):
        array = array.reshape(*array.shape[:-2], VECTOR_SIZE)
    if array.ndim not in (1, 2) or array.shape[-1] != VECTOR_SIZE:
        raise BadInput(f"{source}: keypoints have the shape {shape}, but (T, 136) or (T, 68, 2) is needed")
    frames = array.reshape(-1, VECTOR_SIZE)
    if not len(frames):
        raise BadInput(f"{source}: there are no frames in these keypoints")
    finite = np.isfinite(frames).all(axis=1)
    if not finite.all():
        raise BadInput(f"{source}: keypoints contain NaN or infinity, first in frame {int(np.argmin(finite))}")
    largest = float(np.abs(frames).max())
    if largest > LARGEST_COORDINATE:
        raise BadInput(
            f"{source}: keypoints reach {largest:.4g}, but the crop is [-1, 1]; "
            "are these pixels? divide by the crop: see docs/preprocessing.md"
        )
    return np.ascontiguousarray(frames, dtype=np.float32)


def read_keypoints(path: str | Path) -> np.ndarray:
    """Read a float .npy file of keypoints as float32 (T, 136) in [-1, 1]; never unpickles.

    Raises:
        BadInput: the file is missing, is not a .npy file, is truncated, or `check_keypoints` refuses its content.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: there is no such keypoints file")
    try:
        # numpy warns about old headers and unknown dtypes; a refusal below says enough.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = np.load(path, allow_pickle=False)
    except PermissionError as error:
        raise BadInput(f"{path}: the keypoints file cannot be read ({error.strerror})") from error
    except Exception as error:  # numpy has no common base for what a damaged or foreign file may raise
        raise BadInput(
            f"{path}: not a readable .npy file of numbers (foreign or truncated); save one with np.save"
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise BadInput(f"{path}: an .npz archive, but one array in a .npy file is needed")
    return check_keypoints(array, str(path))
