"""The shipped shader, run offscreen in OpenGL ES 3, against the numpy reference."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.rendering.composite import composite, to_rgba8
from mobile_avatar.rendering.shader import composite_shader, composite_vertex_shader

PROGRAM = Path(__file__).with_name("gles_offscreen.py")
NO_EGL = 77
BLACK, CLEAR = (0, 0, 0, 1), (0, 0, 0, 0)


@pytest.fixture
def run_shader(tmp_path):
    """(layers, texture, background, align_corners, fragment) -> uint8 (H, W, 4); skips where there is no EGL."""

    def run(uv, lf, mask, texture, background=BLACK, align_corners=False, fragment=None):
        sources = {"vertex": composite_vertex_shader(), "fragment": fragment or composite_shader()}
        numbers = {"background": background, "align_corners": align_corners}
        np.savez(tmp_path / "in.npz", uv=uv, lf=lf, mask=mask, texture=texture, **numbers, **sources)
        command = [sys.executable, str(PROGRAM), str(tmp_path / "in.npz"), str(tmp_path / "out.npy")]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if result.returncode == NO_EGL:
            pytest.skip(f"the shader cannot run on this machine: {result.stdout.strip()}")
        assert result.returncode == 0, result.stderr
        return np.load(tmp_path / "out.npy")

    return run


def half(array):
    """Rounded to 16-bit floats, the format of the GPU's textures."""
    return array.astype(np.float16).astype(np.float32)


def smooth(random, size, channels, cells=6):
    """A random smooth picture in [-1, 1]: a few random waves."""
    y, x = np.mgrid[:size, :size] / size
    waves = random.uniform(-cells, cells, (channels, 5, 2))
    phases = random.uniform(0, 2 * np.pi, (channels, 5))
    image = np.sin(2 * np.pi * (waves @ np.stack([x.ravel(), y.ravel()])) + phases[..., None]).mean(axis=1)
    return half(image.T.reshape(size, size, channels))


def realistic(size=256):
    """Layers as a generator makes them: identity plus a smooth offset, soft mask, smooth lf."""
    random = np.random.default_rng(0)
    line = (2 * np.arange(size, dtype=np.float32) + 1) / size - 1
    uv = np.stack(np.meshgrid(line, line), axis=-1) + 0.4 * smooth(random, size, 2, 2)
    mask = half(1 / (1 + np.exp(-12 * smooth(random, size, 1, 2))))
    return uv.astype(np.float32), smooth(random, size, 3, 3), mask, smooth(random, size, 3, 30)


def adversarial(size=64, texture_size=24):
    """uv on and around every texel border and far outside, noise everywhere, mask also exactly 0 and 1."""
    random = np.random.default_rng(1)
    texels = random.integers(-3, texture_size + 3, (size, size, 2)) + random.choice(
        [0, 0.5, 0.499, 0.25], (size, size, 2)
    )
    uv = texels / texture_size * 2 - 1
    uv[:4] *= 1e6
    uv[4:8] = random.choice([-1, 1, 1.0001, -1.0001], (4, size, 2))
    mask = np.clip(random.uniform(-1, 2, (size, size, 1)), 0, 1)
    lf, texture = random.uniform(-1, 1, (size, size, 3)), random.uniform(-1, 1, (texture_size, texture_size, 3))
    return uv.astype(np.float32), half(lf), half(mask), half(texture)


def largest_difference(first, second):
    return int(np.abs(first.astype(int) - second.astype(int)).max())


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("layers", [realistic, adversarial])
def test_shader_matches_the_reference_within_one_level(run_shader, layers, align_corners):
    layers = layers()
    expected = to_rgba8(composite(*layers, align_corners))
    assert np.ptp(expected[..., :3]) > 100
    assert largest_difference(run_shader(*layers, align_corners=align_corners), expected) <= 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (2, 2)])
def test_shader_is_exact_at_the_border_of_tiny_textures(run_shader, shape):
    """A white texture over a black lf shows the bilinear weights themselves, half-texel fade included."""
    line = np.linspace(-2.5, 2.5, 64, dtype=np.float32)
    uv = np.stack(np.meshgrid(line, line), axis=-1)
    layers = uv, -np.ones((64, 64, 3)), np.ones((64, 64, 1)), 2 * np.ones((*shape, 3))
    expected = to_rgba8(composite(*layers))
    assert len(np.unique(expected[..., 0])) > 10
    assert largest_difference(run_shader(*layers), expected) <= 1


def test_the_border_test_notices_a_shader_that_only_clamps(run_shader):
    """Injected fault: without the fade to zero the texture unit's own border is visibly wrong."""
    layers = adversarial()
    broken = composite_shader().replace(" * (inside.x * inside.y)", "")
    assert broken != composite_shader()
    assert largest_difference(run_shader(*layers, fragment=broken), to_rgba8(composite(*layers))) > 20


def test_background_colour(run_shader):
    uv, lf, mask, texture = adversarial()
    colour = np.array([0.2, 0.5, 0.9])
    expected = composite(uv, lf, mask, texture) + (1 - mask) * 2 * colour.astype(np.float32)
    result = run_shader(uv, lf, mask, texture, background=(*colour, 1))
    assert largest_difference(result, to_rgba8(expected)) <= 1
    assert (result[..., 3] == 255).all()


def test_transparent_background_is_premultiplied(run_shader):
    uv, lf, mask, texture = adversarial()
    result = run_shader(uv, lf, mask, texture, background=CLEAR)
    alpha = np.rint(mask * 255)
    # Over black, premultiplied colour is the reference image, as far as it does not exceed its alpha.
    expected = np.minimum(to_rgba8(composite(uv, lf, mask, texture))[..., :3], alpha)
    assert largest_difference(result[..., 3:], alpha) <= 1
    assert largest_difference(result[..., :3], expected) <= 1
    assert (result[..., :3] <= result[..., 3:]).all()


def test_top_row_stays_on_top(run_shader):
    lf = np.full((32, 32, 3), -1, np.float32)
    lf[:4, :, 0], lf[:, :4, 1] = 1, 1
    result = run_shader(np.full((32, 32, 2), 9, np.float32), lf, np.ones((32, 32, 1)), np.zeros((2, 2, 3)))
    assert (result[:4, :, 0] == 255).all()
    assert not result[4:, :, 0].any()
    assert (result[:, :4, 1] == 255).all()
    assert not result[:, 4:, 1].any()


def test_shaders_pass_the_khronos_validator(tmp_path):
    validator = shutil.which("glslangValidator")
    if validator is None:
        pytest.skip("glslangValidator (Debian package glslang-tools) is not installed")
    (tmp_path / "composite.vert").write_text(composite_vertex_shader())
    (tmp_path / "composite.frag").write_text(composite_shader())
    result = subprocess.run(
        [validator, "-l", "composite.vert", "composite.frag"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stdout


def test_shaders_ask_for_es_3_in_their_first_line():
    for source in (composite_shader(), composite_vertex_shader()):
        assert source.startswith("#version 300 es\n")
        assert "\r" not in source
