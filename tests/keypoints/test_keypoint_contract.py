"""The contract at the door: every accepted shape, every refusal in one sentence."""

import io
import pickle

import numpy as np
import pytest

from mobile_avatar.errors import BadInput
from mobile_avatar.keypoints.contract import GROUPS, check_keypoints, read_keypoints

FRAMES = np.random.default_rng(0).uniform(-1, 1, (3, 136)).astype(np.float32)


def test_groups_are_the_68_points_in_order():
    assert [number for group in GROUPS.values() for number in group] == list(range(68))


@pytest.mark.parametrize("shape", [(3, 136), (3, 68, 2)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, ">f4"])
def test_accepted_shapes_read_as_the_same_frames(tmp_path, shape, dtype):
    np.save(tmp_path / "k.npy", FRAMES.reshape(shape).astype(dtype))
    keypoints = read_keypoints(tmp_path / "k.npy")
    assert keypoints.dtype == np.float32
    assert keypoints.flags.c_contiguous
    assert np.array_equal(keypoints, FRAMES)
    assert np.array_equal(check_keypoints(FRAMES.reshape(shape)[1], "one"), FRAMES[1:2])


def spoiled(index: tuple[int, int], value: float) -> np.ndarray:
    frames = FRAMES.copy()
    frames[index] = value
    return frames


REFUSED = {
    "nan": (spoiled((1, 7), np.nan), "NaN or infinity, first in frame 1"),
    "infinity": (spoiled((2, 0), -np.inf), "first in frame 2"),
    "pixels": ((FRAMES + 1) * 128, "are these pixels? divide by the crop"),
    "integers": (np.zeros((1, 136), np.int64), "not int64"),
    "complex": (np.zeros((1, 136), complex), "not complex128"),
    "three coordinates": (np.zeros((5, 68, 3)), "(5, 68, 3)"),
    "transposed": (np.zeros((136, 5)), "(136, 5)"),
    "four axes": (np.zeros((1, 1, 68, 2)), "(1, 1, 68, 2)"),
    "scalar": (np.zeros(()), "()"),
    "empty": (np.zeros((0, 136)), "no frames"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arrays_are_one_sentence(tmp_path, case):
    array, part = REFUSED[case]
    np.save(tmp_path / "k.npy", array)
    with pytest.raises(BadInput) as caught:
        read_keypoints(tmp_path / "k.npy")
    assert part in str(caught.value)
    assert "k.npy" in str(caught.value)
    assert "\n" not in str(caught.value)


def files() -> dict[str, bytes]:
    stream, archive = io.BytesIO(), io.BytesIO()
    np.save(stream, FRAMES)
    np.savez(archive, keypoints=FRAMES)
    objects = io.BytesIO()
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    whole = stream.getvalue()
    return {
        "truncated.npy": whole[:500],
        "header.npy": whole[:40],
        "text.npy": b"0.1 0.2 0.3",
        "empty.npy": b"",
        "pickle.npy": pickle.dumps(FRAMES),
        "objects.npy": objects.getvalue(),
        "archive.npy": archive.getvalue(),
    }


@pytest.mark.parametrize("name", [*files(), "missing.npy"])
def test_wrong_files_are_one_sentence(tmp_path, name):
    if name in files():
        (tmp_path / name).write_bytes(files()[name])
    with pytest.raises(BadInput) as caught:
        read_keypoints(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
