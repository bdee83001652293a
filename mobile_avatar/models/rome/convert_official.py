"""Names and shapes of the official files -> ours; pure functions from dict to dict.

Inside a network our names are the official ones, so that only prefixes change. The official code loads its file without
looking: a missing tensor would stay random. Here every tensor of the networks has to be there, with its shape.
"""

from collections import Counter
from collections.abc import Mapping

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


def detect_config(core: State, parts: Mapping[str, State], source: str) -> RomeConfig:
    """Widths and lengths of codes from tensor shapes.

    Args:
        core: rome.pth. parts: our name of every further network -> its tensors.
        source: how messages call rome.pth.

    Raises:
        BadInput: a tensor that says so is missing; the sentence has its official name.
    """

    def size(state: State, key: str, axis: int, owner: str = source) -> int:
        tensor = state.get(key)
        if tensor is None or tensor.ndim <= axis:
            raise BadInput(f"{owner}: tensor {key} is missing; the file is incomplete or another model's")
        return tensor.shape[axis]

    values = {
        "tex_channels": size(core, "autoencoder.net.1.main.2.weight", 0),
        "tex_max_channels": size(core, "autoencoder.net.11.main.2.weight", 0),
        "tex_outputs": size(core, "autoencoder.net.25.weight", 0),
        "mlp_channels": size(core, "mlp_deformer.block_1.0.weight", 0),
        "geom_outputs": size(core, "mesh_deformer.to_outputs.weight", 0),
    }
    for ours, theirs in (("geom", "mesh_deformer"), ("img", "unet")):
        values[f"{ours}_channels"] = size(core, f"{theirs}.encoder.0.0.main.0.weight", 0)
        values[f"{ours}_max_channels"] = size(core, f"{theirs}.encoder.3.0.main.3.weight", 0)
    encoded = size(core, "unet.encoder.0.0.main.0.weight", 1) - values["tex_outputs"]
    values["octaves"] = (encoded // 3 - 1) // 2
    if basis := parts.get("linear_basis"):
        values["n_vertices"], values["n_basis"] = basis["mean"].shape[0], basis["basis"].shape[1]
    if basis := parts.get("basis_regressor"):
        values["n_basis"] = size(basis, "fc.weight", 0, "linear_hair.pth")
        values["resnet_channels"] = size(basis, "conv1.weight", 0, "linear_hair.pth")
    pose_and_camera = sum(RomeConfig().frame_codes[1:])
    if frame := parts.get("frame_regressor"):
        values["n_exp"] = size(frame, "classifier.1.weight", 0, "disp_model.pth") - pose_and_camera
        values["mobilenet_width"] = size(frame, "features.0.0.weight", 0, "disp_model.pth") / STEM
    if face := parts.get("face_encoder"):
        others = ALBEDO + values.get("n_exp", RomeConfig.n_exp) + pose_and_camera + LIGHT[0] * LIGHT[1]
        values["n_shape"] = size(face, "layers.2.weight", 0, "E_flame") - others
        values["resnet_channels"] = size(face, "encoder.conv1.weight", 0, "E_flame")
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
