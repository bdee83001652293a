#version 300 es
// Draws the mesh of a ROME avatar as the input of its renderer; `mesh.frag` says what goes where.
//
// Attributes, all float32, one row per drawn vertex:
//   a_position  output `positions` of the mesh graph, every frame
//   a_normal    output `normals` of the mesh graph, every frame
//   a_uv        `uv.f32`, once
// Index buffer: `corners.u16`, once (corners.u32 with GL_UNSIGNED_INT where the bundle has that).
// State: depth test on, GL_LESS, cleared to 1; no face culling; no blending; colours cleared to 0; the viewport is the
// whole framebuffer, which has the size that the manifest says. glDrawElements(GL_TRIANGLES, 3 * triangles, ...).

in highp vec3 a_position;
in highp vec3 a_normal;
in highp vec2 a_uv;

out highp vec3 v_normal;
out highp vec2 v_uv;

// `draw.depth` of the manifest: z lies between -DEPTH and DEPTH.
const highp float DEPTH = 20.0;

void main() {
    v_normal = a_normal;
    v_uv = a_uv;
    // Positions are those of the picture, y down, and are not turned over here: the first row of the framebuffer is the
    // top row of the picture. So glReadPixels, or a texture that is read from row 0, has the row order of the network.
    // Without perspective (w is 1) everything is interpolated linearly in the picture.
    gl_Position = vec4(a_position.xy, a_position.z / DEPTH, 1.0);
}
