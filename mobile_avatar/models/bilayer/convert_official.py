"""Names and shapes of the official checkpoints -> ours; pure functions from dict to dict.

The official files hold spectral norm as `weight_orig`, `weight_u`, `weight_v`; the weight that runs is
weight_orig / (u . (W v)) with the stored vectors, which is not the exact largest singular value.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.adaptive import AdaptiveBatchNorm, AdaptiveDecoder, AdaptiveSpade
from mobile_avatar.models.bilayer.discriminator import Discriminator
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.models.bilayer.projector import Projector

Pairs = Iterator[tuple[str, str]]
State = dict[str, Tensor]

# Buffers that repeat what the code knows, and the half block behind the last embedding, which feeds nothing.
DERIVED = ("identity_grid", "frequencies")


def network_pairs(model: BilayerModel | Discriminator, network: str) -> list[tuple[str, str]]:
    """(official prefix, our module path) of every layer of an official network.

    Args:
        model: a BilayerModel, or a Discriminator for `discriminator`.
        network: `identity_embedder`, `texture_generator`, `keypoints_embedder`, `inference_generator`,
            `texture_enhancer` or `discriminator`.
    """
    return list(_NETWORKS[network](model))


def convert(state: State, model: nn.Module, network: str, source: str, keep_spectral_norm: bool = False) -> State:
    """One official state dict -> entries of our state dict.

    Args:
        state: the official file's tensors; not changed.
        model: gives the expected shapes.
        source: how error messages call the file.
        keep_spectral_norm: give the entries of a model under `add_spectral_norm` (to go on training) instead of
            resolved weights.

    Raises:
        BadInput: for a missing, mis-shaped or unknown tensor, with its official name.
    """
    rest = {key: value for key, value in state.items() if key not in DERIVED}
    result: State = {}
    for official, path in network_pairs(model, network):
        module, parameter = _find(model, path)
        if module is None:
            result[path] = _take(rest, official, parameter.shape, source)
            continue
        for kind, read in _READERS.items():
            if isinstance(module, kind):
                result |= read(rest, official, path, module, source, keep_spectral_norm)
                break
        else:
            raise TypeError(f"no reader for {type(module).__name__}")
    if network == "identity_embedder":
        last = f"net.dec_blocks.{len(model.identity_embedder.decoder) - 1}."
        dead = (f"{last}block.0.", f"{last}skip.0.")
        rest = {key: value for key, value in rest.items() if not key.startswith(dead)}
    if rest:
        names = sorted(rest)
        raise BadInput(f"{source}: {len(names)} tensors that no {network} has, the first is {names[0]}")
    return result


def _find(model: nn.Module, path: str) -> tuple[nn.Module | None, Tensor | None]:
    parent, _, name = path.rpartition(".")
    value = getattr(model.get_submodule(parent), name)
    return (value, None) if isinstance(value, nn.Module) else (None, value)


def _take(state: State, key: str, shape: torch.Size, source: str) -> Tensor:
    if key not in state:
        raise BadInput(f"{source}: tensor {key} is missing; the file is incomplete or of another network")
    value = state.pop(key)
    if value.shape != shape:
        raise BadInput(f"{source}: tensor {key} has shape {tuple(value.shape)}, expected {tuple(shape)}")
    return value.float() if value.is_floating_point() else value


def _normalised(
    state: State, official: str, path: str, module: nn.Module, source: str, keep_spectral_norm: bool
) -> State:
    weight = module.weight
    bias = {f"{path}.bias": _take(state, f"{official}.bias", module.bias.shape, source)}
    if f"{official}.weight" in state:  # saved after the official code removed spectral norm
        return bias | {f"{path}.weight": _take(state, f"{official}.weight", weight.shape, source)}
    original = _take(state, f"{official}.weight_orig", weight.shape, source)
    flat = original.flatten(1)
    u = _take(state, f"{official}.weight_u", flat.shape[:1], source)
    v = _take(state, f"{official}.weight_v", flat.shape[1:], source)
    if keep_spectral_norm:
        base = f"{path}.parametrizations.weight"
        return bias | {f"{base}.original": original, f"{base}.0.u": u, f"{base}.0.v": v}
    return bias | {f"{path}.weight": original / torch.dot(u, flat @ v)}


def _batch_norm(state: State, official: str, path: str, module: nn.BatchNorm2d, source: str, _: bool) -> State:
    return {f"{path}.{k}": _take(state, f"{official}.{k}", v.shape, source) for k, v in module.state_dict().items()}


def _adaptive(state: State, official: str, path: str, module: nn.Module, source: str, _: bool) -> State:
    return _batch_norm(state, f"{official}.norm_layer", f"{path}.stats", module.stats, source, _)


def _spade(state: State, official: str, path: str, module: AdaptiveSpade, source: str, _: bool) -> State:
    pixels = _take(state, f"{official}.pixel_feats", module.pixel_features.shape, source)
    return _adaptive(state, official, path, module, source, _) | {f"{path}.pixel_features": pixels}


_READERS = {
    nn.Conv2d: _normalised,
    nn.Linear: _normalised,
    nn.BatchNorm2d: _batch_norm,
    AdaptiveSpade: _spade,
    AdaptiveBatchNorm: _adaptive,
}


def _residual(official: str, path: str, block: nn.Module, conv1: str, skip: str) -> Pairs:
    """Layers of one residual block; which index a layer has depends on what stands before it."""
    yield f"{official}.block_feats.{conv1}", f"{path}.conv1"
    if hasattr(block, "conv2"):
        yield f"{official}.block.0", f"{path}.conv2"
        if isinstance(block.skip, nn.Conv2d):
            yield f"{official}.skip.{skip}", f"{path}.skip"


def _identity_embedder(model: BilayerModel) -> Pairs:
    embedder, path = model.identity_embedder, "identity_embedder"
    yield "net.enc.0", f"{path}.stem"
    for i, block in enumerate(embedder.encoder):
        yield from _residual(f"net.enc.{i + 1}", f"{path}.encoder.{i}", block, "1", "0")
    for i, block in enumerate(embedder.decoder):
        yield from _residual(f"net.dec_blocks.{i}", f"{path}.decoder.{i}", block, "1", "0")


def _decoder(official: str, path: str, decoder: AdaptiveDecoder, indices: tuple[str, str, str]) -> Pairs:
    conv1, norm2, conv2 = indices
    for i in range(len(decoder.blocks)):
        yield f"{official}.blocks.{i}.block_feats.0", f"{path}.blocks.{i}.norm1"
        yield f"{official}.blocks.{i}.block_feats.{conv1}", f"{path}.blocks.{i}.conv1"
        yield f"{official}.blocks.{i}.block_feats.{norm2}", f"{path}.blocks.{i}.norm2"
        yield f"{official}.blocks.{i}.block.{conv2}", f"{path}.blocks.{i}.conv2"
    yield f"{official}.blocks.{len(decoder.blocks)}", f"{path}.norm"


def _projector(official: str, path: str, projector: Projector) -> Pairs:
    for i, chains in enumerate(projector.blocks):
        for j, chain in enumerate(chains):
            for k in range(len(chain)):
                yield f"{official}.fc_blocks.{i}.{j}.{k}", f"{path}.blocks.{i}.{j}.{k}"


def _texture_generator(model: BilayerModel) -> Pairs:
    yield "gen_tex_input", "texture_generator.base"
    yield from _decoder("gen_tex", "texture_generator.decoder", model.texture_generator.decoder, ("3", "4", "0"))
    yield "gen_tex.heads.0.0", "texture_generator.head"
    yield from _projector("prj_tex", "texture_projector", model.texture_projector)


def _keypoints_embedder(model: BilayerModel) -> Pairs:
    for i in range(len(model.keypoints_embedder.mlp)):
        yield f"net.mlp.{2 * i}", f"keypoints_embedder.mlp.{i}"


def _inference_generator(model: BilayerModel) -> Pairs:
    yield from _decoder("gen_inf", "inference_generator.decoder", model.inference_generator.decoder, ("2", "3", "1"))
    for i, head in enumerate(("uv_head", "lf_head", "mask_head")):
        yield f"gen_inf.heads.{i}.0", f"inference_generator.{head}"
    yield from _projector("prj_inf", "inference_projector", model.inference_projector)


def _texture_enhancer(model: BilayerModel) -> Pairs:
    updater, path, index = model.texture_updater, "texture_updater", 1
    yield "net.blocks.0", f"{path}.stem"
    for group, conv1, skip in (("down", "1", "0"), ("same", "1", "0"), ("up", "2", "1")):
        for i, block in enumerate(getattr(updater, group)):
            yield from _residual(f"net.blocks.{index}", f"{path}.{group}.{i}", block, conv1, skip)
            index += 1
    yield f"net.blocks.{index + 2}", f"{path}.head"  # behind an identity and an activation


def _discriminator(model: Discriminator) -> Pairs:
    yield "net.first_conv", "stem"
    for i, block in enumerate(model.blocks):
        yield f"net.blocks.{i}.block_feats.0", f"blocks.{i}.norm1"
        yield f"net.blocks.{i}.block_feats.3", f"blocks.{i}.norm2"
        yield from _residual(f"net.blocks.{i}", f"blocks.{i}", block, "2", "0")
    yield "net.final_block.0", "norm"
    yield "net.linear", "score"


_NETWORKS = {
    "identity_embedder": _identity_embedder,
    "texture_generator": _texture_generator,
    "keypoints_embedder": _keypoints_embedder,
    "inference_generator": _inference_generator,
    "texture_enhancer": _texture_enhancer,
    "discriminator": _discriminator,
}
