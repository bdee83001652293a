"""What exactly is exported of a ROME avatar: three graphs, with one draw call of the GPU between the last two.

    image -> encoder -> codes -> mesh -> positions, normals -> (draw call) -> features -> renderer -> rgba

Each has one input, so that any runtime and runner takes it; the mesh is so small that it runs anywhere in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from mobile_avatar.graphs.spec import GraphSpec, TensorSpec, image_shape
from mobile_avatar.models.rome.avatar import CODES, RomeAvatar
from mobile_avatar.models.rome.compact_renderer import COLOURS, FEATURES
from mobile_avatar.models.rome.feature_image import FRONT

CODES_RANGE = (-20.0, 20.0)
"""Of codes: expressions and rotations are a few units, a camera's scale is about one over the head's size."""


class ImageGraph(nn.Module):
    """A network with image-like input or output in the layout of the target."""

    def __init__(self, network: nn.Module, layout: str) -> None:
        super().__init__()
        self.network = network
        self.channels_last = layout == "NHWC"

    def take(self, image: Tensor) -> Tensor:
        """The target's layout -> NCHW."""
        return image.permute(0, 3, 1, 2) if self.channels_last else image

    def give(self, image: Tensor) -> Tensor:
        """NCHW -> the target's layout."""
        return image.permute(0, 2, 3, 1) if self.channels_last else image


class EncoderGraph(ImageGraph):
    """image -> codes (1, e + 9): expression, rotations of head and jaw, camera."""

    def forward(self, image: Tensor) -> Tensor:
        return self.network(self.take(image))


class RendererGraph(ImageGraph):
    """features -> rgba in [0, 1]."""

    def forward(self, features: Tensor) -> Tensor:
        return self.give(self.network(self.take(features)))


class MeshGraph(nn.Module):
    """codes (1, e + 9) -> positions, normals (1, w, 3) of drawn vertices."""

    def __init__(self, mesh: nn.Module) -> None:
        super().__init__()
        self.network = mesh

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(codes)


MODULES: dict[str, Callable[[RomeAvatar, str], nn.Module]] = {
    "encoder": lambda avatar, layout: EncoderGraph(avatar.encoder, layout),
    "mesh": lambda avatar, _: MeshGraph(avatar.mesh),
    "renderer": lambda avatar, layout: RendererGraph(avatar.renderer, layout),
}
"""In the order of a frame."""


@dataclass(frozen=True)
class Graph:
    """One deployment graph of an avatar."""

    name: str
    """A key of MODULES."""
    module: nn.Module
    """In eval mode."""
    spec: GraphSpec
    warp: str
    """Which rules of the targets apply to it, see `Request.warp`."""


def rome_graphs(avatar: RomeAvatar, layout: str) -> list[Graph]:
    """All graphs of an avatar, in the order of a frame; images in the `layout` of the target."""
    specs = rome_specs(avatar.config, layout)
    return [
        Graph(name, make(avatar, layout).eval(), specs[name], "gather" if name == "mesh" else "split")
        for name, make in MODULES.items()
    ]


def rome_specs(config: dict, layout: str) -> dict[str, GraphSpec]:
    """The contracts of the graphs, from `RomeAvatar.config` and the layout of images."""
    size, vertices = config["renderer"]["image_size"], config["vertices"]

    def picture(name: str, channels: int, limits: tuple[float, float], side: int = size) -> TensorSpec:
        return TensorSpec(name, image_shape(channels, side, layout), layout, limits)

    codes = TensorSpec("codes", (1, config["expressions"] + CODES), "NC", CODES_RANGE)
    positions = TensorSpec("positions", (1, vertices, 3), "NVC", (-FRONT, FRONT))
    normals = TensorSpec("normals", (1, vertices, 3), "NVC", (-1.0, 1.0))
    limit = float(config["texture_limit"])
    return {
        "encoder": GraphSpec((picture("image", 3, (0.0, 1.0), config["encoder_size"]),), (codes,)),
        "mesh": GraphSpec((codes,), (positions, normals)),
        "renderer": GraphSpec(
            (picture("features", FEATURES, (-limit, limit)),), (picture("rgba", COLOURS, (0.0, 1.0)),)
        ),
    }
