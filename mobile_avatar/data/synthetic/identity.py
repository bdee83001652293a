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
    skin, lip, iris, brow, hair, cloth, trim, frame: (n, 3) colours, RGB in [0, 1]; frame is that of the glasses
    style: (n, 11) hair: present (0 or 1), thickness, fringe, length, waviness, parting, streaks, baldness of the front,
        volume on top, volume at the sides, curls
    beard: (n, 3) full beard, moustache, stubble, each in [0, 1]
    marks: (n, 8) strength of freckles, of skin mottling, and three moles (a, b)
    age: (n, 4) strength of the lines of the forehead, around the eyes, from nose to mouth, under the eyes
    glasses: (n, 6) present (0 or 1), half width and half height of a lens, squareness, thickness of the frame, tint
    neck: (n, 3) width, shoulder height, collar shape in [-1, 1]
    pattern: (n, 4) frequency x, frequency y, strength of the clothes' pattern, opening of a jacket (0 is none)
    offset: (n, 2) place in the noise picture
    light: (n, 6) direction of the main light (x, y, z), its colour
    sky: (n, 27) light from everywhere else: spherical harmonics up to degree 2, (9, RGB) flattened
    lens: (n, 1) distance of the camera in head units
    grade: (n, 5) the camera's picture: gain of red, gain of blue, contrast, blur in pixels at 128, compression 0..1
    background: (n, 28) kind (0..1), three colours, then six blobs of (x, y, radius)
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
    frame: Tensor
    style: Tensor
    beard: Tensor
    marks: Tensor
    age: Tensor
    glasses: Tensor
    neck: Tensor
    pattern: Tensor
    offset: Tensor
    light: Tensor
    sky: Tensor
    lens: Tensor
    grade: Tensor
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


class _Dice:
    """A person's random numbers, one after the other."""

    def __init__(self, generator: torch.Generator) -> None:
        self._numbers = iter(torch.rand(160, generator=generator).tolist())

    def chance(self, share: float) -> bool:
        return next(self._numbers) < share

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._numbers)

    def row(self, *ranges: tuple[float, float]) -> list[float]:
        return [self.between(*limits) for limits in ranges]

    def colour(self, low: float, high: float) -> Tensor:
        """Mostly muted."""
        c = torch.tensor([self.between(low, high) for _ in range(3)])
        return c.mean() + (c - c.mean()) * self.between(0.2, 0.9) ** 2.5


def _person(generator: torch.Generator) -> dict[str, Tensor]:
    dice = _Dice(generator)
    g = torch.randn(len(SHAPE_FIELDS), generator=generator)
    old = max(0.0, dice.between(-0.6, 1.0))
    parts = _colours(dice, old) | _hair(dice) | _face(dice, old) | _clothes(dice) | _picture(dice)
    parts["shape"] = g.clamp(-2.2, 2.2) * 0.72
    parts["offset"] = torch.rand(2, generator=generator)
    return parts


def _colours(dice: _Dice, old: float) -> dict[str, Tensor]:
    tone = dice.between(0, 1)
    tint = torch.tensor([1.0, dice.between(0.96, 1.01), dice.between(0.94, 1.05)])
    skin = (_pick(SKIN, tone) * tint).clamp(0.05, 1)
    dark = tone > 0.6  # dark skin rarely comes with light hair or eyes
    hair = torch.tensor(HAIR[int(dice.between(0, 3 if dark else len(HAIR)))]) * dice.between(0.8, 1.2)
    grey = max(0.0, old - 0.45) * 1.6 * dice.between(0, 1)
    hair = (hair + (torch.tensor(HAIR[-1]) - hair) * min(grey, 0.9)).clamp(0.02, 1)
    iris = torch.tensor(IRIS[int(dice.between(0, 2 if dark else len(IRIS)))]) * dice.between(0.85, 1.15)
    redness = torch.tensor([dice.between(0.0, 0.06), -dice.between(0.08, 0.24), -dice.between(0.05, 0.17)])
    return {
        "skin": skin,
        "lip": (skin * 0.92 + redness * skin[0]).clamp(0.05, 1),
        "iris": iris,
        "brow": (hair * 0.75 + skin * 0.05).clamp(0.02, 0.75),
        "hair": hair,
    }


