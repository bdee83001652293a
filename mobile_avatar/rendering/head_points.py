"""A head of 68 points in space: neutral shape, expressions, pose, and fitting it to one person's keypoints.

Head space: x to the right of the picture, y down, z towards the viewer; the origin lies between the eyes and the unit
is half the distance between the outer eye corners. The camera is orthographic. Eyelids and the jaw are operations on
points, not fixed offsets, so that "eyes closed" closes the eyes of every fitted face.
"""

from dataclasses import dataclass

import numpy as np

from mobile_avatar.errors import BadInput

# One half of an average face with nearly closed lips, x >= 0, from the side of the face to its middle.
_JAW = (
    *((1.47, 0.05, -0.82), (1.46, 0.45, -0.90), (1.42, 0.85, -0.87), (1.34, 1.23, -0.78)),
    *((1.18, 1.58, -0.62), (0.95, 1.86, -0.38), (0.66, 2.07, -0.10), (0.34, 2.20, 0.10)),
)
_CHIN = (0.0, 2.24, 0.17)
_BROW = ((1.28, -0.30, -0.20), (1.08, -0.44, 0.08), (0.86, -0.50, 0.22), (0.60, -0.48, 0.32), (0.34, -0.41, 0.38))
_NOSE = ((0.0, -0.08, 0.42), (0.0, 0.17, 0.56), (0.0, 0.42, 0.74), (0.0, 0.66, 0.93))
_NOSTRILS, _SEPTUM = ((0.33, 0.81, 0.48), (0.17, 0.87, 0.60)), (0.0, 0.91, 0.67)
# Outer corner, upper lid, inner corner, lower lid.
_EYE = (
    *((1.00, 0.00, 0.00), (0.82, -0.12, 0.10), (0.58, -0.12, 0.15)),
    *((0.40, 0.04, 0.10), (0.58, 0.09, 0.13), (0.81, 0.09, 0.09)),
)
_UPPER_LIP, _UPPER_MIDDLE = ((0.56, 1.31, 0.25), (0.34, 1.21, 0.46), (0.13, 1.16, 0.55)), (0.0, 1.18, 0.57)
_LOWER_LIP, _LOWER_MIDDLE = ((0.35, 1.45, 0.42), (0.16, 1.51, 0.51)), (0.0, 1.52, 0.53)
_INNER_CORNER = (0.47, 1.315, 0.28)
_INNER_UPPER, _INNER_UPPER_MIDDLE = (0.17, 1.30, 0.49), (0.0, 1.305, 0.52)
_INNER_LOWER, _INNER_LOWER_MIDDLE = (0.17, 1.33, 0.48), (0.0, 1.34, 0.50)

# The axis of the jaw joint, through both ears, and how far it turns when the mouth is wide open.
HINGE_Y, HINGE_Z = 0.35, -0.95
JAW_OPEN = 0.26
# Lids meet nearer to the lower one; pairs are (upper, lower).
LIDS_MEET = 0.8
RIGHT_LIDS = ((37, 41), (38, 40))
LEFT_LIDS = ((43, 47), (44, 46))


def _mirrored(points: tuple) -> list:
    return [(-x, y, z) for x, y, z in points]


def _template() -> np.ndarray:
    """(68, 3) in iBUG order: the person's right side, on the left of the picture, comes first."""
    eye = _EYE
    return np.array(
        [
            *(*_mirrored(_JAW), _CHIN, *reversed(_JAW)),
            *(*_mirrored(_BROW), *reversed(_BROW)),
            *(*_NOSE, *_mirrored(_NOSTRILS), _SEPTUM, *reversed(_NOSTRILS)),
            *(*_mirrored(eye), eye[3], eye[2], eye[1], eye[0], eye[5], eye[4]),
            *(*_mirrored(_UPPER_LIP), _UPPER_MIDDLE, *reversed(_UPPER_LIP)),
            *(*_LOWER_LIP, _LOWER_MIDDLE, *_mirrored(tuple(reversed(_LOWER_LIP)))),
            *(*_mirrored((_INNER_CORNER, _INNER_UPPER)), _INNER_UPPER_MIDDLE, _INNER_UPPER, _INNER_CORNER),
            *(_INNER_LOWER, _INNER_LOWER_MIDDLE, *_mirrored((_INNER_LOWER,))),
        ]
    )


