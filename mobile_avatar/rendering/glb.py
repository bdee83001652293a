"""Putting arrays into a binary glTF file: accessors with the bounds and alignment that the format asks for."""

from pathlib import Path

import numpy as np

from mobile_avatar.files import replace_file

ALIGNMENT = 4  # bytes; the largest that any of our numbers needs
COMPONENT = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
TYPE = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
VERTICES, TRIANGLES = 34962, 34963
BOUNDED = ("SCALAR", "VEC3")  # times of animations and positions must say their range; others may


class GlbWriter:
    """A glTF document and the bytes that go with it.

    `document` is the library's own object: nodes, meshes, skins and materials are appended to it directly.
    """

    def __init__(self) -> None:
        from pygltflib import GLTF2

        self.document = GLTF2()
        self._bytes = bytearray()

    def array(self, values: np.ndarray, use: int | None = None) -> int:
        """Add an array and return the number of its accessor.

        Args:
            values: (n,), (n, 2..4) or (n, 4, 4, rows first); uint8, uint16, uint32 or float32.
            use: VERTICES or TRIANGLES for what a graphics card reads, None otherwise.
        """
        from pygltflib import Accessor

        kind = TYPE[values.shape[1:]]
        # The format wants matrices column by column.
        stored = values.transpose(0, 2, 1) if kind == "MAT4" else values
        accessor = Accessor(
            bufferView=self._view(np.ascontiguousarray(stored).tobytes(), use),
            componentType=COMPONENT[values.dtype.name],
            count=len(values),
            type=kind,
        )
        if values.dtype == np.float32 and kind in BOUNDED:
            accessor.min, accessor.max = (
                [float(x) for x in np.atleast_1d(f(values, axis=0))] for f in (np.min, np.max)
            )
        self.document.accessors.append(accessor)
        return len(self.document.accessors) - 1

    def png(self, data: bytes, name: str) -> int:
        """Add an encoded picture and return the number of its image."""
        from pygltflib import Image

        self.document.images.append(Image(bufferView=self._view(data, None), mimeType="image/png", name=name))
        return len(self.document.images) - 1

    def save(self, path: Path) -> None:
        """Write the file; an existing one is replaced in one step."""
        from pygltflib import Buffer

        self.document.buffers = [Buffer(byteLength=len(self._bytes))]
        self.document.set_binary_blob(bytes(self._bytes))
        with replace_file(path) as temporary:
            self.document.save_binary(str(temporary))

    def _view(self, data: bytes, use: int | None) -> int:
        from pygltflib import BufferView

        view = BufferView(buffer=0, byteOffset=len(self._bytes), byteLength=len(data), target=use)
        self._bytes += data + bytes(-len(data) % ALIGNMENT)
        self.document.bufferViews.append(view)
        return len(self.document.bufferViews) - 1