def _hair(dice: _Dice) -> dict[str, Tensor]:
    bearded = dice.chance(0.28)
    full, moustache, stubble = dice.row((0, 1), (0, 1), (0, 1))
    bald = dice.chance(0.08)
    long = dice.chance(0.12 if bearded else 0.55)
    fringe = dice.between(0.1, 1.0) if dice.chance(0.3) else dice.between(-0.5, 0.1)
    style = [0.0 if bald else 1.0, dice.between(0.08, 0.32), fringe, dice.between(0.7, 3.4) if long else 0.0]
    style += [dice.between(0, 1) ** 2, dice.between(-1, 1), dice.between(0.3, 1), dice.between(0, 1) ** 4]
    curly = dice.chance(0.2)
    top = dice.between(0, 1) ** 1.5 * 0.5
    side = dice.between(0, 1) ** 1.5 * (0.55 if long or curly else 0.3)
    style += [top + 0.2 * curly, side, dice.between(0.4, 1) if curly else 0.0]
    beard = torch.tensor([float(full < 0.6), float(moustache < 0.75), stubble]) * float(bearded)
    return {"style": torch.tensor(style), "beard": beard}


def _face(dice: _Dice, old: float) -> dict[str, Tensor]:
    moles = [
        x for _ in range(3) for x in (dice.between(0.3, 0.9) * (1 if dice.chance(0.5) else -1), dice.between(-0.6, 0.9))
    ]
    glasses = [float(dice.chance(0.2)), *dice.row((0.44, 0.56), (0.30, 0.46), (2.0, 4.5), (0.02, 0.055))]
    glasses.append(dice.between(0.25, 0.8) if dice.chance(0.08) else 0.06)
    frame = dice.colour(0.02, 0.35) if dice.chance(0.8) else dice.colour(0.3, 0.8)
    return {
        "lips": torch.tensor(dice.row((0.7, 1.35), (0.7, 1.35))),
        "eyes": torch.tensor(dice.row((0.39, 0.56), (0.13, 0.24), (-0.14, 0.12))),
        "brows": torch.tensor(dice.row((0.65, 1.3), (-0.02, 0.03), (-0.01, 0.02))),
        "marks": torch.tensor([max(0.0, dice.between(-0.8, 0.6)), dice.between(0.3, 1.0), *moles]),
        "age": torch.tensor([old * dice.between(0.3, 1.2) for _ in range(3)] + [dice.between(0.1, 0.5) + 0.6 * old]),
        "glasses": torch.tensor(glasses),
        "frame": frame.clamp(0.02, 0.9),
    }


def _clothes(dice: _Dice) -> dict[str, Tensor]:
    jacket = dice.between(0.25, 0.9) if dice.chance(0.35) else 0.0
    pattern = [*dice.row((0, 9), (0, 9)), max(0.0, dice.between(-1.0, 0.8)), jacket]
    return {
        "cloth": dice.colour(0.05, 0.85),
        "trim": dice.colour(0.05, 0.9),
        "neck": torch.tensor(dice.row((-1, 1), (-1, 1), (-1, 1))),
        "pattern": torch.tensor(pattern),
    }


def _picture(dice: _Dice) -> dict[str, Tensor]:
    angle, height = dice.between(-1.2, 1.2), dice.between(-0.9, 0.05)
    direction = torch.tensor([torch.sin(torch.tensor(angle)), height, torch.cos(torch.tensor(angle))])
    warmth = dice.between(-0.08, 0.08)
    tint = torch.tensor([1 + warmth, 1.0, 1 - warmth])
    key, ambient = dice.between(0.35, 0.95), dice.between(0.35, 0.65)
    # Degree 0 is the mean, degree 1 brighter above than below plus a side, degree 2 a little of everything.
    bounce = dice.colour(0.3, 0.9) * ambient
    above, below = (2 - tint) * ambient, bounce * 0.7
    side = dice.colour(0.0, 0.5) * dice.between(-0.5, 0.5)
    sky = torch.zeros(9, 3)
    sky[0], sky[1], sky[2], sky[3] = (above + below) / 2, (below - above) / 2, side * 0.3, side
    for i in range(4, 9):
        sky[i] = dice.between(-0.10, 0.10) * ambient * tint
    blobs = [x for _ in range(6) for x in dice.row((-1, 1), (-1, 1), (0.08, 0.6))]
    background = [torch.tensor([dice.between(0, 1)]), *(dice.colour(0.02, 0.95) for _ in range(3)), torch.tensor(blobs)]
    sharp = dice.between(0, 1) ** 3
    return {
        "light": torch.cat((direction / direction.norm(), tint * key)),
        "sky": sky.flatten(),
        "lens": torch.tensor([dice.between(9, 24)]),
        "grade": torch.tensor([*dice.row((0.93, 1.07), (0.93, 1.07), (0.85, 1.15)), 0.7 * sharp, dice.between(0, 1)]),
        "background": torch.cat(background),
    }


def draw_identities(seeds: list[int], split: int) -> Identity:
    """The people with these seeds, on the CPU; `split` keeps training people and test people apart."""
    people = [_person(seeded(101, split, seed)) for seed in seeds]
    return Identity(**{name: torch.stack([p[name] for p in people]) for name in people[0]})
