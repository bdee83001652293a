"""ROME's networks as one safetensors file, with everything needed to build them in its metadata."""

import json
from pathlib import Path

from safetensors.torch import save_file

from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file
from mobile_avatar.models.bilayer.weights import load_state, read_safetensors
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.networks import PARTS, RomeNetworks

FORMAT = "mobile-avatar-rome-weights"
VERSION = 1
OWN = ("format", "version", "config", "parts")
"""Metadata that is not about the weights' origin."""


def save_weights(networks: RomeNetworks, path: Path, facts: dict[str, str]) -> None:
    """Write `networks` atomically, in full precision; `facts` (`license`, `trained_on`, ...) are stored as metadata."""
    state = {key: value.detach().cpu().contiguous() for key, value in networks.state_dict().items()}
    own = {"format": FORMAT, "version": str(VERSION), "config": json.dumps(networks.config.to_dict())}
    with replace_file(Path(path)) as temporary:
        save_file(state, temporary, facts | own | {"parts": ",".join(networks.parts)})


def load_weights(path: Path) -> tuple[RomeNetworks, dict[str, str]]:
    """The networks in eval mode and the facts stored with them.

    Raises BadInput for a file that is missing, damaged, of another kind or of a newer version.
    """
    path = Path(path)
    remedy = "make one with `mobile-avatar import rome`"
    metadata, state = read_safetensors(path, FORMAT, VERSION, "ROME weights", remedy)
    parts = tuple(metadata.get("parts", "").split(","))
    if not set(parts) <= set(PARTS):
        raise BadInput(f"{path} names parts that ROME does not have ({', '.join(parts)}); {remedy}")
    networks = RomeNetworks(RomeConfig.from_dict(json.loads(metadata["config"]), str(path)), parts)
    load_state(networks, state, path)
    return networks.eval(), {key: value for key, value in metadata.items() if key not in OWN}
