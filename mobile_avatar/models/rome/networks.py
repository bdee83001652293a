"""All networks of ROME in one module: what a weights file holds. The head model is not among them."""

from torch import Tensor, nn

from mobile_avatar.errors import BadInput
from mobile_avatar.images import resized
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.linear_basis import LinearBasis
from mobile_avatar.models.rome.regressors import FlameEncoder, basis_regressor, frame_regressor
from mobile_avatar.models.rome.texture_encoder import TextureEncoder
from mobile_avatar.models.rome.unet import geometry_unet, rendering_unet
from mobile_avatar.models.rome.vertex_mlp import VertexMlp

PARTS = {
    "texture_encoder": TextureEncoder,
    "geometry_unet": geometry_unet,
    "vertex_mlp": VertexMlp,
    "rendering_unet": rendering_unet,
    "linear_basis": LinearBasis,
    "basis_regressor": basis_regressor,
    "frame_regressor": frame_regressor,
    "face_encoder": FlameEncoder,
}
CORE = ("texture_encoder", "geometry_unet", "vertex_mlp", "rendering_unet")
"""In every official file; the others come in files of their own."""


class RomeNetworks(nn.Module):
    """The parts that are there, as attributes; a part that is asked for and missing is a BadInput.

    Args:
        parts: names in PARTS; what a linear avatar needs is less than all.
    """

    def __init__(self, config: RomeConfig, parts: tuple[str, ...] = tuple(PARTS)) -> None:
        super().__init__()
        unknown = sorted(set(parts) - set(PARTS))
        if unknown:
            raise BadInput(f"ROME has no part {unknown[0]!r}, only {', '.join(PARTS)}")
        self.config = config
        self.parts = tuple(name for name in PARTS if name in parts)
        for name in self.parts:
            self.add_module(name, PARTS[name](config))

    def part(self, name: str) -> nn.Module:
        """One network; BadInput when these weights lack it."""
        if name not in self.parts:
            raise BadInput(
                f"these ROME weights have no {name}, only {', '.join(self.parts)}; import or train it as well"
            )
        return getattr(self, name)


def read_frames(networks: RomeNetworks, frames: Tensor) -> Tensor:
    """Frames (n, 3, S, S) of any size, RGB in [0, 1] -> what the per-frame regressor reads off them, (n, n_exp + 9)."""
    return networks.part("frame_regressor")(resized(frames, networks.config.frame_side))
