"""What makes an avatar look like its person: a texture encoder and a compact renderer that were trained together."""

import torch
from torch import Tensor, nn

from mobile_avatar.models.rome.compact_renderer import PHOTO_COLOURS, CompactConfig, CompactRenderer
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.photo_texture import PhotoSurface, with_photo
from mobile_avatar.models.rome.texture_encoder import TextureEncoder


class Appearance(nn.Module):
    """Both networks; neither means much with another partner.

    Args:
        config: of the ROME model whose meshes they were trained on; its image size is the encoder's.
        compact: of the renderer; its pictures may be larger.
    """

    def __init__(self, config: RomeConfig, compact: CompactConfig) -> None:
        super().__init__()
        self.config = config
        self.texture_encoder = TextureEncoder(config)
        self.renderer = CompactRenderer(compact)

    @torch.no_grad()
    def leave_colours(self) -> None:
        """Make the texture encoder begin with changing no colour: as it comes from a full model it gives colours."""
        last = self.texture_encoder.net[-1]
        last.weight[:PHOTO_COLOURS].zero_()
        last.bias[:PHOTO_COLOURS].zero_()

    def texture(self, photo: Tensor, matte: Tensor, seen: PhotoSurface) -> Tensor:
        """Neural textures (n, 8, T, T), once per avatar.

        Args:
            photo, matte: (n, 3, s, s) and (n, 1, s, s) in [0, 1], aligned, of the encoder's size.
            seen: what the photos say of the surface.
        """
        return with_photo(self.texture_encoder(photo, matte), seen)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Feature images (n, 12, S, S) -> RGB (n, 3, S, S) and masks (n, 1, S, S), both in [0, 1]."""
        image, mask = torch.split(self.renderer(features), [3, 1], dim=1)
        return image, mask
