#version 300 es
// The draw call between mesh graph and renderer of a ROME avatar: 12 channels per pixel in three render targets.
//
// Textures: the two halves of `texture.f16` (channels 0 to 3, then 4 to 7), each RGBA16F with one mip level, filter
// LINEAR, CLAMP_TO_EDGE. Many GPUs interpolate with 8-bit weights.
//
// Render targets, RGBA16F (or RGBA32F), S x S, which needs EXT_color_buffer_half_float or EXT_color_buffer_float:
//   0  channels 0 to 3 of the texture     1  channels 4 to 7     2  normal (x, y, z) and coverage
// Side by side they are the renderer's input `features` of 12 channels, row by row from the top of the picture. Where no
// face is drawn all are 0: clear them to that.

precision highp float;

uniform highp sampler2D u_texture_low;
uniform highp sampler2D u_texture_high;

in highp vec3 v_normal;
in highp vec2 v_uv;

layout(location = 0) out highp vec4 texture_low;
layout(location = 1) out highp vec4 texture_high;
layout(location = 2) out highp vec4 normal_coverage;

void main() {
    vec2 size = vec2(textureSize(u_texture_low, 0));
    // Texel centres lie at (2 j + 1) / size - 1, with zeros outside as in training.
    vec2 texel = clamp(((v_uv + 1.0) * size - 1.0) * 0.5, vec2(-1.0), size);
    // The texture unit repeats the outermost texels, but within one texel of the edge they have to fade to zero.
    vec2 inside = clamp(texel + 1.0, 0.0, 1.0) * clamp(size - texel, 0.0, 1.0);
    float fade = inside.x * inside.y;
    vec2 place = (texel + 0.5) / size;
    texture_low = textureLod(u_texture_low, place, 0.0) * fade;
    texture_high = textureLod(u_texture_high, place, 0.0) * fade;
    // Interpolated, and as in training not made unit again.
    normal_coverage = vec4(v_normal, 1.0);
}
