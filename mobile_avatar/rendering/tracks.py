"""Keypoints without a camera: the built-in demo track and the varied vectors that verification uses.

Both follow the crop rule of docs/preprocessing.md: the crop's centre is the middle of the 68-point box moved up by a
sixth of the box's larger side, and the crop's half side equals that larger side. In crop coordinates the larger side of
the box is therefore 1 and its middle is (0, 1/6).
"""

from collections.abc import Sequence

import numpy as np

from mobile_avatar.errors import BadInput
from mobile_avatar.keypoints.contract import check_keypoints
from mobile_avatar.rendering.head_points import TEMPLATE, Expression, FittedHead, Pose, express, fit_head, project

RISE = 1 / 6
# The crop of the demo track follows the head this smoothly (standard deviation), so that talking does not rescale it.
CROP_SMOOTHING_S = 0.35
TURN_S, SYLLABLE_S, BLINK_EVERY_S, BLINK_S = 6.0, 0.31, 2.4, 0.26

# name: (pose in degrees: yaw, pitch, roll; expression). The first twelve of `varied_keypoints`, in this order.
VARIED: dict[str, tuple[tuple[float, float, float], Expression]] = {
    "neutral": ((0, 0, 0), Expression()),
    "turned_right": ((28, 2, 2), Expression()),
    "turned_left": ((-28, 2, -2), Expression()),
    "mouth_open": ((0, 0, 0), Expression(jaw=1.0, brows=0.3)),
    "eyes_closed": ((3, 4, 0), Expression(blink_right=1.0, blink_left=1.0)),
    "up": ((-4, -14, 0), Expression(jaw=0.1)),
    "down": ((5, 15, 0), Expression(brows=-0.3)),
    "rolled": ((0, 0, 18), Expression(smile=0.3)),
    "smile": ((-8, 0, -6), Expression(smile=1.0, brows=0.4, blink_right=0.2, blink_left=0.2)),
    "talking": ((17, -5, -10), Expression(jaw=0.5, smile=-0.2)),
    "wink": ((-14, 6, 8), Expression(pucker=0.8, blink_left=1.0, brows=-0.5)),
    "surprise": ((10, -8, 5), Expression(jaw=0.8, brows=1.0)),
}
LARGEST_POSE = Pose(*np.radians((35.0, 18.0, 20.0)))


def demo_track(frames: int, fps: float, neutral: np.ndarray | None = None) -> np.ndarray:
    """A talking, turning, blinking head that starts and ends at rest, so that it can be looped.

    Args:
        frames: number of frames of one loop, at least 1.
        fps: frames per second; sets how fast the head moves.
        neutral: float (136,) keypoints of an avatar's source photo; the track then has this person's proportions and
            begins at these points. None: an average face.

    Returns:
        float32 (frames, 136) in [-1, 1] of the crop. The crop follows the head smoothly, as in a tracked video.

    Raises:
        BadInput: no frames, a frame rate that is not positive, or `neutral` is not one face.
    """
    if frames < 1 or not fps > 0:
        raise BadInput(f"a track needs at least one frame and a positive frame rate, not {frames} frames at {fps} fps")
    head, frame_of_head = _prepare(neutral)
    seconds = frames / fps
    turn, talk, blink = _turning(frames, seconds), _talking(frames, seconds), _blinking(frames, seconds)
    pictures = []
    for i in range(frames):
        yaw, pitch, roll, rest = turn[i]
        jaw, press, smile, pucker, brows = talk[i]
        pose = _limited(np.radians((yaw, pitch, roll)) + rest * _angles(head.pose), head.pose)
        expression = Expression(jaw, press, smile, pucker, brows, blink[i], blink[i])
        pictures.append(project(express(head.shape, expression), pose))
    return _to_crop(np.stack(pictures), frame_of_head, smoothing=CROP_SMOOTHING_S * fps)


