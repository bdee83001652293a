#version 300 es
// One triangle that covers the viewport. Draw it with glDrawArrays(GL_TRIANGLES, 0, 3); no buffers, no attributes.

// Position in the picture: (0, 0) = top left, (1, 1) = bottom right. The maps of the model have their first row at the
// top, and the first row that is uploaded has the texture coordinate 0: so this is also their texture coordinate.
out highp vec2 v_position;

void main() {
    highp vec2 corner = vec2(float((gl_VertexID << 1) & 2), float(gl_VertexID & 2));
    v_position = corner;
    gl_Position = vec4(corner.x * 2.0 - 1.0, 1.0 - corner.y * 2.0, 0.0, 1.0);
}
