"""Licensed heads from files in their authors' formats, and files that are damaged, foreign or hostile."""

import contextlib
import io
import os
import pickle
import random
import re
import zipfile
from dataclasses import fields

import numpy as np
import pytest
import torch

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.head_files import load_head, load_linear_basis
from mobile_avatar.models.rome.head_model import SHAPES as ARRAYS
from mobile_avatar.models.rome.restricted_pickle import read_object_array, read_pickle

from .heads import EXPRESSIONS, SHAPES, golden_arrays, golden_head, random_head
from .licensed_files import Ch, Select, flame_arrays, python2_pickle, write_data_files, write_flame


@pytest.fixture
def files(tmp_path):
    """FLAME's file and a data folder of the random head."""
    write_flame(tmp_path / "generic_model.pkl", random_head())
    write_data_files(tmp_path / "data", random_head())
    return tmp_path


def load(files, flame="generic_model.pkl"):
    return load_head(files / flame, [files / "data"], SHAPES, EXPRESSIONS)


def assert_same(loaded, expected):
    for name in ARRAYS:
        torch.testing.assert_close(getattr(loaded, name), getattr(expected, name), atol=1e-6, rtol=0, msg=name)
    assert loaded.parents == expected.parents


def refusal(call, *args):
    with pytest.raises(BadInput) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_pickle_and_its_npz_give_the_head_back(files):
    assert_same(load(files), random_head())
    np.savez_compressed(files / "flame.npz", **flame_arrays(random_head()))
    assert_same(load(files, "flame.npz"), random_head())
    assert {field.name for field in fields(load(files))} == {*ARRAYS, "parents", "source"}


def test_files_may_lie_in_several_folders(files, tmp_path):
    other = tmp_path / "deca"
    other.mkdir()
    for name in ("landmark_embedding.npy", "head_template.obj"):
        (files / "data" / name).rename(other / name)
    said = refusal(load, files)
    assert "head_template.obj is not in" in said
    assert "copy it there from DECA's data folder" in said
    assert_same(load_head(files / "generic_model.pkl", [files / "data", other], SHAPES, EXPRESSIONS), random_head())


def test_linear_basis(files):
    basis, mean = load_linear_basis([files / "data"], 48)
    assert basis.shape == (144, 60)
    assert mean.shape == (48, 3)
    assert "(147, any)" in refusal(load_linear_basis, [files / "data"], 49)
    torch.save(2 * basis, files / "data" / "u_full.pt")
    assert "not orthonormal" in refusal(load_linear_basis, [files / "data"], 48)


def test_the_golden_head_survives_its_files(shared, tmp_path):
    model = golden_head(shared)
    write_flame(tmp_path / "generic_model.pkl", model)
    write_data_files(tmp_path / "data", model)
    assert_same(load_head(tmp_path / "generic_model.pkl", [tmp_path / "data"], 20, 10), model)
    arrays = golden_arrays(shared, "00_model")
    for name, key in (("u_full.pt", "u_full"), ("mean_deform.pt", "mean_deform")):
        torch.save(arrays[key], tmp_path / "data" / name)
    basis, mean = load_linear_basis([tmp_path / "data"], 601)
    assert torch.equal(basis, arrays["u_full"])
    assert torch.equal(mean, arrays["mean_deform"])
    # The official mean moves the deformable vertices and no others.
    assert torch.equal(mean.abs().amax(1, keepdim=True) > 0, model.deforms_mask > 0)


def test_chumpy_selections_and_scalars(tmp_path):
    path = tmp_path / "a.pkl"
    numbers = np.arange(12.0).reshape(3, 4)
    path.write_bytes(python2_pickle({"part": Select(Ch(numbers), np.array([5, 0]), (2, 1)), "one": np.float32(0.5)}))
    read = read_pickle(path, 10**6, "that")
    assert read["part"].tolist() == [[5.0], [0.0]]
    assert read["one"] == 0.5
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps([numbers, numbers.T, np.zeros((0, 3), "u1"), [np.int64(-3)]], protocol))
        if protocol == 5:  # newer numpy writes buffers there; no such file exists
            assert "asks for" in refusal(read_pickle, path, 10**6, "that")
            continue
        a, b, c, d = read_pickle(path, 10**6, "that")
        assert np.array_equal(a, numbers)
        assert np.array_equal(b, numbers.T)
        assert c.shape == (0, 3)
        assert d == [-3]


