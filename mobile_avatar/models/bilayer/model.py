"""The whole bi-layer model: what is computed once per person and what is computed per frame."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mobile_avatar.models.bilayer.adaptive import PredictedBlock
from mobile_avatar.models.bilayer.config import BilayerConfig
from mobile_avatar.models.bilayer.identity_embedder import IdentityEmbedder
from mobile_avatar.models.bilayer.inference_generator import InferenceGenerator, Layers, masked, warp
from mobile_avatar.models.bilayer.keypoints_embedder import KeypointsEmbedder
from mobile_avatar.models.bilayer.projector import Projector
from mobile_avatar.models.bilayer.texture_generator import TextureGenerator
from mobile_avatar.models.bilayer.texture_updater import TextureUpdater


@dataclass(frozen=True)
class Person:
    """Everything that is predicted once per identity, for b identities."""

    texture: Tensor
    """(b, 3, S, S) in [-1, 1], straight from the texture generator."""
    layers: list[PredictedBlock]
    """Adaptive parameters of the inference generator."""


class BilayerModel(nn.Module):
    """Bi-layer neural avatar (Zakharov et al., ECCV 2020) without its discriminator."""

    def __init__(self, config: BilayerConfig) -> None:
        super().__init__()
        self.config = config
        self.identity_embedder = IdentityEmbedder(config)
        skips = config.adaptive_skips
        self.texture_projector = Projector(
            config, config.num_blocks, config.tex_channels, config.tex_max_channels, config.tex_spade, skips
        )
        self.texture_generator = TextureGenerator(config)
        self.inference_projector = Projector(
            config, config.inf_blocks, config.inf_channels, config.inf_max_channels, False, skips
        )
        self.keypoints_embedder = KeypointsEmbedder(config)
        self.inference_generator = InferenceGenerator(config)
        self.texture_updater = TextureUpdater(config)

    def person(self, images: Tensor, masks: Tensor, landmark_images: Tensor) -> Person:
        """Source frames -> the person. Images (b, n, 3, S, S) in [-1, 1], masks (b, n, 1, S, S) in [0, 1]."""
        embeddings = self.identity_embedder(images, masks, landmark_images)
        texture = self.texture_generator(self.texture_projector(embeddings))
        return Person(texture, self.inference_projector(embeddings))

    def frame_layers(self, keypoints: Tensor, person: Person) -> Layers:
        """Keypoints (b, t, 136) in [-1, 1] -> layers of b * t frames, frame index fastest."""
        b, t = keypoints.shape[:2]
        layers = person.layers if b == 1 else [block.repeat(t) for block in person.layers]
        return self.inference_generator(self.keypoints_embedder(keypoints.flatten(0, 1)), layers)

    def forward(self, keypoints: Tensor, person: Person, texture: Tensor | None = None) -> Tensor:
        """Composited frames (b * t, 3, S, S): (lf + warp(texture)) * mask - (1 - mask)."""
        layers = self.frame_layers(keypoints, person)
        return masked(self.unmasked(layers, person.texture if texture is None else texture), layers.mask())

    def unmasked(self, layers: Layers, texture: Tensor) -> Tensor:
        """lf + warp(texture) for textures (b, 3, S, S) and layers of b * t frames."""
        repeated = texture.repeat_interleave(layers.lf.shape[0] // texture.shape[0], 0)
        return layers.lf + warp(repeated, layers.uv(), self.config.align_corners)

    @torch.no_grad()
    def update_texture(self, person: Person, images: Tensor, keypoints: Tensor, steps: int) -> list[Tensor]:
        """Textures after each learned update for source frames (b, n, 3, S, S) and their keypoints (b, n, 136)."""
        source = self.frame_layers(keypoints, person)
        return self.texture_updater(person.texture, source, images.flatten(0, 1), steps)
