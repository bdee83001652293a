"""What is behind a person: walls, gradients, blurred rooms, lights out of focus, foliage."""

import torch
from torch import Tensor

from .identity import Identity
from .paint import noise, soft

# Kinds by the first number of `Identity.background`: (up to, name of the amount below).
KINDS = ((0.12, "plain"), (0.32, "slope"), (0.50, "blobs"), (0.66, "bokeh"), (0.84, "room"), (1.01, "leaves"))


def background(identity: Identity, size: int) -> Tensor:
    """(n, 3, size, size) display colours; a person keeps theirs in every frame."""
    device = identity.skin.device
    axis = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    y, x = axis[:, None].expand(size, size), axis[None, :].expand(size, size)
    row = identity.background[:, :, None, None]
    kind, first, second, third = row[:, 0], row[:, 1:4], row[:, 4:7], row[:, 7:10]
    shape = (identity.skin.shape[0], size, size)
    px = (x * 0.13 + identity.offset[:, 0, None, None]).reshape(-1)
    py = (y * 0.13 + identity.offset[:, 1, None, None]).reshape(-1)
    white, fine, coarse = (level.view(shape) for level in noise(px, py))
    slope = (0.5 + 0.35 * (x * row[:, 10] + y)).clamp(0, 1)
    blobs, discs = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
    for i in range(6):
        cx, cy, r = row[:, 10 + 3 * i], row[:, 11 + 3 * i], row[:, 12 + 3 * i]
        distance = torch.sqrt((x - cx) ** 2 + (y - cy) ** 2 + 1e-9)
        blobs = blobs + torch.exp(-((distance / r) ** 2)) * (1.0 if i % 2 else -0.8)
        discs = discs + 0.55 * soft(0.45 * r - distance, 0.03)
    bars = soft(torch.sin((x + 0.3 * row[:, 11]) * (3 + 6 * row[:, 12])) - 0.3, 0.25)
    shelf = soft(torch.sin((y + row[:, 14]) * (3 + 7 * row[:, 15])) - 0.2, 0.2)
    amounts = {
        "plain": torch.zeros(shape, device=device),
        "slope": slope,
        "blobs": (slope + 0.6 * blobs).clamp(0, 1),
        "bokeh": discs.clamp(0, 1),
        "room": (0.75 * bars * shelf + 0.25 * slope).clamp(0, 1),
        "leaves": soft(coarse + 0.5 * fine, 1.2),
    }
    amount = amounts[KINDS[-1][1]]
    for limit, name in reversed(KINDS[:-1]):
        amount = torch.where(kind < limit, amounts[name], amount)
    texture = 1 + 0.05 * coarse + 0.03 * fine + 0.015 * white
    patch = soft(coarse - 1.1, 0.8) * torch.where(kind < KINDS[3][0], 0.0, 0.7)
    colour = first + (second - first) * amount[:, None]
    colour = colour + (third - colour) * patch[:, None]
    return (colour * texture[:, None]).clamp(0, 1)