class Runs:
    """A pickle that starts a program."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def test_nothing_is_executed(files, tmp_path):
    marker = tmp_path / "executed"
    for attack in (
        Runs(os.system, f"touch {marker}"),
        Runs(eval, f"open({str(marker)!r}, 'w')"),
        Runs(open, marker, "w"),
    ):
        for protocol in (0, 2, 4):
            (files / "generic_model.pkl").write_bytes(pickle.dumps({"v_template": attack}, protocol))
            assert re.search(r"generic_model.pkl asks for \w+\.\w+, which is not trusted", refusal(load, files))
        np.save(files / "data" / "landmark_embedding.npy", np.array({"a": attack}, dtype=object), allow_pickle=True)
        write_flame(files / "generic_model.pkl", random_head())
        assert "landmark_embedding.npy asks for" in refusal(load, files)
    write_data_files(files / "data", random_head())
    torch.save(Runs(os.system, f"touch {marker}"), files / "data" / "faces_v2.pth")
    assert "faces_v2.pth is not a readable tensor file" in refusal(load, files)
    (files / "data" / "hair_list.pkl").write_bytes(pickle.dumps([Runs(os.system, f"touch {marker}")]))
    torch.save(random_head().faces[None], files / "data" / "faces_v2.pth")
    assert "hair_list.pkl asks for" in refusal(load, files)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a readable pickle"),
        (b"cnumpy\nndarray\n}b.", "gives a state to something that is no array"),
        (b"c__builtin__\nset\n}b.", "gives a state to something that is no array"),
        (b"cbuiltins\ngetattr\n.", "asks for builtins.getattr"),
        (b"cnumpy\ndtype\n(VV8\ntR.", "holds an array of the type 'V8'"),
        (b"ccopy_reg\n_reconstructor\n(c__builtin__\nset\nc__builtin__\nobject\nNtR.", "does not name"),
        (b"cchumpy.ch\nCh\n)\x81}(U\x01aK\x01ub.", "a chumpy expression instead of numbers"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x0f.", "not a readable pickle"),  # a buffer of 2**60 bytes
        (b"\x80\x02r\xff\xff\xff\xff.", "not a readable pickle"),  # memo number 2**32
        (b"\x80\x02\x82\x01.", "not a readable pickle"),  # a registered extension
    ],
)
def test_hostile_pickles(tmp_path, data, said):
    path = tmp_path / "a.pkl"
    path.write_bytes(data)
    assert said in refusal(read_pickle, path, 10**6, "that")


def test_lying_arrays(tmp_path):
    path = tmp_path / "a.pkl"

    class Lying:
        def __init__(self, function, args, state):
            self.parts = (function, args, state)

        def __reduce__(self):
            return self.parts

    from scipy.sparse import csc_matrix

    make = np.zeros(1).__reduce__()[0]
    array = (np.ndarray, (0,), b"b")
    good = csc_matrix(np.eye(3))
    for thing, said in (
        (Lying(make, array, (1, (4, 4), np.dtype("f8"), False, b"12345678")), "(4, 4) of 8 bytes"),
        (Lying(make, array, (1, (-1, -1), np.dtype("u1"), False, b"1")), "negative"),
        (Lying(make, array, (1, (2,), np.dtype("O"), False, [1])), "array of objects"),
    ):
        path.write_bytes(pickle.dumps({"a": thing}, 2))
        assert said in refusal(read_pickle, path, 10**6, "that")
    for name, value in (
        ("indices", np.array([0, 1, 9])),
        ("indptr", np.array([0, 2, 1, 3])),
        ("_shape", (10**6, 10**6)),
    ):
        broken = good.copy()
        vars(broken)[name] = value
        path.write_bytes(pickle.dumps({"a": broken}, 2))
        assert "sparse matrix" in refusal(read_pickle, path, 10**6, "that")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damage_is_one_sentence(files):
    """Cut and changed files either still hold arrays or are refused; no other error comes out."""
    whole = python2_pickle({"x": Ch(np.arange(6.0)), "y": [np.int64(1)], "t": torch.arange(3)})
    path, dice = files / "a.pkl", random.Random(0)
    for _ in range(400):
        data = bytearray(whole)
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        for _ in range(dice.randrange(1, 4)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data)
        with contextlib.suppress(BadInput):
            read_pickle(path, 10**6, "that")
    (files / "short.pkl").write_bytes((files / "generic_model.pkl").read_bytes()[:-1000])
    assert "short.pkl is not a readable pickle" in refusal(load, files, "short.pkl")


def bomb():
    """A small archive that grows."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(64 * 2**20))
    return stream.getvalue()


