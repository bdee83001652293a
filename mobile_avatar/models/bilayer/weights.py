"""Model weights as one safetensors file, with everything needed to build the model in its metadata."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mobile_avatar.errors import BadInput
from mobile_avatar.files import inside, replace_file, sha256
from mobile_avatar.models.bilayer.config import BilayerConfig
from mobile_avatar.models.bilayer.model import BilayerModel

FORMAT = "mobile-avatar-weights"
VERSION = 1
OWN = ("format", "version", "config", "base", "base_sha256")
"""Metadata that is not about the weights' origin."""


def save_weights(
    model: BilayerModel, path: Path, facts: dict[str, str], half: bool = False, base: Path | None = None
) -> None:
    """Write `model` (spectral norm resolved) atomically.

    Args:
        facts: `license`, `trained_on` and the like; stored as metadata.
        half: store floats as FP16, for weights that ship; they are used as FP32.
        base: weights in the same folder; what is equal there (a student's embedder and its teacher's) is not stored.
    """
    state = {}
    for key, value in model.state_dict().items():
        # Variances are kept in full: FP16 would flush the small ones to zero.
        narrow = half and value.is_floating_point() and "running_" not in key
        state[key] = value.detach().cpu().to(torch.float16 if narrow else value.dtype).contiguous()
    if base is not None:
        _, known = _read(base)
        state = {key: value for key, value in state.items() if key not in known or not torch.equal(value, known[key])}
        facts = facts | {"base": base.name, "base_sha256": sha256(base)}
    metadata = facts | {"format": FORMAT, "version": str(VERSION), "config": json.dumps(model.config.to_dict())}
    with replace_file(Path(path)) as temporary:
        save_file(state, temporary, metadata)


def load_weights(path: Path) -> tuple[BilayerModel, dict[str, str]]:
    """The model in eval mode and the facts stored with it.

    Raises BadInput for a file that is missing, damaged, of another kind or of a newer version, or whose base is not
    the one beside it that it was saved with.
    """
    path = Path(path)
    metadata, state = _read(path)
    model = BilayerModel(BilayerConfig.from_dict(json.loads(metadata["config"]), str(path)))
    if "base" in metadata:
        base = inside(path.parent, metadata["base"])
        if not base.is_file() or sha256(base) != metadata.get("base_sha256"):
            raise BadInput(f"{path} holds only what differs from {base.name}; put that very file beside it")
        own = model.state_dict()
        state = {key: value for key, value in _read(base)[1].items() if key in own} | state
    load_state(model, state, path)
    return model.eval(), {key: value for key, value in metadata.items() if key not in OWN}


def _read(path: Path) -> tuple[dict, dict]:
    return read_safetensors(path, FORMAT, VERSION, "weights", "make one with `mobile-avatar import` or `train`")


def read_safetensors(path: Path, kind: str, version: int, word: str, remedy: str) -> tuple[dict, dict]:
    """Metadata and tensors of one of our safetensors files, refusing foreign, damaged and newer ones in a sentence."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist; {remedy}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path} is not a readable {word} file (truncated or foreign); {remedy}") from error
    if metadata.get("format") != kind:
        raise BadInput(f"{path} is a safetensors file but not a {word} file of mobile-avatar; {remedy}")
    stored = metadata.get("version", "")
    if not stored.isdigit() or int(stored) > version:
        raise BadInput(f"{path} has format version {stored}, this program reads up to {version}; update mobile-avatar")
    try:
        if not isinstance(json.loads(metadata["config"]), dict):
            raise ValueError
    except (KeyError, ValueError) as error:
        raise BadInput(f"{path} has no readable model config in its metadata; {remedy}") from error
    return metadata, state


def load_state(module: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load `state` strictly as FP32; BadInput names the first tensor that does not fit or is not finite."""
    expected = module.state_dict()
    for key, value in expected.items():
        if key not in state:
            raise BadInput(f"{path}: tensor {key} is missing; the file is incomplete")
        if state[key].shape != value.shape:
            raise BadInput(f"{path}: tensor {key} has shape {tuple(state[key].shape)}, expected {tuple(value.shape)}")
        if not torch.isfinite(state[key]).all():
            raise BadInput(f"{path}: tensor {key} holds NaN or Inf; the file is damaged")
    for key in state:
        if key not in expected:
            raise BadInput(f"{path}: unknown tensor {key}; it was written by another version")
    module.load_state_dict(state)
