"""GLSL ES 3.00 sources; read them through `mobile_avatar.rendering.shader`."""