def saved(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("faces_v2.pth", saved(random_head().faces), "faces_v2.pth has the shape (70, 3), expected (1, any, 3)"),
        ("faces_v2.pth", saved(random_head().faces[None].int()), "holds torch.int32 instead of torch.int64"),
        ("faces_v2.pth", saved([1, 2]), "holds list instead of"),
        ("faces_v2.pth", saved(random_head().faces[None] + 1), "faces has numbers outside 0..47"),
        ("faces_v2.pth", saved(torch.zeros(1, dtype=torch.int64).expand(1, 10**8, 3)), "unfolds to more than 16 MiB"),
        ("faces_v2.pth", bomb(), "it unpacks to 64 MiB"),
        ("uvfaces_v2.pth", saved(random_head().faces[None, 1:]), "uv_faces is (69, 3)"),
        ("vertex_uvcoords.pth", saved(torch.zeros(1, 48, 2)), "does not belong to vertex_uvcoords.pth"),
        ("mean_deform.pt", saved(torch.ones(48, 3)), "moves 24 vertices outside hair and neck"),
        ("mean_deform.pt", saved(torch.full((48, 3), torch.nan)), "holds NaN or infinity"),
        ("hair_list.pkl", pickle.dumps([1, "2"]), "does not hold a list of vertex numbers"),
        ("hair_list.pkl", pickle.dumps([1, 10**30]), "hair_list.pkl has numbers outside 0..47"),
        ("hair_list.pkl", pickle.dumps({}), "does not hold a list"),
        ("head_template.obj", b"v 0 0 0\n", "has no texture coordinates"),
        ("head_template.obj", b"vt 0\n", "damaged line"),
        ("head_template.obj", b"vt 0 x\n", "damaged line"),
        ("landmark_embedding.npy", b"hello", "is not a readable .npy file"),
        ("landmark_embedding.npy", b"\x00" * (17 * 2**20), "more than 16 MiB"),
    ],
)
def test_wrong_data_files(files, name, content, said):
    (files / "data" / name).write_bytes(content)
    assert said in refusal(load, files)


def test_wrong_flame_files(files):
    arrays = flame_arrays(random_head())
    for change, said in (
        ({"posedirs": None}, "the array posedirs is missing"),
        ({"shapedirs": arrays["shapedirs"][..., :100]}, "shapedirs has 100 columns, 304 are needed"),
        ({"weights": arrays["weights"].astype(int)}, "weights holds int64 numbers"),
        ({"weights": "many"}, "weights holds str"),
        ({"J_regressor": arrays["J_regressor"][:4]}, "joint_regressor is (4, 48)"),
        ({"v_template": arrays["v_template"] * np.inf}, "template holds NaN or infinity"),
        ({"kintree_table": arrays["kintree_table"][:, ::-1]}, "not a tree"),
        ({"kintree_table": np.zeros((2, 0), int)}, "not a tree"),
    ):
        changed = {key: value for key, value in (arrays | change).items() if value is not None}
        (files / "a.pkl").write_bytes(python2_pickle(changed))
        message = refusal(load, files, "a.pkl")
        assert said in message
        assert "a.pkl" in message
    np.save(files / "landmarks.npy", np.zeros(3))
    assert "instead of one object" in refusal(read_object_array, files / "landmarks.npy", 10**6, "that")
    (files / "a.npz").write_bytes(b"PK")
    assert "not a readable .npz" in refusal(load, files, "a.npz")
    assert "no such file" in refusal(load, files, "none.pkl")
