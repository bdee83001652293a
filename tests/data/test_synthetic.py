"""Synthetic heads: determinism, contracts of the batch, and agreement of keypoints, mask and picture."""

from dataclasses import replace
from math import radians

import pytest
import torch

from mobile_avatar.data.synthetic import SyntheticHeads, render_heads
from mobile_avatar.data.synthetic.expression import EXPRESSION_INDEX, draw_frames, neutral_frames
from mobile_avatar.data.synthetic.identity import draw_identities
from mobile_avatar.data.synthetic.raster import grid_triangles, rasterize
from mobile_avatar.errors import BadInput

SIZE = 96


@pytest.fixture(autouse=True, scope="module")
def _one_thread(_threads):
    """Thousands of small operations: on a busy machine a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def batch():
    return SyntheticHeads(SIZE).sample([3, 11, 20, 41], 4)


def points_of(batch):
    return batch.keypoints.reshape(-1, 68, 2)


def pick(image, points):
    """Nearest pixels (c, k) of an image (c, S, S) at window coordinates (k, 2)."""
    index = ((points + 1) / 2 * image.shape[-1]).long().clamp(0, image.shape[-1] - 1)
    return image[:, index[:, 1], index[:, 0]]


def draw(seed=14, size=SIZE, **changes):
    """One frontal, expressionless frame of a person with some frame parameters replaced."""
    person = draw_identities([seed], 0)
    return render_heads(person, replace(neutral_frames(1), **changes), size)


def test_shapes_types_and_ranges(batch):
    assert batch.images.shape == (4, 4, 3, SIZE, SIZE)
    assert batch.masks.shape == (4, 4, 1, SIZE, SIZE)
    assert batch.keypoints.shape == (4, 4, 136)
    for tensor, low in ((batch.images, -1), (batch.masks, 0), (batch.keypoints, -1)):
        assert tensor.dtype == torch.float32
        assert tensor.isfinite().all()
        assert tensor.min() >= low
        assert tensor.max() <= 1


def test_a_frame_does_not_depend_on_its_batch(batch):
    heads = SyntheticHeads(SIZE)
    alone, reordered = heads.sample([20], 2), heads.sample([41, 20, 3], 3)
    for name in ("images", "masks", "keypoints"):
        expected = getattr(batch, name)[2, :2]
        assert torch.equal(getattr(alone, name)[0], expected)
        assert torch.equal(getattr(reordered, name)[1, :2], expected)


def test_many_frames_at_once_equal_frames_one_by_one():
    # The CPU draws frame by frame, accelerators many at a time: both must give the same pictures.
    people, frames = draw_identities([3, 20, 41], 0), neutral_frames(3)
    frames = replace(frames, pose=torch.tensor([[0.0, 0.0, 0.0], [0.4, 0.1, 0.0], [-0.3, -0.2, 0.1]]))
    together = render_heads(people, frames, 64)
    for i in range(3):
        row = torch.tensor([i])
        alone = render_heads(people.take(row), frames.take(row), 64)
        torch.testing.assert_close(alone.keypoints[0], together.keypoints[i], atol=1e-6, rtol=0)
        difference = (alone.images[0] - together.images[i]).abs()
        assert difference.mean() < 1e-5
        assert (difference > 1e-3).float().mean() < 1e-3  # a pixel centre on a triangle's edge may fall to either side


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_draws_the_same_people():
    cpu, cuda = (SyntheticHeads(64).sample([3, 20], 3, device=d) for d in ("cpu", "cuda"))
    torch.testing.assert_close(cuda.keypoints.cpu(), cpu.keypoints, atol=1e-4, rtol=0)
    assert (cuda.images.cpu() - cpu.images).abs().mean() < 0.01
    again = SyntheticHeads(64).sample([20], 2, device="cuda")
    assert torch.equal(again.images[0], cuda.images[1, :2])


def test_frames_differ_and_frame_seed_changes_only_the_frames():
    a, b = (SyntheticHeads(32).sample([5], 3, frame_seed=s) for s in (0, 1))
    assert not torch.equal(a.keypoints[0, 0], a.keypoints[0, 1])
    assert not torch.equal(a.keypoints, b.keypoints)
    assert torch.equal(draw_frames(5, 2, 1, 0).pose, draw_frames(5, 4, 1, 0).pose[:2])


def test_splits_share_nobody():
    seeds = list(range(64))
    train, test = draw_identities(seeds, 0).shape, draw_identities(seeds, 1).shape
    assert torch.cdist(train, test).min() > 0.5
    train_distances = torch.cdist(train, train) + 1e3 * torch.eye(64)
    assert train_distances.min() > 0.5


def test_the_mask_is_soft_and_covers_a_person(batch):
    area = batch.masks.mean(dim=(2, 3, 4))
    assert area.min() > 0.25
    assert area.max() < 0.85
    partial = ((batch.masks > 0.01) & (batch.masks < 0.99)).float().mean(dim=(2, 3, 4))
    assert (partial > 0.002).all()


def test_interior_keypoints_lie_on_the_person(batch):
    # In a strongly turned face the bridge of the nose lies on the outline: allow for one pixel of rounding.
    reach = torch.nn.functional.max_pool2d(batch.masks.flatten(0, 1), 3, stride=1, padding=1)
    for mask, points in zip(reach, points_of(batch), strict=True):
        assert (pick(mask, points[27:68]) > 0.9).all()


def test_crop_follows_the_rule_of_the_avatar_models(batch):
    points = points_of(batch)
    low, high = points.amin(dim=1), points.amax(dim=1)
    size = (high - low).amax(dim=1)
    assert ((size - 1).abs() < 0.07).all()  # half the window, up to 6 % of jitter
    centre = (low + high) / 2
    assert (centre[:, 0].abs() < 0.035).all()
    assert ((centre[:, 1] - size / 6).abs() < 0.035).all()
    exact = points_of(draw())[0]
    low, high = exact.amin(dim=0), exact.amax(dim=0)
    torch.testing.assert_close((low + high) / 2, torch.tensor([0.0, 1 / 6]), atol=1e-5, rtol=0)
    assert (high - low).max() == pytest.approx(1, abs=1e-5)


def test_keypoints_have_the_order_of_ibug():
    p = points_of(draw())[0]
    assert (p[:17, 0].diff() > 0).sum() >= 14  # the jaw runs from the left of the picture to the right
    assert p[:, 1].argmax() == 8  # the chin
    assert (p[17:27, 0].diff() > 0).all()
    assert (p[27:31, 1].diff() > 0).all()
    assert (p[31:36, 0].diff() > 0).all()
    assert p[36, 0] < p[39, 0] < p[42, 0] < p[45, 0]
    assert (p[[37, 38, 43, 44], 1] < p[[41, 40, 47, 46], 1]).all()
    assert p[48, 0] < p[60, 0] < p[64, 0] < p[54, 0]
    assert p[51, 1] < p[62, 1] <= p[66, 1] + 1e-3 < p[57, 1]
    assert p[17:27, 1].max() < p[36:48, 1].min() < p[33, 1] < p[51, 1]


def test_a_blink_closes_the_lids_of_its_eye():
    def openings(blink):
        p = points_of(draw(blink=torch.tensor([blink])))[0]
        return float((p[41] - p[37]).norm()), float((p[47] - p[43]).norm())

    rest, closed, wink = openings([0.0, 0.0]), openings([1.0, 1.0]), openings([1.0, 0.0])
    assert min(rest) > 0.03
    assert max(closed) < 0.2 * min(rest)
    assert wink[0] < 0.2 * rest[0]
    assert wink[1] == pytest.approx(rest[1], rel=1e-3)


def test_an_open_jaw_shows_a_dark_mouth_between_the_inner_lips():
    shut, wide = draw(jaw=torch.zeros(1), size=128), draw(jaw=torch.ones(1), size=128)
    gap = [float(p[66, 1] - p[62, 1]) for p in (points_of(shut)[0], points_of(wide)[0])]
    assert gap[0] < 0.02
    assert gap[1] > 0.1
    p = points_of(wide)[0]
    cavity = pick(wide.images[0], (0.35 * p[62] + 0.65 * p[66])[None]).mean()
    skin = pick(wide.images[0], (p[[2, 14]] + p[[31, 35]]) / 2).mean()  # the cheeks
    assert cavity < skin - 0.1
    below_nose = [float((q[8, 1] - q[33, 1]) / (q[33, 1] - q[27, 1])) for q in (points_of(shut)[0], p)]
    assert below_nose[1] > 1.15 * below_nose[0]


@pytest.mark.parametrize("degrees", [-40.0, 40.0])
def test_yaw_moves_the_nose_against_the_jaw(degrees):
    p = points_of(draw(pose=torch.tensor([[radians(degrees), 0.0, 0.0]])))[0]
    offset = p[30, 0] - (p[0, 0] + p[16, 0]) / 2
    assert abs(float(points_of(draw())[0][30, 0])) < 0.02
    assert offset * degrees > 0
    assert abs(float(offset)) > 0.15


def test_roll_and_pitch_have_the_documented_sign():
    p = points_of(draw(pose=torch.tensor([[0.0, 0.0, radians(15)]])))[0]
    eyes = p[45] - p[36]
    assert float(torch.atan2(eyes[1], eyes[0])) == pytest.approx(radians(15), abs=0.03)
    down, level = points_of(draw(pose=torch.tensor([[0.0, radians(15), 0.0]])))[0], points_of(draw())[0]
    assert (down[30, 1] - down[27, 1]) > (level[30, 1] - level[27, 1])


def test_smiling_lifts_and_widens_the_corners():
    amplitudes = torch.zeros(1, len(EXPRESSION_INDEX))
    amplitudes[0, [EXPRESSION_INDEX["smile_left"], EXPRESSION_INDEX["smile_right"]]] = 1.0
    smile, rest = points_of(draw(amplitudes=amplitudes))[0], points_of(draw())[0]
    assert smile[54, 0] - smile[48, 0] > 1.08 * (rest[54, 0] - rest[48, 0])
    assert (smile[[48, 54], 1] - smile[27, 1] < rest[[48, 54], 1] - rest[27, 1] - 0.02).all()


@pytest.mark.parametrize("seed", range(4))
def test_features_are_drawn_where_the_keypoints_are(seed):
    """Painting a person's lips, brows or irises in a strange colour changes the picture there and nowhere else."""
    person = replace(draw_identities([seed], 0), beard=torch.zeros(1, 3))
    person = replace(person, style=torch.zeros_like(person.style))  # bald: nothing hides the brows
    frame = neutral_frames(1)
    plain = render_heads(person, frame, 128)
    p = points_of(plain)[0]
    middles = {
        "lip": ((p[49:54] + p[[61, 61, 62, 63, 63]]) / 2, p[[8, 30, 27]]),
        "brow": (p[18:26] + torch.tensor([0.0, 0.012]), p[[8, 30, 51]]),
        "iris": (torch.stack((p[36:42].mean(0), p[42:48].mean(0))), p[[8, 30, 51]]),
    }
    for name, (there, elsewhere) in middles.items():
        strange = replace(person, **{name: 1 - getattr(person, name).round()})
        changed = (render_heads(strange, frame, 128).images - plain.images)[0].abs()
        reach = torch.nn.functional.max_pool2d(changed, 5, stride=1, padding=2)
        assert (pick(reach, there).amax(dim=0) > 0.1).all(), name
        assert (pick(changed, elsewhere) < 0.02).all(), name


