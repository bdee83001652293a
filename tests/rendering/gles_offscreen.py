"""Runs the composite shaders in an OpenGL ES 3.0 context without a screen: `python gles_offscreen.py IN.npz OUT.npy`.

IN holds uv (H, W, 2), lf (H, W, 3), mask (H, W, 1), texture (h, w, 3), all float32, background (4,), align_corners, and
the sources `vertex` and `fragment`. OUT is uint8 (H, W, 4), top row first. Exit status 77: there is no EGL here; the
reason is printed.

It is a program of its own because PyOpenGL chooses its platform when it is imported.
"""

import os
import sys

import numpy as np

NO_EGL = 77


def make_context():
    os.environ["PYOPENGL_PLATFORM"] = "egl"
    os.environ["EGL_PLATFORM"] = "surfaceless"
    try:
        from OpenGL import EGL

        display = EGL.eglGetDisplay(EGL.EGL_DEFAULT_DISPLAY)
        if not EGL.eglInitialize(display, EGL.EGLint(), EGL.EGLint()):
            raise RuntimeError("eglInitialize failed")
    except Exception as error:  # missing package, missing libEGL.so, or no driver: each raises in its own way
        print(f"no EGL: {type(error).__name__}: {error}")
        sys.exit(NO_EGL)
    EGL.eglBindAPI(EGL.EGL_OPENGL_ES_API)
    config, count = (EGL.EGLConfig * 1)(), EGL.EGLint()
    wanted = [EGL.EGL_SURFACE_TYPE, 0, EGL.EGL_RENDERABLE_TYPE, 0x40, EGL.EGL_NONE]  # 0x40: ES 3
    EGL.eglChooseConfig(display, (EGL.EGLint * len(wanted))(*wanted), config, 1, count)
    version = [EGL.EGL_CONTEXT_CLIENT_VERSION, 3, EGL.EGL_NONE]
    context = EGL.eglCreateContext(display, config[0], EGL.EGL_NO_CONTEXT, (EGL.EGLint * 3)(*version))
    if not EGL.eglMakeCurrent(display, EGL.EGL_NO_SURFACE, EGL.EGL_NO_SURFACE, context):
        print("no EGL: no surfaceless OpenGL ES 3 context")
        sys.exit(NO_EGL)


def main(source: str, target: str) -> None:
    given = np.load(source)
    make_context()
    from OpenGL import GLES3 as gl

    def compiled(kind, text):
        shader = gl.glCreateShader(kind)
        gl.glShaderSource(shader, text)
        gl.glCompileShader(shader)
        assert gl.glGetShaderiv(shader, gl.GL_COMPILE_STATUS), gl.glGetShaderInfoLog(shader)
        return shader

    program = gl.glCreateProgram()
    gl.glAttachShader(program, compiled(gl.GL_VERTEX_SHADER, str(given["vertex"])))
    gl.glAttachShader(program, compiled(gl.GL_FRAGMENT_SHADER, str(given["fragment"])))
    gl.glLinkProgram(program)
    assert gl.glGetProgramiv(program, gl.GL_LINK_STATUS), gl.glGetProgramInfoLog(program)
    gl.glUseProgram(program)

    # Formats and filters exactly as the comment at the top of composite.frag tells an app to choose them.
    maps = (
        ("uv", gl.GL_RG32F, gl.GL_RG, gl.GL_NEAREST),
        ("lf", gl.GL_RGB16F, gl.GL_RGB, gl.GL_NEAREST),
        ("mask", gl.GL_R16F, gl.GL_RED, gl.GL_NEAREST),
        ("texture", gl.GL_RGBA16F, gl.GL_RGBA, gl.GL_LINEAR),
    )
    gl.glPixelStorei(gl.GL_UNPACK_ALIGNMENT, 1)
    for unit, (name, stored, layout, texture_filter) in enumerate(maps):
        pixels = np.ascontiguousarray(given[name], dtype=np.float32)
        if name == "texture":
            pixels = np.concatenate((pixels, np.full_like(pixels[..., :1], 99)), axis=-1)
        gl.glActiveTexture(gl.GL_TEXTURE0 + unit)
        gl.glBindTexture(gl.GL_TEXTURE_2D, gl.glGenTextures(1))
        height, width = pixels.shape[:2]
        gl.glTexImage2D(gl.GL_TEXTURE_2D, 0, stored, width, height, 0, layout, gl.GL_FLOAT, pixels)
        for parameter, value in (
            (gl.GL_TEXTURE_MIN_FILTER, texture_filter),
            (gl.GL_TEXTURE_MAG_FILTER, texture_filter),
            (gl.GL_TEXTURE_WRAP_S, gl.GL_CLAMP_TO_EDGE),
            (gl.GL_TEXTURE_WRAP_T, gl.GL_CLAMP_TO_EDGE),
        ):
            gl.glTexParameteri(gl.GL_TEXTURE_2D, parameter, value)
        location = gl.glGetUniformLocation(program, f"u_{name}")
        assert location >= 0, f"the shader does not use u_{name}"
        gl.glUniform1i(location, unit)
    gl.glUniform4f(gl.glGetUniformLocation(program, "u_background"), *(float(value) for value in given["background"]))
    gl.glUniform1i(gl.glGetUniformLocation(program, "u_align_corners"), int(given["align_corners"]))

    height, width = given["lf"].shape[:2]
    gl.glActiveTexture(gl.GL_TEXTURE0 + len(maps))
    screen = gl.glGenTextures(1)
    gl.glBindTexture(gl.GL_TEXTURE_2D, screen)
    gl.glTexImage2D(gl.GL_TEXTURE_2D, 0, gl.GL_RGBA8, width, height, 0, gl.GL_RGBA, gl.GL_UNSIGNED_BYTE, None)
    gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, gl.glGenFramebuffers(1))
    gl.glFramebufferTexture2D(gl.GL_FRAMEBUFFER, gl.GL_COLOR_ATTACHMENT0, gl.GL_TEXTURE_2D, screen, 0)
    assert gl.glCheckFramebufferStatus(gl.GL_FRAMEBUFFER) == gl.GL_FRAMEBUFFER_COMPLETE
    gl.glViewport(0, 0, width, height)
    gl.glDrawArrays(gl.GL_TRIANGLES, 0, 3)
    gl.glPixelStorei(gl.GL_PACK_ALIGNMENT, 1)
    pixels = np.zeros((height, width, 4), np.uint8)
    gl.glReadPixels(0, 0, width, height, gl.GL_RGBA, gl.GL_UNSIGNED_BYTE, pixels)
    assert gl.glGetError() == gl.GL_NO_ERROR
    np.save(target, pixels[::-1])


if __name__ == "__main__":
    main(*sys.argv[1:])
