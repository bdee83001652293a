"""What exactly is exported of a ROME avatar: three graphs, with one draw call of the GPU between the last two.

    image -> encoder -> codes -> mesh -> positions, normals -> (draw call) -> features -> renderer -> rgba

Each has one input, so that any runtime and runner takes it; the mesh is so small that it runs anywhere in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from mobile_avatar.graphs.spec import GraphSpec, TensorSpec, image_shape
from mobile_avatar.models.rome.avatar import RomeAvatar
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


@dataclass(frozen=True)
class Graph:
    """One deployment graph of an avatar."""

    module: nn.Module
    spec: GraphSpec


def encoder_graph(avatar: RomeAvatar, layout: str) -> Graph:
    """Frame of the camera -> codes."""
    image = TensorSpec("image", image_shape(3, avatar.size, layout), layout, (0.0, 1.0))
    return Graph(EncoderGraph(avatar.encoder, layout), GraphSpec((image,), (_codes(avatar),)))


def mesh_graph(avatar: RomeAvatar, layout: str) -> Graph:
    """Codes -> what the draw call needs; the layout of images does not matter."""
    shape = (1, len(avatar.mesh.vertex), 3)
    positions = TensorSpec("positions", shape, "NVC", (-FRONT, FRONT))
    normals = TensorSpec("normals", shape, "NVC", (-1.0, 1.0))
    return Graph(MeshGraph(avatar.mesh), GraphSpec((_codes(avatar),), (positions, normals)))


def renderer_graph(avatar: RomeAvatar, layout: str) -> Graph:
    """The draw call's result -> the picture."""
    low, high = min(-1.0, float(avatar.texture.min())), max(1.0, float(avatar.texture.max()))
    features = TensorSpec("features", image_shape(FEATURES, avatar.size, layout), layout, (low, high))
    rgba = TensorSpec("rgba", image_shape(COLOURS, avatar.size, layout), layout, (0.0, 1.0))
    return Graph(RendererGraph(avatar.renderer, layout), GraphSpec((features,), (rgba,)))


ROME_GRAPHS: dict[str, Callable[[RomeAvatar, str], Graph]] = {
    "encoder": encoder_graph,
    "mesh": mesh_graph,
    "renderer": renderer_graph,
}
"""In the order of a frame."""


def _codes(avatar: RomeAvatar) -> TensorSpec:
    return TensorSpec("codes", (1, len(avatar.source_codes)), "NC", CODES_RANGE)
