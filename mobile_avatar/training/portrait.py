"""What fine-tuning trains: a folded generator and a texture."""

import copy

import torch
from torch import Tensor, nn

from mobile_avatar.models.bilayer.folded import ChannelAffine, FoldedGenerator
from mobile_avatar.models.bilayer.inference_generator import pixel_grid, warp


class Portrait(nn.Module):
    """Copies of a folded generator and a texture (1, 3, S, S), ready to train."""

    def __init__(self, generator: FoldedGenerator, texture: Tensor) -> None:
        super().__init__()
        self.generator = copy.deepcopy(generator).requires_grad_(True)
        self.texture = nn.Parameter(texture.clone())

    def layers(self, keypoints: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, 136) -> uv delta (N, 2, S, S), lf, lf + warped texture (N, 3, S, S), mask (N, 1, S, S)."""
        # Losses of channels-last tensors take twice as long.
        delta, lf, mask = (layer.contiguous() for layer in self.generator(keypoints))
        uv = (pixel_grid(delta.shape[-1], delta.device) + delta).permute(0, 2, 3, 1)
        texture = self.texture.expand(len(delta), -1, -1, -1)
        return delta, lf, lf + warp(texture, uv, self.generator.config.align_corners), mask

    def personal(self) -> set[str]:
        """Names of the texture and of what a projector predicted: adaptive norms, also folded ones, and skips."""
        affine = {name for name, part in self.generator.named_modules() if isinstance(part, ChannelAffine)}
        return {"texture"} | {
            f"generator.{name}"
            for name, _ in self.generator.named_parameters()
            if name.rpartition(".")[0] in affine or ".skip." in name or name.endswith("conv1.bias")
        }

    def folded(self) -> tuple[FoldedGenerator, Tensor]:
        """Generator, on the CPU and in eval mode, and texture (1, 3, S, S) as an avatar holds them."""
        portrait = copy.deepcopy(self)
        generator = portrait.generator.to("cpu", memory_format=torch.contiguous_format).eval().requires_grad_(False)
        return generator, portrait.texture.detach().cpu().contiguous()
