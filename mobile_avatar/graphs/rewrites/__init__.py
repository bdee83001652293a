"""Exact rewrites of the per-frame network: the same numbers with less work, or in a form that a runtime prefers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from mobile_avatar.errors import BadInput
from mobile_avatar.graphs.frame_generator import FrameGenerator, plain
from mobile_avatar.graphs.rewrites import layers, norms, upsampling
from mobile_avatar.models.bilayer.folded import FoldedGenerator


@dataclass(frozen=True)
class Rewrite:
    """One row of the table."""

    name: str
    title: str
    apply: Callable[[FrameGenerator], None]
    """Changes a generator in place; outputs stay equal to float rounding."""
    needs: tuple[str, ...] = ()
    """Rewrites that have to come before."""
    excludes: tuple[str, ...] = ()
    """Rewrites of the same part."""


# In the order in which they are applied.
REWRITES: dict[str, Rewrite] = {
    row.name: row
    for row in (
        Rewrite("last-norm", "norm in front of the heads into the last block", norms.fold_last_norm),
        Rewrite("affine", "batch norm and predicted scale as one scale and bias", norms.merge_affine),
        Rewrite("norm2", "second norm into the convolution before it", norms.fold_norm2),
        Rewrite(
            "first-norm", "first norm into the last keypoint layer", norms.fold_first_norm, excludes=("base-nhwc",)
        ),
        Rewrite("base-nhwc", "last keypoint layer in the order of NHWC runtimes", norms.base_in_nhwc),
        Rewrite("skip-first", "1x1 skip before its up-sampling", upsampling.skip_first),
        Rewrite("one-head", "three heads as one convolution", layers.one_head),
        Rewrite(
            "transposed",
            "up-sampling + 3x3 as a transposed 4x4",
            upsampling.as_transposed,
            excludes=("phases", "phases-nhwc"),
        ),
        Rewrite(
            "phases",
            "up-sampling + 3x3 as 2x2 phases + depth to space",
            upsampling.as_phases,
            excludes=("phases-nhwc",),
        ),
        Rewrite("phases-nhwc", "phases for runtimes that compute in NHWC", upsampling.as_phases_nhwc),
        Rewrite("maximum", "leaky ReLU as max(x, 0.2 x)", layers.maximum_activation),
        Rewrite("affine-conv", "scale and bias as a depthwise 1x1 convolution", layers.affine_conv, needs=("affine",)),
    )
}
ALWAYS = ("last-norm", "affine", "norm2", "skip-first", "one-head")
"""Those that cost nothing anywhere."""


def check_rewrites(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the order of the table; BadInput for an unknown one or a combination that cannot be."""
    names = set(names)
    for name in sorted(names):
        if name not in REWRITES:
            raise BadInput(f"unknown rewrite {name!r}; choose among {', '.join(REWRITES)}")
        row = REWRITES[name]
        for other in row.needs:
            if other not in names:
                raise BadInput(f"the rewrite {name} needs {other}; add it or leave {name} out")
        for other in row.excludes:
            if other in names:
                raise BadInput(f"the rewrites {name} and {other} exclude each other; leave one out")
    return tuple(name for name in REWRITES if name in names)


@torch.no_grad()
def rewrite(folded: FoldedGenerator, names: Iterable[str]) -> FrameGenerator:
    """A person's per-frame network in the official structure, changed by the named rewrites.

    Returns:
        A new module in eval mode whose outputs equal those of `folded` to float rounding.

    Raises:
        BadInput: an unknown name or an impossible combination.
    """
    generator = plain(folded)
    for name in check_rewrites(names):
        REWRITES[name].apply(generator)
    return generator.eval().requires_grad_(False)
