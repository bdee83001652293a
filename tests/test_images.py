"""Reading photos of every kind, refusing bad ones in one sentence, and exact pixel ranges."""

import io
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mobile_avatar.errors import BadInput
from mobile_avatar.images import read_photo, to_signed, to_uint8, write_png


def ramp(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack((x * 4, y * 6, np.full_like(x, 80)), axis=-1).astype(np.uint8)


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "gif"])
def test_lossless_formats_read_exactly(tmp_path, suffix):
    picture = Image.fromarray(ramp() // 85 * 85)  # few colours, for the palette of GIF
    path = save(tmp_path / f"a.{suffix}", picture, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(read_photo(path), ramp() // 85 * 85)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise
    path = save(tmp_path / "a.png", Image.fromarray(np.rot90(ramp())), exif=exif)
    assert np.array_equal(read_photo(path), ramp())


def test_transparency_lies_over_white(tmp_path):
    levels = np.dstack((ramp(), np.full((40, 60), 255, np.uint8)))
    levels[:10, :, 3] = 0
    levels[10:20, :, 3] = 128
    expected = ramp().astype(float)
    expected[:10] = 255
    expected[10:20] = expected[10:20] * (128 / 255) + 255 * (127 / 255)
    image = read_photo(save(tmp_path / "a.png", Image.fromarray(levels)))
    assert np.abs(image - expected).max() <= 1
    palette = Image.fromarray(np.repeat([[0, 1]], 40, axis=0).repeat(30, axis=1).astype(np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 255, 0])
    image = read_photo(save(tmp_path / "b.png", palette, transparency=0))
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[0, 59].tolist() == [0, 255, 0]


def test_grey_sixteen_bit_float_and_cmyk_become_rgb(tmp_path):
    grey = ramp()[..., 0]
    expected = grey[..., None].repeat(3, axis=-1)
    assert np.array_equal(read_photo(save(tmp_path / "grey.png", Image.fromarray(grey))), expected)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    for suffix in ("png", "tiff"):
        assert np.array_equal(read_photo(save(tmp_path / f"deep.{suffix}", deep)), expected)
    unit = Image.fromarray(grey.astype(np.float32) / 255)
    assert np.abs(read_photo(save(tmp_path / "unit.tiff", unit)).astype(int) - expected).max() <= 1
    bits = Image.fromarray(grey).convert("1", dither=Image.Dither.NONE)
    assert set(np.unique(read_photo(save(tmp_path / "bits.png", bits)))) == {0, 255}
    cmyk = read_photo(save(tmp_path / "cmyk.jpg", Image.fromarray(ramp()).convert("CMYK"), quality=95))
    assert np.abs(cmyk.astype(int) - ramp()).mean() < 4


def test_the_double_jpeg_of_phones_reads_as_its_first_picture(tmp_path):
    first, second = Image.fromarray(ramp()), Image.new("RGB", (30, 20))
    path = save(tmp_path / "a.jpg", first, format="MPO", save_all=True, append_images=[second], quality=95)
    image = read_photo(path)
    assert image.shape == (40, 60, 3)
    assert np.abs(image.astype(int) - ramp()).mean() < 4


@pytest.mark.parametrize("size", [(32, 5000), (5000, 32)])
def test_extreme_shapes_are_photos(tmp_path, size):
    assert read_photo(save(tmp_path / "a.png", Image.new("RGB", size))).shape == (size[1], size[0], 3)


def huge_png(side: int) -> bytes:
    """A PNG that says it is side x side, without the data: only a reader that checks first refuses it quickly."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


BAD = {
    "text.jpg": (b"I am not a photo", "not a photo"),
    "empty.png": (b"", "not a photo"),
    "truncated.jpg": (encoded("JPEG")[:900], "damaged"),
    "truncated.png": (encoded("PNG")[:900], "damaged"),
    "header.jpg": (encoded("JPEG")[:100], "photo"),
    "scribbled.png": (encoded("PNG")[:60] + b"\0" * 400 + encoded("PNG")[460:], "damaged"),
    "eight_thousand.png": (huge_png(8001), "more than 64 megapixels"),
    "ten_thousand.png": (huge_png(10_000), "more than 64 megapixels"),
    "twenty_thousand.png": (huge_png(20_000), "more than 64 megapixels"),
    "drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EOF\n", "not a photo"),
}


@pytest.mark.parametrize("name", [*BAD, "missing.jpg", "folder", "five.png", "narrow.png"])
def test_bad_photos_are_one_sentence_without_warnings(tmp_path, name):
    (tmp_path / "folder").mkdir()
    save(tmp_path / "five.png", Image.new("RGB", (5, 5)))
    save(tmp_path / "narrow.png", Image.new("RGB", (400, 31)))
    expected = {"missing.jpg": "no such", "folder": "no such", "five.png": "5x5", "narrow.png": "400x31"}
    if name in BAD:
        (tmp_path / name).write_bytes(BAD[name][0])
        expected[name] = BAD[name][1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadInput) as caught:
            read_photo(tmp_path / name)
    assert expected[name] in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_png_round_trip_and_the_two_ranges(tmp_path):
    path = tmp_path / "new" / "a.png"
    write_png(path, ramp())
    assert np.array_equal(read_photo(path), ramp())
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=-1)
    signed = to_signed(every)
    assert signed.dtype == np.float32
    assert (signed.min(), signed.max()) == (-1, 1)
    assert np.array_equal(to_uint8(signed), every)
    outside = torch.full((1, 2, 2), 7.0, requires_grad=True)
    assert to_uint8(outside).tolist() == [[[255], [255]], [[255], [255]]]


def test_a_png_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, ramp())
    with pytest.raises(TypeError):
        write_png(path, ramp().astype(np.float32))
    assert np.array_equal(read_photo(path), ramp())
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(BadInput, match="cannot be written"):
        write_png(tmp_path / "taken.png", ramp())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.png", "taken.png"]
