"""What fine-tuning trains: a folded generator and a texture, with the movements of one person made easy to learn."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.models.bilayer.folded import ChannelAffine, FoldedGenerator
from mobile_avatar.models.bilayer.inference_generator import pixel_grid, warp

COMPONENTS = 24
LEAST_DEVIATION = 0.004  # in half sides of the crop: what the tracker trembles by must not be amplified


class WhitenedLinear(nn.Module):
    """A linear layer with a second, equally linear way in, whose inputs all have the same variance.

    A mouth moves the keypoints a tenth as far as the head does, so that plain gradient descent hardly learns what it
    does. Along the principal components of the training inputs, each divided by its deviation, both are as easy.
    """

    def __init__(self, linear: nn.Linear, inputs: Tensor) -> None:
        """`inputs` (N, in) are typical; computes the same as `linear` until it is trained."""
        super().__init__()
        # Keypoints hardly vary around their mean, so that training the weight itself would act like a huge bias.
        self.weight, self.bias = linear.weight.requires_grad_(False), linear.bias
        centre = inputs.double().mean(dim=0)
        _, spread, directions = torch.linalg.svd(inputs.double() - centre, full_matrices=False)
        deviation = (spread / len(inputs) ** 0.5).clamp_min(LEAST_DEVIATION)
        basis = (directions / deviation[:, None])[:COMPONENTS]
        self.register_buffer("centre", centre.float())
        self.register_buffer("basis", basis.float())
        self.steer = nn.Parameter(torch.zeros(linear.out_features, len(basis)).to(linear.weight))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + F.linear((x - self.centre) @ self.basis.T, self.steer)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The same as one linear layer."""
        linear = nn.Linear(self.weight.shape[1], self.weight.shape[0], device=self.weight.device)
        extra = self.steer.double() @ self.basis.double()
        linear.weight.copy_(self.weight.double() + extra)
        linear.bias.copy_(self.bias.double() - extra @ self.centre.double())
        return linear


class Portrait(nn.Module):
    """A folded generator and a texture."""

    def __init__(self, generator: FoldedGenerator, texture: Tensor, keypoints: Tensor) -> None:
        """Copies of the first two; `keypoints` (N, 136) are typical ones."""
        super().__init__()
        self.generator = copy.deepcopy(generator).requires_grad_(True)
        first = WhitenedLinear(self._first(), generator.encoding(keypoints))
        self._set_first(first)
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
        portrait._set_first(portrait._first().merged())
        generator = portrait.generator.to("cpu", memory_format=torch.contiguous_format).eval().requires_grad_(False)
        return generator, portrait.texture.detach().cpu().contiguous()

    def _first(self) -> nn.Module:
        return self.generator.mlp[0] if len(self.generator.mlp) else self.generator.base

    def _set_first(self, layer: nn.Module) -> None:
        if len(self.generator.mlp):
            self.generator.mlp[0] = layer
        else:
            self.generator.base = layer
