"""Names, shapes and layouts of an exported graph: the contract between exporters, verification and the app."""

from dataclasses import dataclass


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

    @property
    def peak(self) -> float:
        """At most 2: uv is judged on the texture's own extent, though it may point outside of it."""
        return min(self.range[1] - self.range[0], 2.0)

    def to_dict(self) -> dict:
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "layout": self.layout,
            "range": list(self.range),
        }

    @classmethod
    def from_dict(cls, values: dict) -> "TensorSpec":
        return cls(values["name"], tuple(values["shape"]), values["layout"], tuple(values["range"]), values["dtype"])


@dataclass(frozen=True)
class GraphSpec:
    """Inputs and outputs of one deployment graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


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
