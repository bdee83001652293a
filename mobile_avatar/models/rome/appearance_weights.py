"""A compact renderer and its texture encoder as one safetensors file, not folded: they can be trained on."""

import json
from pathlib import Path

from safetensors.torch import save_file

from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file
from mobile_avatar.models.bilayer.weights import load_state, read_safetensors
from mobile_avatar.models.rome.appearance import Appearance
from mobile_avatar.models.rome.compact_renderer import CompactConfig
from mobile_avatar.models.rome.config import RomeConfig

FORMAT = "mobile-avatar-rome-renderer"
VERSION = 2
OWN = ("format", "version", "config")
"""Metadata that is not about the weights' origin."""
REMEDY = "make one with `mobile-avatar train rome-renderer`"


def save_appearance(appearance: Appearance, path: Path, facts: dict[str, str]) -> None:
    """Write both networks (not folded, with batch-norm statistics) atomically, in full precision.

    Args:
        facts: `license`, `trained_on`, `teacher_sha256` and the like, stored as metadata.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in appearance.state_dict().items()}
    config = {"networks": appearance.config.to_dict(), "renderer": appearance.renderer.config.to_dict()}
    own = {"format": FORMAT, "version": str(VERSION), "config": json.dumps(config)}
    with replace_file(Path(path)) as temporary:
        save_file(state, temporary, facts | own)


def load_appearance(path: Path) -> tuple[Appearance, dict[str, str]]:
    """Both networks in eval mode, not folded, and the facts stored with them.

    Raises BadInput for a file that is missing, damaged, of another kind or of another version.
    """
    path = Path(path)
    metadata, state = read_safetensors(path, FORMAT, VERSION, "compact renderer", REMEDY)
    config = json.loads(metadata["config"])
    if not isinstance(config, dict) or set(config) != {"networks", "renderer"}:
        raise BadInput(f"{path} does not describe a texture encoder and a renderer; {REMEDY}")
    networks = RomeConfig.from_dict(config["networks"], str(path))
    appearance = Appearance(networks, CompactConfig.from_dict(config["renderer"], str(path)))
    load_state(appearance, state, path)
    return appearance.eval(), {key: value for key, value in metadata.items() if key not in OWN}
