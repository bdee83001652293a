"""What ROME avatars are made with, small and of random numbers, but such that a head is where a photo's head is."""

from functools import lru_cache
from pathlib import Path

import torch

from mobile_avatar.models.rome.appearance import Appearance
from mobile_avatar.models.rome.avatar_weights import PARTS, AvatarWeights, save_avatar_weights
from mobile_avatar.models.rome.compact_renderer import CompactConfig, CompactRenderer
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.networks import RomeNetworks
from mobile_avatar.models.rome.presets import PRESETS
from mobile_avatar.models.rome.synthetic_rig import synthetic_head

FACTS = {"license": "Apache-2.0", "trained_on": "nothing: random numbers"}
CAMERA = (7.0, 0.0, 0.0)
"""Of a frontal face that is framed by the crop rule, nearly."""


@lru_cache(maxsize=1)
def small_config() -> RomeConfig:
    """The smallest preset for the synthetic head."""
    head = synthetic_head()
    sizes = {"n_shape": head.shape_basis.shape[2], "n_exp": head.expression_basis.shape[2]}
    return RomeConfig(**PRESETS["small"], **sizes, n_vertices=len(head.template), photo_shape=True)


@lru_cache
@torch.no_grad()
def small_networks(parts: tuple[str, ...] = PARTS) -> RomeNetworks:
    """Fresh networks, the same object for all who ask; their regressors say the same of almost any picture: an average
    head that looks ahead."""
    torch.manual_seed(5)
    networks = RomeNetworks(small_config(), parts).eval()
    if "linear_basis" in parts:
        head = synthetic_head()
        networks.linear_basis.basis.normal_(0, 1e-3).mul_(head.deforms_mask.repeat_interleave(3, 0))
    if "basis_regressor" in parts:
        networks.basis_regressor.fc.weight.mul_(0.05)  # shapes of people, not of monsters
        networks.basis_regressor.fc.bias.zero_()
    if "frame_regressor" in parts:
        networks.frame_regressor.classifier[1].bias[-3:] = torch.tensor(CAMERA)
    return networks


def small_renderer(size: int = 64) -> CompactRenderer:
    """A fresh compact renderer."""
    torch.manual_seed(6)
    return CompactRenderer(CompactConfig(size, width=4, middle=1)).eval()


def small_appearance(size: int = 64) -> Appearance:
    """The renderer and a texture encoder that is not the one of the networks."""
    torch.manual_seed(7)
    appearance = Appearance(small_config(), CompactConfig(size, width=4, middle=1)).eval()
    appearance.renderer.load_state_dict(small_renderer(size).state_dict())
    return appearance


def small_weights() -> AvatarWeights:
    """All of it."""
    return AvatarWeights(small_networks(), small_renderer(), dict(FACTS))


def write_small_weights(path: Path) -> Path:
    """A file for `create --model rome --weights`."""
    save_avatar_weights(small_weights(), path)
    return path
