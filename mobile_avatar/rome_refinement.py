"""The neural texture of a ROME avatar, moved so that the photo's own pose shows the person of the photo."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from mobile_avatar.models.rome.avatar import RomeAvatar
from mobile_avatar.models.rome.compact_renderer import TEXTURE
from mobile_avatar.models.rome.feature_image import sample_texture, texture_places

RATE = 0.03
# What holds a refined texture back: roughness and size of the change, and how many pixels must read a texel before it
# may follow them freely. Chosen on synthetic people seen in other poses, which looser values make worse.
ROUGHNESS, CHANGE, READERS = 0.02, 0.02, 1.0
STRUCTURE = 1.0
"""Weight of differences between neighbours beside colours: edges have to be where the photo's are."""


@torch.enable_grad()
def refine_rome_texture(
    avatar: RomeAvatar,
    photo: Tensor,
    photo_mask: Tensor,
    steps: int,
    progress: Callable[[range], Iterable[int]] = iter,
) -> Tensor:
    """Adam on the texture alone, (1, 8, S, S), so that the avatar with its source codes looks like `photo`.

    Mesh, encoder and renderer stay as they are. Only what both masks call the person counts, and only texels that this
    pose reads may change; the others come back bit by bit. The rate falls to zero. Nothing is random.

    Args:
        photo: (1, 3, S, S) RGB in [0, 1]: the crop that the source codes were fitted to.
        photo_mask: (1, 1, S, S) in [0, 1].
        steps: at least 1.
        progress: wraps the range of steps.
    """
    frame, start = avatar.render(avatar.source_codes[None]), avatar.texture
    mesh, surface = avatar.mesh, frame.features[:, TEXTURE:]
    places, seen = texture_places(frame.positions, mesh.corners.long(), mesh.uv, avatar.size)
    weight = frame.rgba[:, 3:] * photo_mask
    beside = [torch.minimum(*_neighbours(weight, dim)) for dim in (-1, -2)]

    nothing = torch.zeros_like(start[:, :1]).requires_grad_()
    (readers,) = torch.autograd.grad((sample_texture(nothing, places) * seen * weight).sum(), nothing)
    free = readers / (readers + READERS)
    change = torch.zeros_like(start).requires_grad_()
    optimizer = torch.optim.Adam([change], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in progress(range(steps)):
        moved = change * free
        features = torch.cat((sample_texture(start + moved, places) * seen, surface), dim=1)
        # Compared before compositing, see the bi-layer's refinement.
        error = avatar.renderer(features)[:, :3] - photo
        loss = (error.abs() * weight).mean()
        for dim, pair in zip((-1, -2), beside, strict=True):
            loss = loss + STRUCTURE * (error.diff(dim=dim).abs() * pair).mean()
        rough = moved.diff(dim=-1).abs().mean() + moved.diff(dim=-2).abs().mean()
        (change.grad,) = torch.autograd.grad(loss + ROUGHNESS * rough + CHANGE * change.square().mean(), change)
        optimizer.step()
        schedule.step()
    return (start + change * free).detach()


def _neighbours(image: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Everything but the last and everything but the first row or column."""
    length = image.shape[dim] - 1
    return image.narrow(dim, 0, length), image.narrow(dim, 1, length)