def test_lips_differ_from_the_skin_around_them():
    differences = []
    for seed in range(6):
        person = replace(draw_identities([seed], 0), beard=torch.zeros(1, 3))
        drawn = render_heads(person, neutral_frames(1), 128)
        p = points_of(drawn)[0]
        lip = pick(drawn.images[0], (p[55:60] + p[[65, 65, 66, 67, 67]]) / 2)
        below = pick(drawn.images[0], p[55:60] + torch.tensor([0.0, 0.07]))
        differences.append(float((lip - below).abs().mean()))
    assert min(differences) > 0.05


def test_light_and_background_stay_with_the_person(batch):
    corner = batch.images[:, :, :, :6, :6].mean(dim=(3, 4))
    assert (corner - corner[:, :1]).abs().max() < 0.08
    assert corner[:, 0].std(dim=0).max() > 0.1  # other people, other backgrounds


def test_rasterizer_agrees_with_brute_force():
    generator = torch.Generator().manual_seed(0)
    size, n, rows, columns = 24, 2, 5, 6
    points = torch.rand(n, rows * columns, 2, generator=generator) * 30 - 3
    depth = torch.rand(n, rows * columns, generator=generator)
    triangles = grid_triangles(rows, columns, "cpu")
    culled = torch.arange(len(triangles)) % 2 == 0
    pixel, corner, weight = rasterize(points, depth, triangles, culled, size)
    seen = torch.zeros(n * size * size)
    seen[pixel] = (depth.reshape(-1)[corner] * weight).sum(-1)

    centres = torch.arange(size) + 0.5
    expected = torch.zeros(n, size, size)
    for i in range(n):
        for number, t in enumerate(triangles):
            (ax, ay), (bx, by), (cx, cy) = points[i, t]
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if area < 0 and culled[number]:
                continue
            x, y = centres[None, :], centres[:, None]
            w0 = ((cx - bx) * (y - by) - (cy - by) * (x - bx)) / area
            w1 = ((ax - cx) * (y - cy) - (ay - cy) * (x - cx)) / area
            w2 = 1 - w0 - w1
            z = w0 * depth[i, t[0]] + w1 * depth[i, t[1]] + w2 * depth[i, t[2]]
            hit = torch.minimum(torch.minimum(w0, w1), w2) >= 0
            expected[i] = torch.where(hit, torch.maximum(expected[i], z), expected[i])
    assert (expected > 0).sum() > 300
    torch.testing.assert_close(seen, expected.reshape(-1), atol=1e-4, rtol=0)


