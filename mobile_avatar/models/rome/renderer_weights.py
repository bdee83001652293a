"""A compact renderer as one safetensors file, not folded: it can be trained on and folded by whoever ships it."""

import json
from pathlib import Path

from safetensors.torch import save_file

from mobile_avatar.files import replace_file
from mobile_avatar.models.bilayer.weights import load_state, read_safetensors
from mobile_avatar.models.rome.compact_renderer import CompactConfig, CompactRenderer

FORMAT = "mobile-avatar-rome-renderer"
VERSION = 1
OWN = ("format", "version", "config")
"""Metadata that is not about the weights' origin."""
REMEDY = "make one with `mobile-avatar train rome-renderer`"


def save_renderer(renderer: CompactRenderer, path: Path, facts: dict[str, str]) -> None:
    """Write `renderer` (not folded, with its batch-norm statistics) atomically, in full precision.

    Args:
        facts: `license`, `trained_on`, `teacher_sha256` and the like, stored as metadata.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in renderer.state_dict().items()}
    own = {"format": FORMAT, "version": str(VERSION), "config": json.dumps(renderer.config.to_dict())}
    with replace_file(Path(path)) as temporary:
        save_file(state, temporary, facts | own)


def load_renderer(path: Path) -> tuple[CompactRenderer, dict[str, str]]:
    """The renderer in eval mode, not folded, and the facts stored with it.

    Raises BadInput for a file that is missing, damaged, of another kind or of a newer version.
    """
    path = Path(path)
    metadata, state = read_safetensors(path, FORMAT, VERSION, "compact renderer", REMEDY)
    renderer = CompactRenderer(CompactConfig.from_dict(json.loads(metadata["config"]), str(path)))
    load_state(renderer, state, path)
    return renderer.eval(), {key: value for key, value in metadata.items() if key not in OWN}
