"""The numpy reference of the split warp against torch's own grid_sample."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mobile_avatar.rendering.composite import composite, to_rgb8, to_rgba8


def torch_composite(uv, lf, mask, texture, align_corners):
    hf = F.grid_sample(
        torch.from_numpy(texture).permute(2, 0, 1)[None].expand(len(uv), -1, -1, -1),
        torch.from_numpy(uv),
        "bilinear",
        "zeros",
        align_corners=align_corners,
    ).permute(0, 2, 3, 1)
    lf, mask = torch.from_numpy(lf), torch.from_numpy(mask)
    return ((lf + hf) * mask - (1 - mask)).numpy()


def layers(random, frames, height, width):
    """Random lf and mask; a third of the mask is exactly 0, a third exactly 1."""
    lf = random.uniform(-1, 1, (frames, height, width, 3)).astype(np.float32)
    mask = np.clip(random.uniform(-1, 2, (frames, height, width, 1)), 0, 1).astype(np.float32)
    return lf, mask


def border_coordinates(size):
    """Coordinates on, just inside and just outside of every line where bilinear sampling changes its texels."""
    edges = np.concatenate([np.arange(-2, size + 3) / size * 2 - 1, (2 * np.arange(-2, size + 3) + 1) / size - 1])
    edges = np.concatenate([edges, np.linspace(-1, 1, size) if size > 1 else [0.0]]).astype(np.float32)
    return np.concatenate([np.nextafter(edges, np.float32(-9)), edges, np.nextafter(edges, np.float32(9))])


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (7, 12), (1, 1), (1, 5), (4, 1), (2, 2)])
def test_matches_torch_everywhere(height, width, align_corners):
    random = np.random.default_rng(0)
    texture = random.uniform(-5, 5, (height, width, 3)).astype(np.float32)
    uv = random.uniform(-1.6, 1.6, (3, 20, 31, 2)).astype(np.float32)
    lf, mask = layers(random, 3, 20, 31)
    expected = torch_composite(uv, lf, mask, texture, align_corners)
    np.testing.assert_allclose(composite(uv, lf, mask, texture, align_corners), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_matches_torch_on_every_border(size, align_corners):
    random = np.random.default_rng(1)
    texture = random.uniform(-1, 1, (size, size, 3)).astype(np.float32)
    line = border_coordinates(size)
    uv = np.stack(np.meshgrid(line, line), axis=-1)[None]
    lf, mask = layers(random, 1, len(line), len(line))
    expected = torch_composite(uv, lf, mask, texture, align_corners)
    np.testing.assert_allclose(composite(uv, lf, mask, texture, align_corners), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("far", [3.0, 1e3, 1e9, 3e38, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("align_corners", [False, True])
def test_far_outside_is_zero(far, align_corners):
    texture = np.ones((8, 8, 3), np.float32)
    uv = np.zeros((2, 2, 2), np.float32)
    uv[0, 0, 0], uv[0, 1, 1], uv[1, 0] = far, far, far
    image = composite(uv, np.zeros((2, 2, 3), np.float32), np.ones((2, 2, 1), np.float32), texture, align_corners)
    assert image[1, 1].tolist() == [1, 1, 1]
    assert not image[0].any()
    assert not image[1, 0].any()


def test_single_frame_equals_the_batch_and_texture_may_carry_a_batch_axis():
    random = np.random.default_rng(2)
    texture = random.uniform(-1, 1, (8, 8, 3)).astype(np.float32)
    uv = random.uniform(-1.2, 1.2, (2, 9, 9, 2)).astype(np.float32)
    lf, mask = layers(random, 2, 9, 9)
    batch = composite(uv, lf, mask, texture[None])
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch[1], composite(uv[1], lf[1], mask[1], texture))


def test_mask_zero_is_background_whatever_the_rest():
    uv, lf = np.zeros((4, 4, 2), np.float32), np.full((4, 4, 3), 7, np.float32)
    assert (composite(uv, lf, np.zeros((4, 4, 1), np.float32), np.ones((2, 2, 3), np.float32)) == -1).all()


def test_eight_bit_rounding_is_to_nearest_and_clamps():
    levels = np.arange(256, dtype=np.float32)
    exact = np.repeat((levels / 127.5 - 1)[:, None], 3, axis=1)
    assert (to_rgb8(exact)[:, 0] == levels).all()
    assert (to_rgb8(exact + 0.4 / 127.5)[:, 0] == levels).all()
    assert (to_rgb8(exact - 0.4 / 127.5)[:, 0] == levels).all()
    assert to_rgb8(np.array([[-3.0, 2.5, np.nan]])).tolist() == [[0, 255, 0]]
    assert to_rgba8(np.array([[-1.0, 0.0, 1.0]])).tolist() == [[0, 128, 255, 255]]
