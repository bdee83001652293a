"""Folding: model + one person's predicted layers -> FoldedGenerator of plain convolutions, equal to float rounding."""

import torch
from torch import Tensor, nn

from mobile_avatar.models.bilayer.adaptive import AdaptiveBatchNorm, AdaptiveBlock, PredictedBlock
from mobile_avatar.models.bilayer.folded import ChannelAffine, FoldedBlock, FoldedGenerator
from mobile_avatar.models.bilayer.model import BilayerModel, Person


@torch.no_grad()
def fold(model: BilayerModel, person: Person) -> FoldedGenerator:
    """The per-frame network of a single person (b = 1).

    `model` must be in eval mode with spectral norm resolved. Folding is computed in float64.
    """
    if person.texture.shape[0] != 1:
        raise ValueError("fold takes one person")
    folded = FoldedGenerator(model.config).eval()
    for target, source in zip([*folded.mlp, folded.base], model.keypoints_embedder.mlp, strict=True):
        target.load_state_dict(source.state_dict())
    decoder = model.inference_generator.decoder
    norm1 = _affine_norm(decoder.blocks[0].norm1)
    for i, (block, layers) in enumerate(zip(decoder.blocks, person.layers, strict=True)):
        _set_affine(folded.base_norm if i == 0 else folded.blocks[i].norm, norm1)
        _fold_block(folded.blocks[i], block, layers)
        norm1 = _predicted_norm(
            decoder.norm if i + 1 == len(decoder.blocks) else decoder.blocks[i + 1].norm1, layers.next_norm[0]
        )
    _set_affine(folded.norm, norm1)
    heads = [model.inference_generator.uv_head, model.inference_generator.lf_head, model.inference_generator.mask_head]
    folded.heads.weight.copy_(torch.cat([head.weight for head in heads]))
    folded.heads.bias.copy_(torch.cat([head.bias for head in heads]))
    return folded.requires_grad_(False)


def _fold_block(target: FoldedBlock, block: AdaptiveBlock, layers: PredictedBlock) -> None:
    scale, bias = _predicted_norm(block.norm2, layers.norm2[0])
    target.conv1.weight.copy_(block.conv1.weight.double() * scale[:, None, None, None])
    target.conv1.bias.copy_(block.conv1.bias.double() * scale + bias)
    target.conv2.load_state_dict(block.conv2.state_dict())
    if layers.skip is None:
        target.skip.load_state_dict(block.shared_skip.state_dict())
    else:
        target.skip.weight.copy_(layers.skip.weight[0][:, :, None, None])
        target.skip.bias.copy_(layers.skip.bias[0])


def _predicted_norm(norm: AdaptiveBatchNorm, predicted: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Scale and bias (C,) of an adaptive batch norm in eval mode."""
    weight, bias = predicted
    scale, shift = _statistics(norm.stats)
    gain = weight[0, :, 0].double() + 1
    return scale * gain, shift * gain + bias[0].double()


def _affine_norm(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    scale, shift = _statistics(norm)
    return scale * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    return scale, -norm.running_mean.double() * scale


def _set_affine(target: ChannelAffine, values: tuple[Tensor, Tensor]) -> None:
    scale, bias = values
    target.scale.copy_(scale.view(1, -1, 1, 1))
    target.bias.copy_(bias.view(1, -1, 1, 1))
