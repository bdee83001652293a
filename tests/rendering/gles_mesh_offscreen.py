"""Runs the mesh shaders in an OpenGL ES 3.0 context without a screen: `python gles_mesh_offscreen.py IN.npz OUT.npy`.

IN holds positions, normals (w, 3), uv (w, 2), float32, corners (t, 3) uint16, texture (2, H, W, 4) float32, size, and
the sources `vertex` and `fragment`. OUT is float32 (S, S, 12), rows as glReadPixels gives them. Exit status 77: there
is no EGL here, or it cannot draw into floats; the reason is printed.
"""

import ctypes
import sys

import numpy as np
from gles_offscreen import NO_EGL, make_context


def main(source: str, target: str) -> None:
    given = np.load(source)
    make_context()
    from OpenGL import GLES3 as gl

    program = linked(gl, str(given["vertex"]), str(given["fragment"]))
    gl.glUseProgram(program)
    size = int(given["size"])
    for unit, name in enumerate(("u_texture_low", "u_texture_high")):
        pixels = np.ascontiguousarray(given["texture"][unit], dtype=np.float16)
        gl.glActiveTexture(gl.GL_TEXTURE0 + unit)
        gl.glBindTexture(gl.GL_TEXTURE_2D, gl.glGenTextures(1))
        height, width = pixels.shape[:2]
        gl.glTexImage2D(
            gl.GL_TEXTURE_2D, 0, gl.GL_RGBA16F, width, height, 0, gl.GL_RGBA, gl.GL_HALF_FLOAT, pixels.tobytes()
        )
        for parameter, value in (
            (gl.GL_TEXTURE_MIN_FILTER, gl.GL_LINEAR),
            (gl.GL_TEXTURE_MAG_FILTER, gl.GL_LINEAR),
            (gl.GL_TEXTURE_WRAP_S, gl.GL_CLAMP_TO_EDGE),
            (gl.GL_TEXTURE_WRAP_T, gl.GL_CLAMP_TO_EDGE),
        ):
            gl.glTexParameteri(gl.GL_TEXTURE_2D, parameter, value)
        gl.glUniform1i(gl.glGetUniformLocation(program, name), unit)

    for name, values in (("a_position", "positions"), ("a_normal", "normals"), ("a_uv", "uv")):
        array = np.ascontiguousarray(given[values], dtype=np.float32)
        place = gl.glGetAttribLocation(program, name)
        assert place >= 0, f"the shader does not use {name}"
        gl.glBindBuffer(gl.GL_ARRAY_BUFFER, gl.glGenBuffers(1))
        gl.glBufferData(gl.GL_ARRAY_BUFFER, array.nbytes, array, gl.GL_STATIC_DRAW)
        gl.glEnableVertexAttribArray(place)
        gl.glVertexAttribPointer(place, array.shape[1], gl.GL_FLOAT, gl.GL_FALSE, 0, ctypes.c_void_p(0))
    corners = np.ascontiguousarray(given["corners"], dtype=np.uint16)
    gl.glBindBuffer(gl.GL_ELEMENT_ARRAY_BUFFER, gl.glGenBuffers(1))
    gl.glBufferData(gl.GL_ELEMENT_ARRAY_BUFFER, corners.nbytes, corners, gl.GL_STATIC_DRAW)

    gl.glActiveTexture(gl.GL_TEXTURE2)
    gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, gl.glGenFramebuffers(1))
    places = [gl.GL_COLOR_ATTACHMENT0 + i for i in range(3)]
    for place in places:
        screen = gl.glGenTextures(1)
        gl.glBindTexture(gl.GL_TEXTURE_2D, screen)
        gl.glTexStorage2D(gl.GL_TEXTURE_2D, 1, gl.GL_RGBA16F, size, size)
        gl.glFramebufferTexture2D(gl.GL_FRAMEBUFFER, place, gl.GL_TEXTURE_2D, screen, 0)
    depth = gl.glGenRenderbuffers(1)
    gl.glBindRenderbuffer(gl.GL_RENDERBUFFER, depth)
    gl.glRenderbufferStorage(gl.GL_RENDERBUFFER, gl.GL_DEPTH_COMPONENT24, size, size)
    gl.glFramebufferRenderbuffer(gl.GL_FRAMEBUFFER, gl.GL_DEPTH_ATTACHMENT, gl.GL_RENDERBUFFER, depth)
    if gl.glCheckFramebufferStatus(gl.GL_FRAMEBUFFER) != gl.GL_FRAMEBUFFER_COMPLETE:
        print("this OpenGL ES cannot draw into half-precision floats")
        sys.exit(NO_EGL)
    gl.glDrawBuffers(3, (gl.GLenum * 3)(*places))
    gl.glViewport(0, 0, size, size)
    gl.glEnable(gl.GL_DEPTH_TEST)
    gl.glDepthFunc(gl.GL_LESS)
    gl.glClearColor(0, 0, 0, 0)
    gl.glClear(gl.GL_COLOR_BUFFER_BIT | gl.GL_DEPTH_BUFFER_BIT)
    gl.glDrawElements(gl.GL_TRIANGLES, corners.size, gl.GL_UNSIGNED_SHORT, ctypes.c_void_p(0))
    result = np.zeros((3, size, size, 4), np.float32)
    for place, pixels in zip(places, result, strict=True):
        gl.glReadBuffer(place)
        gl.glReadPixels(0, 0, size, size, gl.GL_RGBA, gl.GL_FLOAT, pixels)
    assert gl.glGetError() == gl.GL_NO_ERROR
    np.save(target, np.concatenate(result, axis=-1))


def linked(gl: object, *sources: str) -> int:
    """A program of a vertex and a fragment shader."""
    program = gl.glCreateProgram()
    for kind, text in zip((gl.GL_VERTEX_SHADER, gl.GL_FRAGMENT_SHADER), sources, strict=True):
        shader = gl.glCreateShader(kind)
        gl.glShaderSource(shader, text)
        gl.glCompileShader(shader)
        assert gl.glGetShaderiv(shader, gl.GL_COMPILE_STATUS), gl.glGetShaderInfoLog(shader)
        gl.glAttachShader(program, shader)
    gl.glLinkProgram(program)
    assert gl.glGetProgramiv(program, gl.GL_LINK_STATUS), gl.glGetProgramInfoLog(program)
    return program


if __name__ == "__main__":
    main(*sys.argv[1:])
