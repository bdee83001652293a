"""Properties of the demo track and of the varied vectors, for an average face and for given ones."""

import numpy as np
import pytest

from mobile_avatar.errors import BadInput
from mobile_avatar.rendering.head_points import TEMPLATE, Expression, Pose, express, fit_head, project
from mobile_avatar.rendering.tracks import VARIED, demo_track, varied_keypoints

FPS = 25


def cropped(points):
    """The crop rule, as docs/preprocessing.md words it, without whole-pixel rounding."""
    low, high = points.min(axis=0), points.max(axis=0)
    size = (high - low).max()
    centre = (low + high) / 2 - (0, size / 6)
    corner, side = centre - size, 2 * size
    return ((points - corner) / side * 2 - 1).astype(np.float32).ravel()


def someone(seed):
    """Keypoints of a made-up person: uneven face, some pose, lips a little parted."""
    random = np.random.default_rng(seed)
    shape = TEMPLATE * random.uniform(0.88, 1.12, 3) + random.normal(0, 0.03, (68, 3))
    pose = Pose(*np.radians(random.uniform(-1, 1, 3) * (20, 8, 12)))
    return cropped(project(express(shape, Expression(jaw=0.25, smile=0.4)), pose))


FACES = [None, someone(0), someone(1)]
faces = pytest.mark.parametrize("neutral", FACES, ids=["average", "person0", "person1"])


def eye_openness(track):
    """(T, 2): lid distance over eye width, right and left."""
    points = track.reshape(-1, 68, 2)
    rows = []
    for corner in (36, 42):
        eye = points[:, corner : corner + 6]
        lids = np.linalg.norm(eye[:, 1] - eye[:, 5], axis=1) + np.linalg.norm(eye[:, 2] - eye[:, 4], axis=1)
        rows.append(lids / 2 / np.linalg.norm(eye[:, 0] - eye[:, 3], axis=1))
    return np.stack(rows, axis=1)


def mouth_openness(track):
    """(T,) distance of the inner lips over mouth width."""
    points = track.reshape(-1, 68, 2)
    width = np.linalg.norm(points[:, 48] - points[:, 54], axis=1)
    return np.linalg.norm(points[:, 62] - points[:, 66], axis=1) / width


def nose_turn(track):
    """(T,) where the nose tip lies between the eyes' outer corners, 0 = in the middle, positive = picture right."""
    x = track.reshape(-1, 68, 2)[:, :, 0]
    return (x[:, 30] - (x[:, 36] + x[:, 45]) / 2) / (x[:, 45] - x[:, 36])


@faces
def test_track_loops_and_moves_smoothly(neutral):
    track = demo_track(150, FPS, neutral)
    assert track.shape == (150, 136)
    assert track.dtype == np.float32
    assert np.isfinite(track).all()
    assert np.abs(track).max() <= 1
    steps = np.abs(np.diff(np.concatenate((track, track[:1])), axis=0)).max(axis=1)
    # 0.15 is a blink's lid or a syllable's lip between two frames; the seam is at rest.
    assert steps.max() < 0.15
    assert steps[-1] < 0.01
    assert steps[0] < 0.01


@faces
def test_track_turns_talks_and_blinks(neutral):
    track = demo_track(150, FPS, neutral)
    turn = nose_turn(track)
    assert turn.max() - turn[0] > 0.12
    assert turn[0] - turn.min() > 0.12
    mouth = mouth_openness(track)
    assert mouth.max() > max(0.2, mouth[0] + 0.1)
    assert mouth.min() < 0.06  # lips that were parted in the photo meet while talking
    eyes = eye_openness(track)
    assert (eyes.min(axis=0) < 0.02).all()
    assert (np.median(eyes, axis=0) > 0.12).all()
    assert (eyes < 0.05).all(axis=1).mean() < 0.1  # blinks are short


@faces
def test_crop_follows_the_head(neutral):
    """The box stays where the crop rule puts it: larger side 1, middle (0, 1/6), up to the smoothing of the camera."""
    points = demo_track(150, FPS, neutral).reshape(-1, 68, 2)
    low, high = points.min(axis=1), points.max(axis=1)
    np.testing.assert_allclose((high - low).max(axis=1), 1, atol=0.13)
    np.testing.assert_allclose((low + high) / 2, np.broadcast_to((0, 1 / 6), (150, 2)), atol=0.06)


@pytest.mark.parametrize("neutral", FACES[1:], ids=["person0", "person1"])
def test_track_and_vectors_begin_with_the_given_person(neutral):
    np.testing.assert_allclose(varied_keypoints(1, 0, neutral)[0], neutral, atol=1e-5)
    np.testing.assert_allclose(demo_track(150, FPS, neutral)[0], neutral, atol=0.02)
    # Proportions stay: the frontal frames of two people differ as the people do.
    assert np.abs(varied_keypoints(5, 0, neutral)[4] - varied_keypoints(5, 0)[4]).max() > 0.02


def test_a_strongly_turned_photo_is_still_the_first_frame():
    turned = cropped(project(TEMPLATE, Pose(yaw=0.8, roll=-0.5)))
    np.testing.assert_allclose(varied_keypoints(1, 0, turned)[0], turned, atol=1e-5)
    track = demo_track(150, FPS, turned)
    np.testing.assert_allclose(track[0], turned, atol=0.02)
    assert np.abs(nose_turn(track)).min() < 0.1  # it comes back towards the camera


