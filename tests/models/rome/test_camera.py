"""Camera, crop and alignment: by construction, and the official numbers."""

import pytest
import torch

from mobile_avatar.models.rome.alignment import align, alignment, alignment_grid, inverse, widened
from mobile_avatar.models.rome.camera import DEPTH, crop, crop_box, crop_grid, project, turn, uncrop_camera
from mobile_avatar.models.rome.parametric import ParametricHead, rotation_matrices

from .heads import golden_arrays, golden_head

CORNERS = ([0, 0, -1, -1], [0, -1, 0, -1])


def near(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def face(centre=(32.0, 30.0), unit=4.0) -> torch.Tensor:
    """68 points whose eyes are 4 units apart and whose mouth lies 3 units below them."""
    points = torch.zeros(68, 2)
    points[36:42], points[42:48] = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 0.0])
    points[48], points[54] = torch.tensor([-1.0, 3.0]), torch.tensor([1.0, 3.0])
    return points * unit + torch.tensor(centre)


def test_projection_and_turn():
    points = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]])
    camera = torch.tensor([[2.0, 0.1, -0.2]])
    near(project(points, camera), torch.tensor([[[2.2, -3.6, -6.0], [0.2, 0.4, 0.0]]]), 1e-6)
    near(project(points, camera, DEPTH)[..., 2], torch.tensor([[4.0, 10.0]]), 1e-6)
    root = torch.tensor([[0.0, 2.0, 0.0]])
    quarter = rotation_matrices(torch.tensor([[0.0, torch.pi / 2, 0.0]]))
    turned = turn(torch.cat((points, root[:, None]), 1), quarter, root)
    near(turned, torch.tensor([[[3.0, 2.0, -1.0], [0.0, 0.0, 0.0], [0.0, 2.0, 0.0]]]), 1e-6)


def test_a_point_lands_on_the_same_spot_of_crop_and_picture():
    """The un-cropped camera sees in the picture what the crop's camera sees in the crop."""
    g = torch.Generator().manual_seed(0)
    box = crop_box(torch.rand(4, 68, 2, generator=g) * 1.2 - 0.5)
    camera = torch.tensor([[7.0, 0.02, -0.01], [9.0, 0.0, 0.03], [6.0, -0.1, 0.0], [8.0, 0.05, 0.05]])
    points = torch.randn(4, 10, 3, generator=g) * 0.1
    in_crop = project(points, camera)[..., :2]
    in_picture = 2 * (box[:, None, :2] + box[:, None, 2:] * (in_crop + 1) / 2) - 1
    near(project(points, uncrop_camera(camera, box))[..., :2], in_picture, 2e-6)


def test_crop_cuts_what_its_box_says():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    image = torch.stack((x, y))[None]
    cut = crop(image, torch.tensor([[0.25, 0.5, 0.25]]), 9)
    near(cut[0, 0, 0], torch.linspace(16, 32, 9) - 0.5, 1e-4)
    near(cut[0, 1, :, 0], torch.linspace(32, 48, 9) - 0.5, 1e-4)
    assert (crop(image, torch.tensor([[1.5, 1.5, 0.2]]), 8) == 0).all()


def test_alignment_of_an_upright_face():
    theta = alignment(face()[None], 64)[0]
    # Eyes 16 px apart: 2 x 16 = 32 px half side beats 1.8 x 12; centre a tenth of the way to the mouth.
    near(theta, torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, (30 + 1.2) / 32 - 1]]), 1e-6)
    near(widened(theta[None])[0], theta * torch.tensor([1.25, 1.25, 1.0]), 1e-7)


def test_alignment_follows_the_face():
    """A turned and moved face gives the turned and moved square; sizes are per photo."""
    angle = torch.tensor(0.4)
    rotation = torch.stack((torch.stack((angle.cos(), -angle.sin())), torch.stack((angle.sin(), angle.cos()))))
    plain = face((0.0, 0.0))
    moved = plain @ rotation.T * 1.5 + torch.tensor([100.0, 60.0])
    both = alignment(torch.stack((plain, moved)), torch.tensor([64, 256]))
    expected = rotation @ both[0, :, :2] * 1.5 * 64 / 256
    near(both[1, :, :2], expected, 1e-6)
    square = torch.cat((both, torch.tensor([[[0.0, 0.0, 1.0]]]).expand(2, -1, -1)), 1)
    back = torch.cat((inverse(both), torch.tensor([[[0.0, 0.0, 1.0]]]).expand(2, -1, -1)), 1)
    near(square @ back, torch.eye(3).expand(2, 3, 3), 1e-5)


