"""The neural texture of a ROME avatar, moved so that the photo's own pose shows the person of the photo."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from mobile_avatar.models.rome.avatar import RomeAvatar
from mobile_avatar.models.rome.compact_renderer import TEXTURE
from mobile_avatar.models.rome.feature_image import sample_texture, texture_places

RATE = 0.03
# What holds a refined texture back: roughness and size of the change, and how many pixels must read a texel before it
# may follow them freely. Chosen on synthetic people in other poses: looser values gain more in the photo's own pose,
# but less where the encoder's codes drive; absolute errors, of edges too, lose more in the worst pose.
ROUGHNESS, CHANGE, READERS = 0.2, 0.2, 1.0


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
    nothing = torch.zeros_like(start[:, :1]).requires_grad_()
    (readers,) = torch.autograd.grad((sample_texture(nothing, places) * seen * weight).sum(), nothing)
    free = readers / (readers + READERS)
    change = torch.zeros_like(start).requires_grad_()
    optimizer = torch.optim.Adam([change], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in progress(range(steps)):
        moved = change * free
        features = torch.cat((sample_texture(start + moved, places) * seen, surface), dim=1)
        # Compared before compositing: behind a half-transparent mask the colours would have to overshoot.
        error = (2 * (avatar.renderer(features)[:, :3] - photo)).square() * weight
        rough = moved.diff(dim=-1).abs().mean() + moved.diff(dim=-2).abs().mean()
        (change.grad,) = torch.autograd.grad(error.mean() + ROUGHNESS * rough + CHANGE * change.square().mean(), change)
        optimizer.step()
        schedule.step()
    return (start + change * free).detach()
