"""Photos in, PNG out, and the two pixel ranges: uint8 (H, W, C) of files and float [-1, 1] (C, H, W) of models."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SMALLEST_SIDE = 32
LARGEST_PIXELS = 64_000_000
# What a photo may be (JPEG includes the MPO of phones); Pillow knows more formats, some of which start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def read_photo(path: str | Path) -> np.ndarray:
    """Read a photo as upright uint8 (H, W, 3) RGB.

    The EXIF orientation is applied, transparency is laid over white, 16-bit, grey, palette and CMYK files become
    8-bit RGB, and of an animation the first frame is taken. The size is judged before anything is decoded.

    Raises:
        BadInput: the file is missing, is no image, is damaged, has a side below 32 pixels or over 64 megapixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: there is no such photo file")
    too_large = BadInput(f"{path}: the photo has more than {LARGEST_PIXELS // 1_000_000} megapixels; shrink it first")
    # Pillow warns about large, odd and damaged files; here they are either fine or refused.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(path, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise too_large from error
        except PermissionError as error:
            raise BadInput(f"{path}: the photo cannot be read ({error.strerror})") from error
        except UnidentifiedImageError as error:
            raise BadInput(f"{path}: not a photo that can be read; give a JPEG, PNG, WebP, BMP, TIFF or GIF") from error
        except Exception as error:  # damaged headers raise whatever the format's reader stumbles over
            raise BadInput(f"{path}: the photo is damaged and cannot be read") from error
        with image:
            width, height = image.size
            if min(width, height) < SMALLEST_SIDE:
                raise BadInput(
                    f"{path}: the photo is {width}x{height} pixels, too small: each side needs {SMALLEST_SIDE} or more"
                )
            if width * height > LARGEST_PIXELS:
                raise too_large
            try:
                return _to_rgb(ImageOps.exif_transpose(image))
            except Exception as error:  # as above: truncated and damaged data have no common error
                raise BadInput(f"{path}: the photo is truncated or damaged") from error


def write_png(path: str | Path, array: np.ndarray) -> None:
    """Write uint8 (H, W), (H, W, 3) or (H, W, 4) as a PNG, beside the old file first and then in its place.

    Raises:
        BadInput: the place cannot be written.
    """
    from PIL import Image

    if array.dtype != np.uint8:
        raise TypeError(f"write_png needs uint8, not {array.dtype}; see to_uint8")
    try:
        with replace_file(Path(path)) as temporary:
            Image.fromarray(array).save(temporary, format="PNG")
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({error.strerror or error}); choose another output") from error


def resized(images: "Tensor", size: int) -> "Tensor":
    """Pictures (n, c, H, W) with sides of `size` pixels; smaller ones are averaged, not picked."""
    from torch.nn.functional import interpolate

    if images.shape[-2:] == (size, size):
        return images
    return interpolate(images, (size, size), mode="bilinear", antialias=True)


def to_uint8(image: "np.ndarray | Tensor") -> np.ndarray:
    """Float (C, H, W) in [-1, 1], numpy or torch, to uint8 (H, W, C), rounded; values outside are cut."""
    if not isinstance(image, np.ndarray):
        image = image.detach().cpu().float().numpy()
    levels = np.rint((image.astype(np.float32) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(1, 2, 0))


def to_signed(image: np.ndarray) -> np.ndarray:
    """Uint8 (H, W, C) to float32 (C, H, W) in [-1, 1]: value / 127.5 - 1."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32) / 127.5 - 1


def _to_rgb(image: "Image.Image") -> np.ndarray:
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        image = Image.fromarray((values / _range(image.mode, values) * 255).clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _range(mode: str, values: np.ndarray) -> float:
    """What white is in a grey file: known for 16 bits; 32-bit and float files do not say, their largest value does."""
    if mode.startswith("I;16"):
        return 65535.0
    largest = float(values.max())
    return next((limit for limit in (1.0, 255.0, 65535.0) if largest <= limit), largest)
