"""Work tables of this project's own networks, from their config alone."""

from collections.abc import Iterable

from mobile_avatar.graphs.layers import Layer, layer_table
from mobile_avatar.models.bilayer.config import BilayerConfig


def network_layers(config: BilayerConfig, rewrites: Iterable[str], warp: str) -> tuple[Layer, ...]:
    """The layers of one frame after the named rewrites (none: the official structure); takes about a second."""
    import torch

    from mobile_avatar.graphs.deployment import WARPS
    from mobile_avatar.graphs.onnx_graph import to_onnx
    from mobile_avatar.graphs.rewrites import rewrite
    from mobile_avatar.graphs.spec import graph_spec
    from mobile_avatar.models.bilayer.folded import FoldedGenerator

    size = config.image_size
    generator = rewrite(FoldedGenerator(config).eval(), rewrites)
    module = WARPS[warp](generator, torch.zeros(1, 3, size, size), "NCHW").eval()
    return layer_table(to_onnx(module, graph_spec(warp, size, "NCHW")))
