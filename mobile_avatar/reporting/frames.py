"""Pictures of golden cases: what torch drew, what the exported file drew, and how they differ."""

import base64
import io
from dataclasses import dataclass

import numpy as np

from mobile_avatar.rendering.composite import to_rgb8
from mobile_avatar.verification.parity import decibels

AMPLIFIED = 16
"""Differences are shown this many times larger, in every report, so that pages can be compared by eye."""
LARGEST = 256
"""Side in pixels above which a picture is made smaller for the page."""
SHOWN = 3
"""Golden cases on a page."""
LEVELS = 127.5
"""8-bit levels per unit of an image in [-1, 1]."""


@dataclass(frozen=True)
class Frame:
    """One golden case; pictures are `data:` addresses."""

    case: int
    """From 0."""
    why: str
    """Why this one is shown."""
    torch: str
    exported: str = ""
    """Empty when the file did not run here."""
    difference: str = ""
    psnr_db: float | None = None
    largest: float | None = None
    """Largest difference, in 8-bit levels."""


@dataclass(frozen=True)
class Frames:
    """The frames of a bundle."""

    frames: tuple[Frame, ...] = ()
    scale: str = ""
    """Colours of the difference from none to the most, as a `data:` address."""
    layers: tuple[tuple[str, str, str], ...] = ()
    """(name, what it shows, picture)."""
    cases: int = 0


def make_frames(
    golden: dict[str, np.ndarray], results: dict[str, np.ndarray], layout: str, wanted: tuple = ()
) -> Frames:
    """Pictures of some cases: the front pose, the case that the file draws worst, and the one turned furthest away.

    Args:
        golden: float32 (T, ...) by name, `image` among them.
        results: the same from the file; empty when it did not run.
        layout: of the arrays, `NHWC` or `NCHW`.
        wanted: cases to show instead.
    """
    truth = _channels_last(golden["image"], golden, layout)
    made = _channels_last(results["image"], golden, layout) if "image" in results else None
    if made is not None and made.shape != truth.shape:
        made = None
    errors = None if made is None else np.nan_to_num(made - truth, nan=2.0, posinf=2.0, neginf=-2.0)
    order = _worst_first(errors, len(truth))
    away = np.abs(golden["keypoints"] - golden["keypoints"][0]).mean(axis=1)
    furthest = np.argsort(-away, kind="stable").tolist()
    chosen = wanted or tuple(dict.fromkeys((0, order[0], *furthest)))[:SHOWN]
    names = [(0, "front pose"), (furthest[0], "furthest from the front pose")]
    names += [] if errors is None else [(order[0], "drawn worst")]
    frames = []
    for case in chosen:
        why = ", ".join(name for number, name in names if number == case)
        frame = Frame(case, why, picture(to_rgb8(truth[case])))
        if errors is not None:
            error = np.abs(errors[case]).max(axis=-1)
            frame = Frame(
                case,
                why,
                frame.torch,
                picture(to_rgb8(made[case])),
                picture(_heat(error), largest=True),
                decibels(2.0, errors[case]),
                float(error.max()) * LEVELS,
            )
        frames.append(frame)
    source = results or golden
    layers = _layers(source, chosen[-1], layout) if "uv" in source else ()
    return Frames(tuple(frames), _scale(), layers, len(truth))


def texture_picture(texture: np.ndarray) -> str:
    """A `data:` address of (S, S, 3) float in about [-1, 1]."""
    return picture(to_rgb8(texture))


def picture(pixels: np.ndarray, largest: bool = False) -> str:
    """uint8 (H, W, 3) as a PNG in a `data:` address, made smaller when it is larger than the page shows.

    Args:
        largest: keep the brightest pixel of each block instead of the mean, so that no difference disappears.
    """
    from PIL import Image

    factor = -(-max(pixels.shape[:2]) // LARGEST)
    if factor > 1:
        height, width = (side // factor for side in pixels.shape[:2])
        blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
        if largest:
            blocks = blocks.transpose(0, 2, 1, 3, 4).reshape(height, width, -1, 3)
            brightest = blocks.sum(axis=-1, dtype=np.int32).argmax(axis=-1)
            pixels = np.take_along_axis(blocks, brightest[..., None, None], axis=2)[:, :, 0]
        else:
            pixels = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _channels_last(image: np.ndarray, golden: dict[str, np.ndarray], layout: str) -> np.ndarray:
    """The image as NHWC: where the graph itself draws it, it has the layout of the graph."""
    return image.transpose(0, 2, 3, 1) if layout == "NCHW" and "uv" not in golden else image


def _worst_first(errors: np.ndarray | None, cases: int) -> list[int]:
    if errors is None:
        return list(range(cases))
    return np.argsort(-np.square(errors).reshape(cases, -1).mean(axis=1), kind="stable").tolist()


def _heat(error: np.ndarray) -> np.ndarray:
    """Absolute differences (H, W) in [0, 2] as colours: black for none, the brightest for 255 / AMPLIFIED levels."""
    from matplotlib import colormaps

    return (
        (colormaps["inferno"](np.clip(error * LEVELS * AMPLIFIED / 255, 0, 1))[..., :3] * 255).round().astype(np.uint8)
    )


def _scale() -> str:
    ramp = np.linspace(0, 255 / AMPLIFIED / LEVELS, 128)
    return picture(np.tile(_heat(ramp[None]), (6, 1, 1)))


def _layers(source: dict[str, np.ndarray], case: int, layout: str) -> tuple[tuple[str, str, str], ...]:
    """uv, lf and mask of one case."""
    axes = (1, 2, 0) if layout == "NCHW" else (0, 1, 2)
    uv, lf, mask = (np.nan_to_num(source[name][case].transpose(axes)) for name in ("uv", "lf", "mask"))
    coordinates = np.concatenate((uv, np.zeros_like(mask)), axis=-1)
    return (
        ("uv", "where each pixel looks in the texture: x as red, y as green", picture(to_rgb8(coordinates))),
        ("lf", "low-frequency image", picture(to_rgb8(lf))),
        ("mask", "head (white) and background", picture(to_rgb8(np.repeat(mask * 2 - 1, 3, axis=-1)))),
    )