def varied_keypoints(count: int, seed: int, neutral: np.ndarray | None = None) -> np.ndarray:
    """Varied single frames: the poses and expressions of `VARIED`, then random ones.

    Args:
        count: number of vectors; at least 8 cover every kind of movement.
        seed: of the small variation of the named poses (none for the first, which is neutral) and of the random ones.
        neutral: as for `demo_track`.

    Returns:
        float32 (count, 136), each cropped for itself; deterministic, and a prefix of any longer request.

    Raises:
        BadInput: `count` is less than 1, or `neutral` is not one face.
    """
    if count < 1:
        raise BadInput(f"at least one keypoint vector has to be asked for, not {count}")
    head, frame_of_head = _prepare(neutral)
    named = list(VARIED.values())
    pictures = []
    for i in range(count):
        random = np.random.default_rng((seed, i))
        if i < len(named):
            degrees, expression = named[i]
            angles = np.radians(degrees + (i > 0) * random.uniform(-2, 2, 3)) + (i == 0) * _angles(head.pose)
        else:
            angles = np.array(_angles(LARGEST_POSE)) * random.uniform(-0.9, 0.9, 3)
            expression = _random_expression(random)
        pictures.append(project(express(head.shape, expression), _limited(angles, head.pose)))
    return _to_crop(np.stack(pictures), frame_of_head, smoothing=0.0)


def turned_keypoints(yaws: Sequence[float], neutral: np.ndarray | None = None) -> np.ndarray:
    """A resting face that looks so far to the right of the picture, neither nodding nor rolled.

    Args:
        yaws: in radians, at least one; also beyond what avatars are trained on.
        neutral: as for `demo_track`.

    Returns:
        float32 (len(yaws), 136), each cropped for itself.

    Raises:
        BadInput: `neutral` is not one face.
    """
    head, frame_of_head = _prepare(neutral)
    pictures = [project(express(head.shape, Expression()), Pose(yaw=yaw)) for yaw in yaws]
    return _to_crop(np.stack(pictures), frame_of_head, smoothing=0.0)


def _prepare(neutral: np.ndarray | None) -> tuple[FittedHead, tuple[np.ndarray, float]]:
    """The head to move, and the box (middle, larger side) that its neutral picture has in the crop."""
    if neutral is None:
        return FittedHead(TEMPLATE, Pose()), (np.array((0.0, RISE)), 1.0)
    points = check_keypoints(neutral, "the neutral keypoints")
    if len(points) != 1:
        raise BadInput(f"the neutral keypoints hold {len(points)} frames; give one frame of 136 numbers")
    middle, side = _boxes(points.astype(np.float64).reshape(1, -1, 2))
    return fit_head(points[0]), (middle[0], side[0])


def _boxes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T, 68, 2) -> middle (T, 2) and larger side (T,) of each frame's box."""
    low, high = points.min(axis=1), points.max(axis=1)
    return (low + high) / 2, (high - low).max(axis=1)


def _to_crop(pictures: np.ndarray, frame_of_head: tuple[np.ndarray, float], smoothing: float) -> np.ndarray:
    """Bring pictures of a head into the crop, where the box lies as that of the neutral keypoints.

    Args:
        pictures: (T, 68, 2) in any unit.
        frame_of_head: middle and larger side of the box in the crop.
        smoothing: standard deviation in frames of the smoothing of the box over the (looped) track; 0 for none.
    """
    box = np.column_stack(_boxes(pictures))
    if smoothing:
        box = _smooth_loop(box, min(smoothing, len(pictures) / 8))
    points = (pictures - box[:, None, :2]) / box[:, None, 2:] * frame_of_head[1] + frame_of_head[0]
    return np.ascontiguousarray(points.reshape(len(points), -1), dtype=np.float32)