def test_a_face_outside_of_the_crop_rule_stays_where_it_is():
    """Another crop (smaller face, off the middle) is kept, so that the driven avatar does not jump."""
    moved = FACES[1] * 0.8 + np.tile(np.float32([0.1, -0.05]), 68)
    np.testing.assert_allclose(varied_keypoints(1, 0, moved)[0], moved, atol=1e-5)
    inside = varied_keypoints(6, 0, FACES[1]) * 0.8 + np.tile(np.float32([0.1, -0.05]), 68)
    np.testing.assert_allclose(varied_keypoints(6, 0, moved), inside, atol=1e-4)


@pytest.mark.parametrize(("frames", "fps"), [(1, 25), (2, 30), (8, 12.5), (50, 60), (301, 29.97)])
def test_any_length_and_rate_is_a_track(frames, fps):
    track = demo_track(frames, fps)
    assert track.shape == (frames, 136)
    assert np.isfinite(track).all()
    assert np.abs(track).max() <= 1
    if frames > 2:
        assert eye_openness(track).min() < 0.02


def test_speed_does_not_depend_on_the_frame_rate():
    slow, fast = demo_track(100, 20), demo_track(200, 40)
    np.testing.assert_allclose(nose_turn(fast)[::2], nose_turn(slow), atol=0.02)
    np.testing.assert_allclose(mouth_openness(fast)[::2], mouth_openness(slow), atol=0.05)


@faces
def test_varied_vectors_differ_and_follow_the_crop_rule(neutral):
    vectors = varied_keypoints(24, 0, neutral)
    assert vectors.shape == (24, 136)
    assert vectors.dtype == np.float32
    assert np.abs(vectors).max() <= 1
    apart = np.abs(vectors[:, None] - vectors[None]).max(axis=2) + np.eye(24)
    assert apart.min() > 0.03
    for vector in vectors:
        np.testing.assert_allclose(cropped(vector.reshape(68, 2).astype(np.float64)), vector, atol=1e-5)


@faces
def test_varied_vectors_are_what_their_names_say(neutral):
    vectors = varied_keypoints(len(VARIED), 0, neutral)
    row = {name: vectors[number : number + 1] for number, name in enumerate(VARIED)}
    assert nose_turn(row["turned_right"]) > 0.1
    assert nose_turn(row["turned_left"]) < -0.1
    assert mouth_openness(row["mouth_open"]) > mouth_openness(row["neutral"]) + 0.25
    assert eye_openness(row["eyes_closed"]).max() < 0.02
    right, left = eye_openness(row["wink"])[0]
    assert left < 0.02 < 0.1 < right
    eyes = row["rolled"].reshape(68, 2)[[36, 45]]
    assert np.degrees(np.arctan2(*(eyes[1] - eyes[0])[::-1])) > 10

    def nose_height(name):
        y = row[name].reshape(68, 2)[:, 1]
        return (y[30] - y[[36, 45]].mean()) / np.ptp(y)

    assert nose_height("up") < nose_height("eyes_closed") < nose_height("down")


def test_varied_vectors_are_deterministic_and_prefixes():
    first = varied_keypoints(20, 7)
    np.testing.assert_array_equal(first, varied_keypoints(20, 7))
    np.testing.assert_array_equal(first[:8], varied_keypoints(8, 7))
    assert np.abs(first[1:] - varied_keypoints(20, 8)[1:]).max(axis=1).min() > 1e-3


def test_fit_finds_the_pose():
    random = np.random.default_rng(3)
    errors = []
    for _ in range(60):
        pose = Pose(*np.radians(random.uniform(-1, 1, 3) * (30, 12, 20)))
        shape = TEMPLATE * random.uniform(0.9, 1.1, 3) + random.normal(0, 0.03, (68, 3))
        shape = express(shape, Expression(jaw=random.uniform(0, 0.6), smile=random.uniform(0, 0.7)))
        found = fit_head(project(shape, pose) * random.uniform(0.1, 300)).pose
        errors.append([found.yaw - pose.yaw, found.pitch - pose.pitch, found.roll - pose.roll])
    assert (np.degrees(np.sqrt(np.mean(np.square(errors), axis=0))) < (4, 3, 2)).all()


def test_template_is_symmetric_and_blinks_close_both_lids():
    mirror = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
    mirror += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1)]
    mirror += [64, 63, 62, 61, 60, 67, 66, 65]
    for expression in (Expression(), Expression(0.7, 0.2, 0.5, 0.3, 0.4, 0.6, 0.6)):
        points = express(TEMPLATE, expression)
        np.testing.assert_allclose(points[mirror] * (-1, 1, 1), points, atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: demo_track(0, 25),
        lambda: demo_track(10, 0),
        lambda: demo_track(10, float("nan")),
        lambda: varied_keypoints(0, 0),
        lambda: varied_keypoints(8, 0, np.zeros(136, np.float32)),
        lambda: varied_keypoints(8, 0, np.full(136, np.nan, np.float32)),
        lambda: varied_keypoints(8, 0, np.zeros(135, np.float32)),
        lambda: demo_track(8, 25, varied_keypoints(2, 0)),
    ],
)
def test_bad_requests_are_refused(make):
    with pytest.raises(BadInput):
        make()
