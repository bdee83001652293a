"""Synthetic heads: parametric people rendered in plain torch, with exact keypoints and masks."""

from .heads import HeadBatch, SyntheticHeads
from .render import render_heads

__all__ = ["HeadBatch", "SyntheticHeads", "render_heads"]
