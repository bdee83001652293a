#version 300 es
// Makes a frame from the outputs of a `split` avatar graph: hf = texture at uv; image = (lf + hf) * mask + background.
//
// Textures (all: one mip level, CLAMP_TO_EDGE; glPixelStorei(GL_UNPACK_ALIGNMENT, 1) before uploading)
//   u_uv       RG32F, upload GL_RG + GL_FLOAT straight from the graph's NHWC output (RGBA32F works too). RG16F costs up
//              to 1/32 texel of precision at 256 pixels. Filter NEAREST: 32-bit floats are not filterable in ES 3.0.
//   u_lf       RGB16F or RGBA16F, upload GL_RGB + GL_FLOAT from the NHWC output. Filter NEAREST.
//   u_mask     R16F, upload GL_RED + GL_FLOAT. Filter NEAREST.
//   u_texture  RGBA16F, once per avatar (`texture.f16`; its alpha is not read). Filter LINEAR: this is the warp.
//              Many GPUs interpolate with 8-bit weights: on sharp edges of the texture expect one level of difference.
// For a viewport larger than the maps choose LINEAR for lf and mask, and RG16F + LINEAR for uv: the texture is then
// sampled at the resolution of the screen.
//
// Orientation: the first row of every map is the top row; x goes to the right, y down, also in uv. On the screen the
// picture is upright. In a framebuffer that is read back, glReadPixels returns the bottom row first.
//
// Output: premultiplied RGBA. With an opaque background alpha is 1. Blend with (GL_ONE, GL_ONE_MINUS_SRC_ALPHA).

precision highp float;
precision highp int;

uniform highp sampler2D u_uv;
uniform highp sampler2D u_lf;
uniform highp sampler2D u_mask;
uniform highp sampler2D u_texture;
// Colour behind the head, not premultiplied, 0..1. (0, 0, 0, 1) gives the reference image, whose background is black;
// (0, 0, 0, 0) leaves the background transparent.
uniform vec4 u_background;
// `align_corners` of the avatar, from manifest.json; false unless it says otherwise.
uniform bool u_align_corners;

in highp vec2 v_position;
out vec4 colour;

// The texture at uv in [-1, 1], with zeros outside as in training.
vec3 warp(vec2 uv) {
    vec2 size = vec2(textureSize(u_texture, 0));
    vec2 texel = u_align_corners ? (uv + 1.0) * 0.5 * (size - 1.0) : ((uv + 1.0) * size - 1.0) * 0.5;
    texel = clamp(texel, vec2(-1.0), size);
    // The texture unit repeats the outermost texels, but within one texel of the edge they have to fade to zero.
    // Bilinear weights are products of one factor per axis, so multiplying by what of each lies inside is exact.
    vec2 inside = clamp(texel + 1.0, 0.0, 1.0) * clamp(size - texel, 0.0, 1.0);
    return textureLod(u_texture, (texel + 0.5) / size, 0.0).rgb * (inside.x * inside.y);
}

void main() {
    vec3 head = texture(u_lf, v_position).rgb + warp(texture(u_uv, v_position).rg);
    float mask = texture(u_mask, v_position).r;
    // [-1, 1] -> [0, 1], where the official "- (1 - mask)" becomes a black background.
    vec4 premultiplied = vec4((head * 0.5 + 0.5) * mask, mask);
    premultiplied += (1.0 - mask) * vec4(u_background.rgb * u_background.a, u_background.a);
    // Clamped after compositing, as the reference; a premultiplied colour must not exceed its alpha.
    float alpha = clamp(premultiplied.a, 0.0, 1.0);
    colour = vec4(clamp(premultiplied.rgb, 0.0, alpha), alpha);
}