def test_bad_requests_are_refused():
    with pytest.raises(BadInput, match="split"):
        SyntheticHeads(64, split="validation")
    with pytest.raises(BadInput, match="px"):
        SyntheticHeads(4)
    with pytest.raises(BadInput, match="at least one"):
        SyntheticHeads(64).sample([], 1)
    with pytest.raises(BadInput, match="at least one"):
        SyntheticHeads(64).sample([1], 0)


def test_a_texel_is_one_spot_of_the_person():
    """The nose's tip, a mouth corner and an eye corner lie at the same place of the texture in every frame."""
    batch = SyntheticHeads(64, "test").sample([2, 3], 6)
    on_person = ~batch.texture_uv[:, :, 0].isnan()
    assert (on_person == ~batch.texture_uv[:, :, 1].isnan()).all()
    assert (batch.masks[:, :, 0][on_person] > 0).all()
    assert (batch.masks[:, :, 0] > 0.9)[~on_person].float().mean() < 0.01
    points = batch.keypoints.view(2, 6, 68, 2)[:, :, [30, 48, 39]]
    pixels = ((points + 1) * 32).long().clamp(0, 63)
    for person in range(2):
        spots = torch.stack([batch.texture_uv[person, f, :, y, x] for f in range(6) for x, y in pixels[person, f]])
        spots = spots.view(6, 3, 2)
        assert not spots.isnan().any()
        spread = (spots - spots.median(0).values).abs().median(0).values
        assert (spread < 0.06).all(), spread
        assert (spots.median(0).values - spots.median(0).values.flip(0)).abs().max() > 0.1
