"""Names, shapes and layouts of an exported graph: the contract between exporters, verification and the app."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """One input or output as the manifest shows it."""

    name: str
    """Name in the file and in the manifest."""
    shape: tuple[int, ...]
    """Fixed shape, batch included."""
    layout: str
    """`NC`, `NCHW` or `NHWC`."""
    range: tuple[float, float]
    """Lowest and highest value it can take."""
    dtype: str = "float32"
    quantization: tuple[float, int] | None = None
    """Scale and zero point of an integer tensor: real = scale * (stored - zero point)."""

    @property
    def peak(self) -> float:
        """At most 2: uv is judged on the texture's own extent, though it may point outside of it."""
        return min(self.range[1] - self.range[0], 2.0)

    def store(self, values: np.ndarray) -> np.ndarray:
        """Real numbers as the file takes them: float32, or rounded to its integers."""
        if self.quantization is None:
            return values.astype(np.float32)
        scale, zero = self.quantization
        limits = np.iinfo(self.dtype)
        return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(self.dtype)

    def load(self, stored: np.ndarray) -> np.ndarray:
        """The reverse of `store`: float32."""
        if self.quantization is None:
            return stored
        scale, zero = self.quantization
        return ((stored.astype(np.float64) - zero) * scale).astype(np.float32)

    def to_dict(self) -> dict:
        row = {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "layout": self.layout,
            "range": list(self.range),
        }
        if self.quantization is not None:
            row["quantization"] = {"scale": self.quantization[0], "zero_point": self.quantization[1]}
        return row

    @classmethod
    def from_dict(cls, values: dict) -> "TensorSpec":
        stored = values.get("quantization")
        return cls(
            values["name"],
            tuple(values["shape"]),
            values["layout"],
            tuple(values["range"]),
            values["dtype"],
            None if stored is None else (float(stored["scale"]), int(stored["zero_point"])),
        )


@dataclass(frozen=True)
class GraphSpec:
    """Inputs and outputs of one deployment graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def with_integers(self, stored: dict[str, tuple[str, float, int]]) -> "GraphSpec":
        """The same graph with some tensors stored as (dtype, scale, zero point), by name."""

        def change(tensor: TensorSpec) -> TensorSpec:
            if tensor.name not in stored:
                return tensor
            dtype, scale, zero = stored[tensor.name]
            return replace(tensor, dtype=dtype, quantization=(scale, zero))

        return GraphSpec(tuple(map(change, self.inputs)), tuple(map(change, self.outputs)))


def image_shape(channels: int, size: int, layout: str) -> tuple[int, ...]:
    """(1, C, S, S) or (1, S, S, C)."""
    return (1, channels, size, size) if layout == "NCHW" else (1, size, size, channels)


def graph_spec(warp: str, size: int, layout: str) -> GraphSpec:
    """The contract of a warp strategy: `split` gives uv, lf, mask; `native` and `gather` give the image.

    Args:
        warp: `split`, `native` or `gather`.
        size: side of the image in pixels.
        layout: `NCHW` or `NHWC` of every image-like output.
    """
    keypoints = TensorSpec("keypoints", (1, 136), "NC", (-1.0, 1.0))
    image_like = {"split": (("uv", 2, (-2.0, 2.0)), ("lf", 3, (-1.0, 1.0)), ("mask", 1, (0.0, 1.0)))}
    outputs = image_like.get(warp, (("image", 3, (-1.0, 1.0)),))
    specs = (TensorSpec(name, image_shape(c, size, layout), layout, limits) for name, c, limits in outputs)
    return GraphSpec((keypoints,), tuple(specs))
