"""Who a synthetic person is: everything that stays the same over the frames, drawn from a seed."""

from dataclasses import dataclass, fields
from functools import reduce

import torch
from torch import Tensor

# Smooth displacement fields that shape the neutral head: centre, radius, displacement at amplitude 1, all in head
# units. Each is applied on both sides (mirrored) unless the centre lies on the midline.
SHAPE_FIELDS = (
    ("jaw_width", (1.2, 1.5, -0.6), 0.5, (0.13, 0.0, 0.0)),
    ("jaw_drop", (0.9, 1.8, -0.3), 0.4, (0.0, 0.10, 0.03)),
    ("chin_length", (0.0, 2.2, 0.3), 0.45, (0.0, 0.14, 0.0)),
    ("chin_forward", (0.0, 2.0, 0.4), 0.4, (0.0, 0.0, 0.13)),
    ("chin_width", (0.35, 2.1, 0.2), 0.3, (0.06, 0.0, 0.02)),
    ("cheek_width", (1.25, 0.6, -0.3), 0.45, (0.10, 0.0, 0.05)),
    ("cheek_fullness", (0.9, 1.1, 0.1), 0.4, (0.08, 0.0, 0.10)),
    ("cheekbone", (0.95, 0.4, 0.15), 0.3, (0.04, 0.0, 0.07)),
    ("nose_tip", (0.0, 0.65, 1.0), 0.26, (0.0, 0.0, 0.13)),
    ("nose_length", (0.0, 0.75, 0.85), 0.3, (0.0, 0.10, 0.0)),
    ("nose_width", (0.36, 0.7, 0.62), 0.2, (0.07, 0.0, 0.0)),
    ("nose_bridge", (0.0, 0.1, 0.65), 0.28, (0.0, 0.0, 0.10)),
    ("bridge_width", (0.25, 0.15, 0.5), 0.2, (0.04, 0.0, 0.02)),
    ("eye_spacing", (0.69, -0.04, 0.15), 0.4, (0.06, 0.0, 0.0)),
    ("eye_height", (0.69, -0.04, 0.15), 0.4, (0.0, 0.05, 0.0)),
    ("eye_depth", (0.69, -0.08, 0.15), 0.3, (0.0, 0.0, 0.06)),
    ("eye_size", (1.0, -0.0, 0.0), 0.25, (0.05, 0.0, 0.0)),
    ("brow_ridge", (0.6, -0.45, 0.35), 0.35, (0.0, 0.0, 0.07)),
    ("brow_height", (0.75, -0.45, 0.3), 0.35, (0.0, 0.05, 0.0)),
    ("forehead_slope", (0.0, -1.0, 0.3), 0.6, (0.0, 0.0, 0.12)),
    ("forehead_width", (1.2, -0.7, -0.3), 0.5, (0.09, 0.0, 0.0)),
    ("mouth_width", (0.55, 1.22, 0.3), 0.3, (0.07, 0.0, 0.0)),
    ("mouth_height", (0.0, 1.25, 0.5), 0.45, (0.0, 0.06, 0.0)),
    ("lips_forward", (0.0, 1.3, 0.55), 0.35, (0.0, 0.0, 0.07)),
    ("skull_height", (0.0, -1.9, -0.9), 0.9, (0.0, -0.14, 0.0)),
    ("skull_width", (1.5, -0.4, -1.3), 0.8, (0.09, 0.0, 0.0)),
    ("face_length", (0.0, 2.4, 0.0), 1.1, (0.0, 0.12, 0.0)),
)

SKIN = (
    (0.97, 0.83, 0.75),
    (0.93, 0.76, 0.65),
    (0.87, 0.68, 0.54),
    (0.76, 0.57, 0.43),
    (0.62, 0.44, 0.32),
    (0.45, 0.31, 0.23),
)
SKIN += ((0.31, 0.20, 0.15),)
HAIR = (
    (0.05, 0.045, 0.045),
    (0.12, 0.08, 0.06),
    (0.24, 0.15, 0.10),
    (0.38, 0.25, 0.16),
    (0.52, 0.36, 0.20),
    (0.75, 0.60, 0.38),
)
HAIR += ((0.50, 0.20, 0.10), (0.62, 0.61, 0.60), (0.74, 0.73, 0.72))
IRIS = (
    (0.20, 0.11, 0.06),
    (0.30, 0.18, 0.09),
    (0.42, 0.30, 0.15),
    (0.35, 0.45, 0.30),
    (0.35, 0.48, 0.60),
    (0.45, 0.52, 0.55),
)