def _smooth_loop(values: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian smoothing along the first axis of a loop."""
    frequency = np.fft.rfftfreq(len(values))
    response = np.exp(-2 * (np.pi * frequency * deviation) ** 2)
    return np.fft.irfft(np.fft.rfft(values, axis=0) * response[:, None], n=len(values), axis=0)


def _angles(pose: Pose) -> np.ndarray:
    return np.array((pose.yaw, pose.pitch, pose.roll))


def _limited(angles: np.ndarray, source: Pose) -> Pose:
    """Keep a pose within what avatars are trained on, or as far as the source photo itself was turned."""
    limit = np.maximum(_angles(LARGEST_POSE), np.abs(_angles(source)))
    return Pose(*np.clip(angles, -limit, limit))


def _phase(frames: int, seconds: float, period: float) -> np.ndarray:
    """(T,) phase in turns of a movement that fits a whole number of times, at least once, into the loop."""
    return np.arange(frames) / frames * max(1, round(seconds / period))


def _wave(turns: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * turns)


def _swell(turns: np.ndarray, start: float, end: float) -> np.ndarray:
    """A smooth hill between two phases of each cycle: 0 -> 1 -> 0."""
    position = np.clip((turns % 1 - start) / (end - start), 0, 1)
    return np.sin(np.pi * position) ** 2


def _turning(frames: int, seconds: float) -> np.ndarray:
    """(T, 4): yaw, pitch, roll in degrees and how much of the source pose remains; at rest where the loop closes."""
    turns = _phase(frames, seconds, TURN_S)
    away = _swell(turns, 0, 1)
    yaw = 37 * away * _wave(turns)
    pitch = 9 * away * _wave(2 * turns + 0.2)
    roll = 7 * away * _wave(turns + 0.6)
    return np.column_stack((yaw, pitch, roll, 1 - 0.7 * away))


def _talking(frames: int, seconds: float) -> np.ndarray:
    """(T, 5): jaw, press, smile, pucker, brows."""
    turns = _phase(frames, seconds, TURN_S)
    syllables = _phase(frames, seconds, SYLLABLE_S)
    # Flat-topped phrases with a pause between them for a smile.
    phrase = np.minimum(1, 2.5 * (_swell(turns, 0.04, 0.5) + _swell(turns, 0.66, 0.96)))
    loudness = 0.55 + 0.3 * _wave(2 * turns) * _wave(5 * turns + 0.1)
    opening = (1 - np.cos(2 * np.pi * syllables)) / 2
    jaw = phrase * loudness * opening
    press = phrase * (1 - opening)
    pucker = 0.6 * phrase * np.maximum(0, _wave(3 * turns + 0.3)) ** 2
    smile = 0.7 * _swell(turns, 0.42, 0.78) - 0.15 * phrase
    brows = 0.8 * _swell(turns, 0.1, 0.3) + 0.6 * _swell(turns, 0.62, 0.8) - 0.3 * _swell(turns, 0.3, 0.5)
    return np.column_stack((jaw, press, smile, pucker, brows))


def _blinking(frames: int, seconds: float) -> np.ndarray:
    """(T,) 0 open .. 1 closed; every blink has a frame in which the eyes are shut."""
    blinks = max(1, round(seconds / BLINK_EVERY_S))
    half = max(BLINK_S / 2 * frames / seconds, 1.0)
    closed = np.zeros(frames)
    for i in range(blinks):
        # Irregular, and never where the loop closes.
        middle = round((i + 0.5 + 0.2 * np.sin(5.0 * i)) / blinks * frames)
        distance = np.abs(np.arange(frames) - middle) / half
        closed = np.maximum(closed, np.cos(np.pi / 2 * np.minimum(distance, 1)) ** 2)
    return closed


def _random_expression(random: np.random.Generator) -> Expression:
    jaw, smile, pucker, brows, blink = random.uniform(0, 1, 5)
    return Expression(
        jaw=max(0.0, 1.6 * jaw - 0.6),
        smile=1.2 * smile - 0.3,
        pucker=max(0.0, 2 * pucker - 1),
        brows=1.6 * brows - 0.6,
        blink_right=max(0.0, 2.5 * blink - 1.5),
        blink_left=max(0.0, 2.5 * blink - 1.5),
    )
