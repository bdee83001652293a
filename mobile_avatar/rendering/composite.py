"""The plain reference of what an app does with the outputs of a `split` graph: warp the texture and composite.

    hf = grid_sample(texture, uv)
    image = (lf + hf) * mask - (1 - mask)

`shaders/composite.frag` computes the same on a GPU; both are tested against each other and against torch.
"""

import numpy as np

FAR = 1e6  # coordinates beyond it are outside of any texture; clipped, so that none of them overflows


def composite(
    uv: np.ndarray, lf: np.ndarray, mask: np.ndarray, texture: np.ndarray, align_corners: bool = False
) -> np.ndarray:
    """Warp the texture by uv, add the low-frequency image and put the mask on.

    Args:
        uv: float32 (N, H, W, 2) or (H, W, 2); where in the texture each pixel looks: x to the right,
            y down. [-1, 1] is the texture; beyond it are zeros, and so is the answer to NaN.
        lf: float32 (N, H, W, 3) or (H, W, 3), low-frequency image, about [-1, 1].
        mask: float32 (N, H, W, 1) or (H, W, 1), 0 = background, 1 = head.
        texture: float32 (h, w, 3) or (1, h, w, 3), one person's texture, about [-1, 1].
        align_corners: meaning of -1 and 1, as in torch: the outer edges of the corner texels (False) or their centres.

    Returns:
        float32, shape of `lf`; background is -1. Not clamped: lf + hf may leave [-1, 1].
    """
    uv, lf, mask = (np.asarray(array, dtype=np.float32) for array in (uv, lf, mask))
    texture = np.asarray(texture, dtype=np.float32)
    hf = sample_bilinear(texture.reshape(texture.shape[-3:]), uv, align_corners)
    return (lf + hf) * mask - (1 - mask)


def sample_bilinear(texture: np.ndarray, uv: np.ndarray, align_corners: bool) -> np.ndarray:
    """torch's grid_sample(mode="bilinear", padding_mode="zeros") for channels-last arrays.

    Args:
        texture: float32 (h, w, C).
        uv: float32 (..., 2), (x, y).
        align_corners: as in `composite`.

    Returns:
        float32 (..., C).
    """
    height, width, _ = texture.shape
    # One texel of zeros around the texture holds all that lies outside; positions are relative to its corner.
    padded = np.pad(texture, ((1, 1), (1, 1), (0, 0)))
    (left, right_share), (top, lower_share) = (
        _cell(uv[..., axis], size, align_corners) for axis, size in ((0, width), (1, height))
    )
    upper = _mix(padded[top, left], padded[top, left + 1], right_share)
    lower = _mix(padded[top + 1, left], padded[top + 1, left + 1], right_share)
    return _mix(upper, lower, lower_share)


def to_rgb8(image: np.ndarray) -> np.ndarray:
    """[-1, 1] -> uint8 [0, 255], rounded to the nearest level as a GPU does when it writes an RGBA8 target.

    Args:
        image: float (..., 3); values outside [-1, 1] are clamped, NaN becomes 0.
    """
    levels = np.clip(np.nan_to_num(np.asarray(image, dtype=np.float32), nan=-1.0) * 127.5 + 127.5, 0, 255)
    return np.rint(levels).astype(np.uint8)


def to_rgba8(image: np.ndarray) -> np.ndarray:
    """[-1, 1] (..., 3) -> opaque uint8 (..., 4); rounding as in `to_rgb8`."""
    rgb = to_rgb8(image)
    return np.concatenate((rgb, np.full_like(rgb[..., :1], 255)), axis=-1)


def _cell(position: np.ndarray, size: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """First of the two neighbouring texels in the padded texture, and the share of the second one."""
    position = np.clip(np.nan_to_num(position, nan=-FAR), -FAR, FAR)
    texel = (position + 1) / 2 * (size - 1) if align_corners else ((position + 1) * size - 1) / 2
    texel = np.clip(texel, -1, size) + 1
    first = np.minimum(np.floor(texel), size).astype(np.intp)
    return first, (texel - first).astype(np.float32)[..., None]


def _mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return first * (1 - share) + second * share