TEMPLATE = _template()


def _weights(entries: dict[int, float]) -> np.ndarray:
    weights = np.zeros((68, 1))
    for point, weight in entries.items():
        weights[point] = weight
    return weights


# How much each point follows the jaw: the bone fully, its upper end and the lip corners less.
_FOLLOWS_JAW = _weights(
    {
        **dict(enumerate((0.0, 0.08, 0.25, 0.55, 0.85, 1, 1, 1, 1, 1, 1, 1, 0.85, 0.55, 0.25, 0.08, 0.0))),
        **{48: 0.4, 54: 0.4, 60: 0.45, 64: 0.45, 55: 0.8, 59: 0.8, 56: 1, 57: 1, 58: 1, 65: 0.95, 66: 1, 67: 0.95},
        **{49: 0.1, 53: 0.1, 61: 0.02, 63: 0.02},
    }
)
_LIP_CORNERS = _weights(
    {48: 1, 54: 1, 60: 0.95, 64: 0.95, 49: 0.5, 53: 0.5, 59: 0.5, 55: 0.5, 61: 0.35, 63: 0.35, 67: 0.35, 65: 0.35}
)
_LIPS = _weights({**dict.fromkeys(range(48, 68), 1.0), 48: 0.5, 54: 0.5, 60: 0.5, 64: 0.5})
_LOWER_LIDS = _weights(dict.fromkeys((40, 41, 46, 47), 1.0))
_BROWS = _weights({17: 0.6, 18: 0.9, 19: 1, 20: 1, 21: 0.9, 22: 0.9, 23: 1, 24: 1, 25: 0.9, 26: 0.6})
# Displacements (68, 3) at amplitude 1; the sign of x makes both halves mirror images.
_OUTWARD = np.sign(TEMPLATE[:, :1]) * (1.0, 0.0, 0.0)
_SMILE = _LIP_CORNERS * (_OUTWARD * 0.12 + (0, -0.13, -0.08)) + _LOWER_LIDS * (0, -0.03, 0)
_PUCKER = _LIPS * (0, 0, 0.12) - 0.45 * _LIPS * np.abs(TEMPLATE[:, :1]) * _OUTWARD
_RAISE = _BROWS * (0, -0.17, 0)


@dataclass(frozen=True)
class Expression:
    """What a face does, 0 = its neutral expression."""

    jaw: float = 0.0
    """1 = mouth wide open."""
    press: float = 0.0
    """1 = lips that are parted in the neutral expression are brought together."""
    smile: float = 0.0
    pucker: float = 0.0
    brows: float = 0.0
    """1 = raised, -1 = lowered."""
    blink_right: float = 0.0
    """The person's right eye, 1 = closed."""
    blink_left: float = 0.0


@dataclass(frozen=True)
class Pose:
    """Rotation in radians, zero = facing the camera."""

    yaw: float = 0.0
    """Positive: the nose points to the right of the picture."""
    pitch: float = 0.0
    """Positive: the nose points down."""
    roll: float = 0.0
    """Positive: clockwise in the picture."""


def express(shape: np.ndarray, expression: Expression) -> np.ndarray:
    """Apply an expression to a neutral head: (68, 3) -> (68, 3)."""
    points = shape + expression.smile * _SMILE + expression.pucker * _PUCKER + expression.brows * _RAISE
    lever = shape[66, 2] - HINGE_Z
    parted = np.clip((shape[66, 1] - shape[62, 1]) / lever, 0.0, JAW_OPEN)
    angle = (expression.jaw * JAW_OPEN - expression.press * parted) * _FOLLOWS_JAW[:, 0]
    y, z = points[:, 1] - HINGE_Y, points[:, 2] - HINGE_Z
    points[:, 1] = HINGE_Y + y * np.cos(angle) + z * np.sin(angle)
    points[:, 2] = HINGE_Z + z * np.cos(angle) - y * np.sin(angle)
    for pairs, amount in ((RIGHT_LIDS, expression.blink_right), (LEFT_LIDS, expression.blink_left)):
        for upper, lower in pairs:
            seam = points[upper] + LIDS_MEET * (points[lower] - points[upper])
            points[upper] += amount * (seam - points[upper])
            points[lower] += amount * (seam - points[lower])
    return points


