"""Names and shapes of the official files -> ours; pure functions from dict to dict.

Inside a network our names are the official ones, so that only prefixes change. The official code loads its file without
looking: a missing tensor would stay random. Here every tensor of the networks has to be there, with its shape.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.mobilenet_v2 import STEM
from mobile_avatar.models.rome.networks import RomeNetworks
from mobile_avatar.models.rome.regressors import ALBEDO, LIGHT

State = Mapping[str, Tensor]

CORE_PREFIXES = {
    "autoencoder": "texture_encoder",
    "mesh_deformer": "geometry_unet",
    "mlp_deformer": "vertex_mlp",
    "unet": "rendering_unet",
}
"""Network in rome.pth -> ours."""
FACE_ENCODER_PREFIXES = ("parametric_avatar.E_flame.", "deca.E_flame.")
"""Where rome.pth may hold DECA's encoder, in the newer and the older code."""


def detect_config(core: State, parts: Mapping[str, tuple[Path, State]], source: Path) -> RomeConfig:
    """Widths and lengths of codes from tensor shapes.

    Args:
        core: rome.pth. source: how messages call it.
        parts: our name of every further network -> the same for it, and its tensors.

    Raises:
        BadInput: a tensor that says so is missing; the sentence has its official name.
    """

    def size(key: str, axis: int, part: str | None = None) -> int:
        owner, state = parts[part] if part else (source, core)
        tensor = state.get(key)
        if tensor is None or tensor.ndim <= axis:
            raise BadInput(f"{owner}: tensor {key} is missing; the file is incomplete or another model's")
        return tensor.shape[axis]

    values = {
        "tex_channels": size("autoencoder.net.1.main.2.weight", 0),
        "tex_max_channels": size("autoencoder.net.11.main.2.weight", 0),
        "tex_outputs": size("autoencoder.net.25.weight", 0),
        "mlp_channels": size("mlp_deformer.block_1.0.weight", 0),
        "geom_outputs": size("mesh_deformer.to_outputs.weight", 0),
    }
    for ours, theirs in (("geom", "mesh_deformer"), ("img", "unet")):
        values[f"{ours}_channels"] = size(f"{theirs}.encoder.0.0.main.0.weight", 0)
        values[f"{ours}_max_channels"] = size(f"{theirs}.encoder.3.0.main.3.weight", 0)
    encoded = size("unet.encoder.0.0.main.0.weight", 1) - values["tex_outputs"]
    values["octaves"] = (encoded // 3 - 1) // 2
    pose_and_camera = sum(RomeConfig().frame_codes[1:])
    if "linear_basis" in parts:
        values["n_vertices"] = size("mean", 0, "linear_basis")
        values["n_basis"] = size("basis", 1, "linear_basis")
    if "basis_regressor" in parts:
        values["n_basis"] = size("fc.weight", 0, "basis_regressor")
        values["resnet_channels"] = size("conv1.weight", 0, "basis_regressor")
    if "frame_regressor" in parts:
        values["n_exp"] = size("classifier.1.weight", 0, "frame_regressor") - pose_and_camera
        values["mobilenet_width"] = size("features.0.0.weight", 0, "frame_regressor") / STEM
    if "face_encoder" in parts:
        others = ALBEDO + values.get("n_exp", RomeConfig.n_exp) + pose_and_camera + LIGHT[0] * LIGHT[1]
        values["n_shape"] = size("layers.2.weight", 0, "face_encoder") - others
        values["resnet_channels"] = size("encoder.conv1.weight", 0, "face_encoder")
    return RomeConfig(**values)


def convert_core(state: State, networks: RomeNetworks, source: str) -> dict[str, Tensor]:
    """rome.pth -> our entries of its four networks; other tensors in it do not matter.

    Raises:
        BadInput: a tensor is missing, mis-shaped, or has no place in its network; with its official name.
    """
    result: dict[str, Tensor] = {}
    for prefix, ours in CORE_PREFIXES.items():
        inside = {key.removeprefix(f"{prefix}."): value for key, value in state.items() if key.startswith(f"{prefix}.")}
        result |= convert_part(inside, networks, ours, source, f"{prefix}.")
    return result


def convert_part(state: State, networks: RomeNetworks, part: str, source: str, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of one network, without prefix -> our entries of it; BadInput as there."""
    expected = networks.part(part).state_dict()
    lacking = [key for key in expected if key not in state]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise BadInput(f"{source}: tensor {prefix}{lacking[0]}{more} is missing; the file is incomplete")
    for key, value in expected.items():
        if state[key].shape != value.shape:
            shapes = f"{tuple(state[key].shape)}, expected {tuple(value.shape)}"
            raise BadInput(f"{source}: tensor {prefix}{key} has shape {shapes}")
        if not state[key].isfinite().all():
            raise BadInput(f"{source}: tensor {prefix}{key} holds NaN or infinity; the file is damaged")
    unknown = sorted(set(state) - set(expected))
    if unknown:
        raise BadInput(f"{source}: {len(unknown)} tensors that no {part} has (first: {prefix}{unknown[0]})")
    return {f"{part}.{key}": state[key] for key in expected}


def face_encoder_inside(state: State) -> tuple[str, dict[str, Tensor]]:
    """The prefix of DECA's encoder where rome.pth carries it, and its tensors without it; nothing where it does not."""
    for prefix in FACE_ENCODER_PREFIXES:
        found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if found:
            return prefix, found
    return "", {}


def count_ignored(state: State, face_encoder: str = "") -> dict[str, int]:
    """How many tensors of rome.pth are not taken, by the beginning of their names; `face_encoder` is a prefix taken."""
    rest = [key for key in state if key.partition(".")[0] not in CORE_PREFIXES]
    if face_encoder:
        rest = [key for key in rest if not key.startswith(face_encoder)]
    return dict(Counter(".".join(key.split(".")[:2]) for key in rest))
