"""Synthetic heads: parametric people in plain torch, with exact keypoints, masks, parts, normals, depth and mesh."""

from .heads import HeadBatch, SyntheticHeads
from .paint import PARTS
from .render import Mesh, head_mesh, render_heads

__all__ = ["PARTS", "HeadBatch", "Mesh", "SyntheticHeads", "head_mesh", "render_heads"]
