"""Light on a point: one main light with highlights, and spherical harmonics for everything around."""

import torch
from torch import Tensor

# How far the main light reaches past the terminator, by channel: red travels furthest through skin.
WRAP = (0.34, 0.24, 0.20)


def unit(x: Tensor) -> Tensor:
    """(k, 3) -> unit vectors; spelled out, because a reduction may add in an order that depends on k."""
    a, b, c = x.unbind(-1)
    return x / torch.sqrt(a * a + b * b + c * c + 1e-12)[:, None]


def sky_light(sky: Tensor, normal: Tensor) -> Tensor:
    """Irradiance (k, 3) from spherical harmonics up to degree 2 at unit normals (k, 3); y points down.

    sky (k, 27): coefficients (9, RGB) of 1, y, z, x, xy, yz, 3zz-1, xz, xx-yy; the constants of the orthonormal
    basis and of the cosine lobe (Ramamoorthi and Hanrahan, 2001) are part of the coefficients.
    """
    x, y, z = normal.unbind(-1)
    basis = (torch.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y)
    light = torch.zeros_like(normal)
    for number, value in enumerate(basis):
        light = light + sky[:, 3 * number : 3 * number + 3] * value[:, None]
    return light.clamp(min=0.02)


def shade_points(albedo: Tensor, gloss: Tensor, shade: Tensor, normal: Tensor, light: Tensor, sky: Tensor) -> Tensor:
    """Colour (k, 3), display values in [0, 1].

    albedo (k, 3) linear; gloss (k,); shade (k,) self-shading; normal (k, 3) unit, towards the viewer is +z; light
    (k, 6) direction and colour of the main light; sky (k, 27).
    """
    direction, key = light.split(3, dim=-1)
    nx, ny, nz = normal.unbind(-1)
    lx, ly, lz = direction.unbind(-1)
    lambert = nx * lx + ny * ly + nz * lz
    wrap = normal.new_tensor(WRAP)
    wrapped = ((lambert[:, None] + wrap) / (1 + wrap)).clamp(min=0)
    around = sky_light(sky, normal)
    light_in = key * wrapped * (0.4 + 0.6 * shade)[:, None] + around * shade[:, None]
    length = torch.sqrt(lx * lx + ly * ly + (lz + 1) ** 2 + 1e-9)
    half = ((nx * lx + ny * ly + nz * (lz + 1)) / length).clamp(0, 1)
    rim = (1 - nz.clamp(0, 1)) ** 3
    shine = gloss * shade
    colour = albedo * light_in + key * (shine * (0.7 * half**18 + 0.5 * half**60))[:, None]
    colour = colour + around * (0.25 * shine * rim)[:, None]
    colour = colour / (1 + 0.18 * colour)  # soft shoulder: highlights do not clip to flat patches
    return (colour.clamp(min=1e-6) * 1.12).clamp(max=1) ** (1 / 2.2)
