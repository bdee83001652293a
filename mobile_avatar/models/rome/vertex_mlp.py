"""Vertex network: what the geometry map says at a vertex -> how far that vertex moves."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.encoding import harmonic_encoding

LAYERS = 4  # linear layers in each of the two blocks


class VertexMlp(nn.Module):
    """Two blocks of linear layers; the second sees the inputs again."""

    def __init__(self, config: RomeConfig) -> None:
        super().__init__()
        inputs, wide = config.point_channels, config.mlp_channels
        self.block_1 = _block(inputs, wide)
        self.block_2 = _block(inputs + wide, wide)
        self.block_2.append(nn.Linear(wide, 3, bias=False))

    def forward(self, points: Tensor) -> Tensor:
        """(..., 58) from `vertex_features` -> (..., 3), unbounded."""
        return self.block_2(torch.cat([points, self.block_1(points)], dim=-1))


def _block(inputs: int, wide: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(LAYERS):
        layers += [nn.Linear(wide if i else inputs, wide), nn.ReLU()]
    return nn.Sequential(*layers)


def vertex_features(latent: Tensor, vertex_uv: Tensor, octaves: int) -> Tensor:
    """Inputs of the vertex network.

    Args:
        latent: geometry map (B, 32, N, N).
        vertex_uv: (V, 2) or (B, V, 2), (x, y) in [-1, 1], one place per vertex.

    Returns:
        (B, V, 58): the map at the vertex, then the encoded place. The place is stretched by N / (N - 1): officially
        it is looked up in a grid whose corners lie at -1 and 1, with a look-up that thinks they lie half a pixel
        further in, and the released weights know it no other way.
    """
    batch, side = latent.shape[0], latent.shape[-1]
    places = vertex_uv.expand(batch, -1, -1)
    sampled = F.grid_sample(latent, places[:, :, None], mode="bilinear", padding_mode="zeros", align_corners=False)
    return torch.cat([sampled[..., 0].mT, harmonic_encoding(places * (side / (side - 1)), octaves)], dim=-1)


def vertex_offsets(moves: Tensor, deforms_mask: Tensor, normals: Tensor) -> Tensor:
    """Offsets (B, V, 3) of the vertices: tanh of the network's output times mask and normal, component by component.

    Args:
        moves: (B, V, 3), from the vertex network.
        deforms_mask: (V, 1) or (B, V, 1), 1 where a vertex may move.
        normals: (B, V, 3), unit vertex normals of the mesh without offsets.
    """
    return torch.tanh(moves) * deforms_mask * normals


def with_movable_face(deforms_mask: Tensor, vertex_uv: Tensor, face_map: Tensor, tightness: float) -> Tensor:
    """The mask (V, 1) of a full model that may also move the face a little (the official notebook: 1e-4).

    Args:
        deforms_mask: (V, 1).
        vertex_uv: (V, 2), (x, y) in [-1, 1].
        face_map: (N, N) in [0, 1] over the texture, the face and its eyes (DECA's `uv_face_eye_mask`).
        tightness: value of all vertices inside it, those of hair and neck too.
    """
    sampled = F.grid_sample(
        face_map[None, None], vertex_uv[None, :, None], mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return torch.where(sampled[0, 0] > 0.5, tightness, deforms_mask)
