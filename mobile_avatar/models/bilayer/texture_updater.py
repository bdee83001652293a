"""Texture updater: learned gradient descent on the texture (thesis eq. 5.7), M steps, once per person."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mobile_avatar.models.bilayer.blocks import ResidualBlock, activate, conv3
from mobile_avatar.models.bilayer.config import BilayerConfig, widen
from mobile_avatar.models.bilayer.inference_generator import Layers, masked, warp


class TextureUpdater(nn.Module):
    """Predicts the next texture step from the texture and the gradient of the reconstruction error."""

    def __init__(self, config: BilayerConfig) -> None:
        super().__init__()
        self.align_corners = config.align_corners
        levels = (config.image_size // config.enh_bottleneck).bit_length() - 1
        widths = [widen(config.enh_channels, i, config.enh_max_channels) for i in range(levels + 1)]
        self.stem = conv3(6, widths[0])
        self.down = nn.ModuleList(ResidualBlock(a, b, "down") for a, b in zip(widths, widths[1:], strict=False))
        self.same = nn.ModuleList(ResidualBlock(widths[-1], widths[-1]) for _ in range(config.enh_blocks))
        back = widths[::-1]
        self.up = nn.ModuleList(ResidualBlock(a, b, "up") for a, b in zip(back, back[1:], strict=False))
        self.head = conv3(widths[0], 3)

    def step(self, texture: Tensor, gradient: Tensor, frames: int) -> Tensor:
        """Texture and gradient (b * n, 3, S, S), n frames per person -> what tanh turns into the step (b, 3, S, S)."""
        x = self.stem(torch.cat([texture, gradient], dim=1))
        for block in [*self.down, *self.same]:
            x = block(x)
        x = x.unflatten(0, (-1, frames)).mean(1)
        for block in self.up:
            x = block(x)
        return self.head(activate(x))

    def forward(
        self, texture: Tensor, source: Layers, images: Tensor, steps: int, checkpointing: bool = False
    ) -> list[Tensor]:
        """Textures after each of `steps` updates, each (b, 3, S, S).

        Args:
            texture: (b, 3, S, S) from the texture generator.
            source: layers rendered for the source keypoints, (b * n, ...), frame index fastest.
            images: source photos (b * n, 3, S, S) in [-1, 1].
            checkpointing: in training, compute the inside of each step again for the backward pass instead of keeping
                it: the memory of one step instead of all, for a third more time.
        """
        frames = images.shape[0] // texture.shape[0]
        lf, uv, mask = source.lf.detach(), source.uv().detach(), source.mask().detach()
        goal = masked(images, mask)
        textures = []
        for _ in range(steps):
            repeated = texture.repeat_interleave(frames, 0)
            gradient = reconstruction_gradient(repeated.detach(), lf, uv, mask, goal, self.align_corners)
            if checkpointing and torch.is_grad_enabled():
                step = checkpoint(self.step, repeated, gradient, frames, use_reentrant=False)
            else:
                step = self.step(repeated, gradient, frames)
            texture = texture + torch.tanh(step)
            textures.append(texture)
        return textures


@torch.enable_grad()
def reconstruction_gradient(
    texture: Tensor, lf: Tensor, uv: Tensor, mask: Tensor, goal: Tensor, align_corners: bool
) -> Tensor:
    """d/dtexture of 0.5 * sum((goal - masked(lf + warp(texture)))^2); a sum over everything, batch included."""
    texture = texture.requires_grad_()
    current = masked(lf + warp(texture, uv, align_corners), mask)
    error = 0.5 * (goal - current).square().sum()
    return torch.autograd.grad(error, texture)[0]
