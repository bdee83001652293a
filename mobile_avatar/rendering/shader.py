"""The shaders that ship in bundles, read from the installed package."""

from importlib import resources


def composite_shader() -> str:
    """Source of `composite.frag` (GLSL ES 3.00): the GPU version of `composite.composite`, with 8-bit output."""
    return _read("composite.frag")


def composite_vertex_shader() -> str:
    """Source of `composite.vert` (GLSL ES 3.00): one triangle over the whole viewport, without vertex buffers."""
    return _read("composite.vert")


def mesh_shader() -> str:
    """Source of `mesh.frag` (GLSL ES 3.00): the GPU version of `feature_image`, three render targets."""
    return _read("mesh.frag")


def mesh_vertex_shader() -> str:
    """Source of `mesh.vert` (GLSL ES 3.00)."""
    return _read("mesh.vert")


def _read(name: str) -> str:
    return resources.files(__package__).joinpath("shaders", name).read_text(encoding="utf-8")