def test_alignment_moves_pixels():
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    same = torch.tensor([[[31 / 32, 0.0, 0.0], [0.0, 31 / 32, 0.0]]]).expand(2, -1, -1)
    near(align(image, same, 32), image, 1e-5)


@pytest.mark.parametrize("rotated", [True, False])
def test_official_projection(shared, rotated):
    model, case = ParametricHead(golden_head(shared)), golden_arrays(shared, "06_camera")
    rotations = rotation_matrices(case["pose"].view(4, 2, 3))
    near(rotations, case["rot_mats"], 1e-6)
    whole = rotations[:, 0] if rotated else torch.eye(3).expand(4, 3, 3)
    vertices = turn(case["vertices"], whole, case["root_joint"])
    if rotated:
        near(vertices, case["vertices_rotated"], 1e-6)
    word = "" if rotated else "noroot_"
    near(project(vertices, case["cam"]), case[f"{word}vertices_proj"], 5e-6)
    landmarks = project(model.landmarks(vertices, whole), case["cam"])[..., :2]
    near(landmarks, case[f"{word}landmarks_proj"], 5e-6)


def test_official_crop(shared):
    case = {k.removeprefix("uncrop/"): v for k, v in golden_arrays(shared, "06_camera").items() if "uncrop/" in k}
    box = crop_box(case["keypoints"])
    ltrb = torch.cat((box[:, :2], box[:, :2] + box[:, 2:]), 1)
    near(ltrb, case["box_ltrb"], 1e-6)
    near(uncrop_camera(case["cam_in"], box), case["cam_out"], 1e-5)
    near(rotation_matrices(case["pose_in"].view(6, 2, 3)), case["rot_mats"], 1e-6)
    near(crop_grid(box)[:, CORNERS[0], CORNERS[1]], case["warp_corners"], 2e-6)
    near(crop(case["image"], box)[:, :, ::8, ::8], case["crop_every_8th"], 1e-4)


def test_official_alignment(shared):
    case = golden_arrays(shared, "09_ffhq")
    theta = alignment(case["keypoints"], case["image_size"])
    near(theta, case["theta"], 5e-5)
    near(theta.double(), case["theta_closed_form"], 1e-6)
    near(inverse(theta), case["inv_theta"], 5e-5)
    near(widened(theta), case["theta_scaled"], 5e-5)
    last = widened(theta[4:])
    near(alignment_grid(last, 64)[0, CORNERS[0], CORNERS[1]], case["warp_corners"], 5e-5)
    near(align(case["image"][None], last, 64)[0], case["image_aligned"], 1e-4)
    near(align(case["image"][None, :1], last, 64)[0], case["mask_aligned"], 1e-4)
    near(case["keypoints"][4] / 32 - 1, case["keypoints_returned"], 1e-6)


def test_official_linear_path(shared):
    """Camera and mesh of the official inference call, both kinds of camera."""
    model, case = ParametricHead(golden_head(shared)), golden_arrays(shared, "11_linear_path")
    box = crop_box(case["keypoints"])
    online = case["online_output"]
    modes = {
        "linear": (case["exp"], case["pose"], uncrop_camera(case["cam_crop"], box)),
        "linear_mobile": (online[:, :10], online[:, 10:16], online[:, 16:]),
    }
    for mode, (expression, pose, camera) in modes.items():
        near(camera, case[f"{mode}/cam"], 1e-5)
        posed = model(case["shape"], expression, pose)
        near(posed.vertices, case[f"{mode}/vertices_posed"], 1e-6)
        near(posed.root, case[f"{mode}/root_joint"], 1e-6)
        turned = turn(posed.vertices + case[f"{mode}/offsets"], posed.rotation, posed.root)
        near(turned, case[f"{mode}/vertices_rotated"], 1e-5)
        near(project(turned, camera), case[f"{mode}/vertices_proj"], 1e-5)
        landmarks = project(model.landmarks(turned, posed.rotation), camera)[..., :2]
        near(landmarks, case[f"{mode}/landmarks_proj"], 1e-5)