def rotation(pose: Pose) -> np.ndarray:
    """(3, 3) matrix that turns head space into camera space: first yaw, then pitch, then roll."""
    (cy, cp, cr), (sy, sp, sr) = (f((pose.yaw, pose.pitch, pose.roll)) for f in (np.cos, np.sin))
    turn = np.array(((cy, 0, sy), (0, 1, 0), (-sy, 0, cy)))
    nod = np.array(((1, 0, 0), (0, cp, sp), (0, -sp, cp)))
    tilt = np.array(((cr, -sr, 0), (sr, cr, 0), (0, 0, 1)))
    return tilt @ nod @ turn


def project(shape: np.ndarray, pose: Pose) -> np.ndarray:
    """Orthographic picture of a head: (68, 3) -> (68, 2), unit of head space, x right, y down."""
    return (shape @ rotation(pose).T)[:, :2]


@dataclass(frozen=True)
class FittedHead:
    """One person's neutral head in space, and the pose it had in the keypoints it was fitted to."""

    shape: np.ndarray
    """(68, 3) in head space."""
    pose: Pose


# Points on bone say more about the pose than the jaw and the mouth, which move.
_FIT_WEIGHTS = np.repeat(1 - 0.6 * _FOLLOWS_JAW[:, 0], 2)
# Pulls towards an average frontal face: yaw, pitch, roll, log scale, log of width against height, shift.
_FIT_STIFFNESS = np.sqrt(np.array((0.05, 0.6, 0.01, 0.0, 1.0, 0.0, 0.0)))
_FIT_STEPS = 20
_SMALLEST_FACE = 1e-3


def fit_head(keypoints: np.ndarray) -> FittedHead:
    """Find the head that shows exactly these keypoints: template, stretched and posed, plus what remains.

    The pose and the stretch come from damped Gauss-Newton; the remaining difference is carried back into head space
    without depth, so the person's own proportions turn with the head.

    Args:
        keypoints: float (136,) or (68, 2), any scale, y down.

    Raises:
        BadInput: the points lie (almost) on one spot, so there is no face to fit.
    """
    target = np.asarray(keypoints, dtype=np.float64).reshape(68, 2)
    spread = np.ptp(target, axis=0)
    if spread.min() < _SMALLEST_FACE:
        raise BadInput(f"the neutral keypoints span {spread[0]:.2g} x {spread[1]:.2g}; give the 68 points of a face")

    def stretched(values: np.ndarray) -> np.ndarray:
        return TEMPLATE * (np.exp(values[4]), np.exp(-values[4]), 1.0)

    def picture(values: np.ndarray) -> np.ndarray:
        return np.exp(values[3]) * project(stretched(values), Pose(*values[:3])) + values[5:7]

    def errors(values: np.ndarray) -> np.ndarray:
        # Relative to the scale, so that a face in pixels is fitted like one in [-1, 1].
        residual = (target - picture(values)).ravel() * np.exp(-values[3]) * _FIT_WEIGHTS
        return np.concatenate((residual, _FIT_STIFFNESS * values))

    values = np.zeros(7)
    values[3] = np.log(spread[0] / np.ptp(TEMPLATE[:, 0]))
    values[5:7] = target.mean(axis=0) - np.exp(values[3]) * TEMPLATE[:, :2].mean(axis=0)
    step = 1e-5 * np.array((1, 1, 1, 1, 1, spread[0], spread[0]))
    for _ in range(_FIT_STEPS):
        now = errors(values)
        jacobian = np.stack([(errors(values + move) - now) / step[i] for i, move in enumerate(np.diag(step))], axis=1)
        change = np.linalg.lstsq(jacobian, -now, rcond=None)[0]
        values = values + change / max(1.0, np.abs(change[:3]).max() / 0.3)
    pose = Pose(*values[:3])
    remaining = (target - picture(values)) * np.exp(-values[3])
    return FittedHead(stretched(values) + np.pad(remaining, ((0, 0), (0, 1))) @ rotation(pose), pose)