@dataclass(frozen=True)
class Identity:
    """Parameters of n people; the first dimension of every tensor is n.

    shape: (n, len(SHAPE_FIELDS)) amplitudes; lips: (n, 2) thickness of upper, lower; eyes: (n, 3) opening above, below
    the corner line and tilt; brows: (n, 3) thickness, arch, lift
    skin, lip, iris, brow, hair, cloth, trim: (n, 3) colours, RGB in [0, 1]
    style: (n, 8) hair: present (0 or 1), thickness, fringe, length, waviness, parting, streaks, baldness of the front
    beard: (n, 3) full beard, moustache, stubble, each in [0, 1]
    marks: (n, 8) strength of freckles, of skin mottling, and three moles (a, b)
    neck: (n, 3) width, shoulder height, collar shape in [-1, 1]
    pattern: (n, 3) frequency x, frequency y, strength of the clothes' pattern
    offset: (n, 2) place in the noise picture
    light: (n, 12) direction of the main light (x, y, z), its colour, ambient colour, colour from below
    background: (n, 22) kind (0..1), two colours, then five blobs of (x, y, radius)
    """

    shape: Tensor
    lips: Tensor
    eyes: Tensor
    brows: Tensor
    skin: Tensor
    lip: Tensor
    iris: Tensor
    brow: Tensor
    hair: Tensor
    cloth: Tensor
    trim: Tensor
    style: Tensor
    beard: Tensor
    marks: Tensor
    neck: Tensor
    pattern: Tensor
    offset: Tensor
    light: Tensor
    background: Tensor

    def take(self, index: Tensor) -> "Identity":
        """The people at `index` (any number of times each)."""
        return Identity(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: str | torch.device) -> "Identity":
        """The same people on another device."""
        return Identity(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator for a tuple of non-negative integers; different tuples give unrelated streams."""
    mixed = reduce(lambda state, n: (state * 6364136223846793005 + n * 2 + 1442695040888963407) % 2**64, numbers, 0)
    mixed ^= mixed >> 29
    return torch.Generator().manual_seed(mixed * 0xBF58476D1CE4E5B9 % 2**63)


def _pick(palette: tuple, position: float) -> Tensor:
    """Colour at a position in [0, 1] along a palette."""
    table = torch.tensor(palette)
    x = min(max(position, 0.0), 1.0) * (len(palette) - 1)
    left = min(int(x), len(palette) - 2)
    return table[left] + (table[left + 1] - table[left]) * (x - left)


def _person(generator: torch.Generator) -> dict[str, Tensor]:
    u = torch.rand(128, generator=generator).tolist()
    g = torch.randn(64, generator=generator)
    draw = iter(u)

    def between(low: float, high: float) -> float:
        return low + (high - low) * next(draw)

    def colour(low: float, high: float) -> Tensor:
        c = torch.tensor([between(low, high) for _ in range(3)])
        return c.mean() + (c - c.mean()) * between(0.1, 1) ** 1.5  # mostly muted

    tone = next(draw)
    skin = (_pick(SKIN, tone) * torch.tensor([1.0, between(0.96, 1.01), between(0.94, 1.05)])).clamp(0.05, 1)
    dark = tone > 0.6  # dark skin rarely comes with light hair or eyes
    hair = torch.tensor(HAIR[int(between(0, 3 if dark else len(HAIR)))]) * between(0.8, 1.2)
    iris = torch.tensor(IRIS[int(between(0, 2 if dark else len(IRIS)))]) * between(0.85, 1.15)
    redness = torch.tensor([between(0.0, 0.06), -between(0.08, 0.24), -between(0.05, 0.17)])
    lip = (skin * 0.92 + redness * skin[0]).clamp(0.05, 1)
    bearded = next(draw) < 0.28
    full, moustache = between(0, 1), between(0, 1)
    stubble = between(0, 1)
    beard = torch.tensor([float(full < 0.6), float(moustache < 0.75), stubble]) * float(bearded)
    bald = next(draw) < 0.1
    long = next(draw) < (0.12 if bearded else 0.55)
    fringe = between(0.1, 1.0) if next(draw) < 0.3 else between(-0.5, 0.1)
    style = [0.0 if bald else 1.0, between(0.1, 0.34), fringe, between(0.8, 3.2) if long else 0.0]
    style += [between(0, 1) ** 2, between(-1, 1), between(0.3, 1), between(0, 1) ** 4]
    moles = [x for _ in range(3) for x in (between(0.3, 0.9) * (1 if next(draw) < 0.5 else -1), between(-0.6, 0.9))]
    angle, height = between(-1.2, 1.2), between(-0.9, 0.05)
    direction = torch.tensor([torch.sin(torch.tensor(angle)), height, torch.cos(torch.tensor(angle))])
    warmth = between(-0.08, 0.08)
    tint = torch.tensor([1 + warmth, 1.0, 1 - warmth])
    key, ambient = between(0.55, 0.95), between(0.35, 0.6)
    bounce = colour(0.3, 1.0) * ambient * 0.7
    cloth, trim = colour(0.05, 0.85), colour(0.05, 0.9)
    blobs = [x for _ in range(5) for x in (between(-1, 1), between(-1, 1), between(0.15, 0.7))]
    return {
        "shape": g[: len(SHAPE_FIELDS)].clamp(-2, 2) * 0.9,
        "lips": torch.tensor([between(0.7, 1.35), between(0.7, 1.35)]),
        "eyes": torch.tensor([between(0.39, 0.56), between(0.13, 0.24), between(-0.14, 0.12)]),
        "brows": torch.tensor([between(0.65, 1.3), between(-0.02, 0.03), between(-0.01, 0.02)]),
        "skin": skin,
        "lip": lip,
        "iris": iris,
        "brow": (hair * 0.75 + skin * 0.05).clamp(0.02, 0.75),
        "hair": hair.clamp(0.02, 1),
        "cloth": cloth,
        "trim": trim,
        "style": torch.tensor(style),
        "beard": beard,
        "marks": torch.tensor([max(0.0, between(-0.8, 0.6)), between(0.3, 1.0), *moles]),
        "neck": torch.tensor([between(-1, 1), between(-1, 1), between(-1, 1)]),
        "pattern": torch.tensor([between(0, 9), between(0, 9), max(0.0, between(-0.6, 0.8))]),
        "offset": torch.rand(2, generator=generator),
        "light": torch.cat((direction / direction.norm(), tint * key, (2 - tint) * ambient, bounce)),
        "background": torch.cat((torch.tensor([next(draw)]), colour(0, 1), colour(0, 1), torch.tensor(blobs))),
    }


def draw_identities(seeds: list[int], split: int) -> Identity:
    """The people with these seeds, on the CPU; `split` keeps training people and test people apart."""
    people = [_person(seeded(101, split, seed)) for seed in seeds]
    return Identity(**{name: torch.stack([p[name] for p in people]) for name in people[0]})
