"""What exactly is exported: one module per warp strategy, fixed shapes, named inputs and outputs.

Rendering (official equation): hf = grid_sample(texture, uv); image = (lf + hf) * mask - (1 - mask).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.graphs.frame_generator import FrameGenerator
from mobile_avatar.models.bilayer.folded import FoldedGenerator
from mobile_avatar.models.bilayer.inference_generator import masked, pixel_grid, warp


class DeploymentGraph(nn.Module):
    """Base: a person's generator, texture (1, 3, S, S) and the layout of its outputs."""

    def __init__(self, generator: FoldedGenerator | FrameGenerator, texture: Tensor, layout: str) -> None:
        super().__init__()
        self.generator = generator
        self.align_corners = generator.config.align_corners
        self.channels_last = layout == "NHWC"
        self.register_buffer("grid", pixel_grid(generator.config.image_size))
        self.register_buffer("texture", texture)

    def layers(self, keypoints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uv, lf and mask in NCHW."""
        delta, lf, mask = self.generator(keypoints)
        return self.grid + delta, lf, mask

    def warp(self, uv: Tensor) -> Tensor:
        """High-frequency image (N, 3, S, S) from uv (N, 2, S, S)."""
        return warp(self.texture, uv.permute(0, 2, 3, 1), self.align_corners)

    def arrange(self, image: Tensor) -> Tensor:
        """NCHW -> the layout of the target."""
        return image.permute(0, 2, 3, 1) if self.channels_last else image


class SplitGraph(DeploymentGraph):
    """uv, lf and mask; the app's texture unit warps and composites (`composite.frag`)."""

    def forward(self, keypoints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        uv, lf, mask = self.layers(keypoints)
        return self.arrange(uv), self.arrange(lf), self.arrange(mask)


class NativeGraph(DeploymentGraph):
    """The composited image in [-1, 1], warped by the runtime's own GridSample / resample operator."""

    def forward(self, keypoints: Tensor) -> Tensor:
        uv, lf, mask = self.layers(keypoints)
        image = masked(lf + self.warp(uv), mask)
        # lf + hf may leave [-1, 1] by far once a texture was refined; an app that converts to bytes would wrap around.
        return self.arrange(image.clamp(-1, 1))


class GatherGraph(NativeGraph):
    """The composited image with the warp written as one row gather, for runtimes without a grid-sample operator.

    The texture becomes a table with one row per texel cell that holds its four corners (zero outside), so a pixel
    needs a single gather of 12 numbers and the zero padding costs no select.
    """

    def __init__(self, generator: FoldedGenerator | FrameGenerator, texture: Tensor, layout: str) -> None:
        super().__init__(generator, texture, layout)
        padded = F.pad(texture[0], (1, 1, 1, 1))
        corners = [padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:]]
        self.cells = texture.shape[-1] + 1
        self.register_buffer("table", torch.cat(corners).flatten(1).t().contiguous())

    def warp(self, uv: Tensor) -> Tensor:
        size = self.texture.shape[-1]
        scale, shift = ((size - 1) / 2, (size - 1) / 2) if self.align_corners else (size / 2, (size - 1) / 2)
        # Cell coordinates: 0 is the border cell left of the first texel; clamping there reads zeros, as padding does.
        position = (uv.permute(0, 2, 3, 1) * scale + (shift + 1)).clamp(0, size + 1)
        corner = position.floor().clamp(max=size)
        fraction = position - corner
        rows = (corner[..., 1:2] * self.cells + corner[..., 0:1]).reshape(1, -1).to(torch.int32)
        # `embedding` lowers to one plain gather; indexing would bring a select and a transpose with it.
        texels = F.embedding(rows, self.table).view(1, size, size, 12)
        fx, fy = fraction[..., 0:1], fraction[..., 1:2]
        top = texels[..., 0:3] + (texels[..., 3:6] - texels[..., 0:3]) * fx
        bottom = texels[..., 6:9] + (texels[..., 9:12] - texels[..., 6:9]) * fx
        return (top + (bottom - top) * fy).permute(0, 3, 1, 2)


WARPS: dict[str, type[DeploymentGraph]] = {"split": SplitGraph, "native": NativeGraph, "gather": GatherGraph}
