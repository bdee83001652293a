"""Metrics against other people's code and against hand-computed values; every unusable file is one sentence."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from mobile_avatar.errors import BadInput
from mobile_avatar.images import to_uint8
from mobile_avatar.models.bilayer.inference_generator import masked
from mobile_avatar.training.evaluation_metrics import Wanted, open_metrics
from mobile_avatar.training.face_similarity import STANDARD, FaceSimilarity, aligned_face, five_points, similarity
from mobile_avatar.training.landmark_error import LandmarkError, normalised_error
from mobile_avatar.training.lpips import LIN, STAGES, VGG, Lpips
from mobile_avatar.training.metrics import Driven, mask_iou, pixel_metrics, score_frames, ssim_map
from tests.training.evaluation_cases import FACE, lpips_weights, write_recognition, write_states


@pytest.fixture
def pictures():
    """Smooth random photos and masks, (3, ., 40, 40)."""
    random = torch.Generator().manual_seed(0)
    photos = F.interpolate(torch.rand(3, 3, 10, 10, generator=random), 40, mode="bicubic").clamp(0, 1) * 2 - 1
    masks = F.interpolate(torch.rand(3, 1, 5, 5, generator=random), 40, mode="bilinear")
    return photos, masks


def test_the_photo_itself_is_perfect_whatever_lies_behind_it(pictures):
    photos, masks = pictures
    scores = score_frames(masked(photos, masks), photos, masks)
    for name in ("psnr_masked", "psnr_raw"):
        assert (scores[name] > 120).all()
    for name in ("ssim_masked", "ssim_raw"):
        torch.testing.assert_close(scores[name], torch.ones(3, dtype=torch.float64), atol=1e-6, rtol=0)
    # With a binary mask, what the photo shows beside the person is not compared at all.
    hard = (masks > 0.5).float()
    other = torch.where(hard > 0, photos, torch.rand_like(photos))
    torch.testing.assert_close(score_frames(photos, photos, hard), score_frames(photos, other, hard))


def test_a_known_error_has_a_known_psnr(pictures):
    photos, masks = pictures
    photos, hard = photos * 0.5, (masks > 0.5).float()
    share = hard.mean((1, 2, 3))
    inside = score_frames(masked(photos, hard) + 0.2 * hard, photos, hard)
    torch.testing.assert_close(inside["psnr_masked"], torch.full((3,), 20.0), atol=1e-3, rtol=0)  # (0.2 / 2) ** 2
    torch.testing.assert_close(inside["psnr_raw"], 20 - 10 * torch.log10(share), atol=1e-3, rtol=0)
    outside = score_frames(masked(photos, hard) + 0.2 * (1 - hard), photos, hard)
    assert (outside["psnr_masked"] > 120).all(), "an error outside of the mask counts in raw alone"
    torch.testing.assert_close(outside["psnr_raw"], 20 - 10 * torch.log10(1 - share), atol=1e-3, rtol=0)
    noise = 0.02 * torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    noisy = score_frames(photos + noise, photos, torch.ones_like(masks))["psnr_raw"]
    torch.testing.assert_close(noisy, torch.full((3,), 10 * math.log10(4 / 0.02**2)), atol=0.3, rtol=0)


def test_ssim_is_that_of_scikit_image(pictures):
    metrics = pytest.importorskip("skimage.metrics")
    photos, masks = pictures
    images = (photos + 0.3 * torch.randn(photos.shape, generator=torch.Generator().manual_seed(2))).clamp(-1, 1)
    ours, scores = ssim_map(images, masked(photos, masks)), score_frames(images, photos, masks)
    for i in range(3):
        mean, full = metrics.structural_similarity(
            images[i].double().numpy(),
            masked(photos, masks)[i].double().numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=2,
            channel_axis=0,
            full=True,
        )
        inner = full.mean(0)[5:-5, 5:-5]
        weights = masks[i, 0, 5:-5, 5:-5].double().numpy()
        assert scores["ssim_raw"][i].item() == pytest.approx(mean, abs=1e-6)
        assert scores["ssim_masked"][i].item() == pytest.approx((inner * weights).sum() / weights.sum(), abs=1e-6)
        np.testing.assert_allclose(ours[i, 0].numpy(), inner, atol=1e-6)


def test_frames_are_scored_one_by_one(pictures):
    photos, masks = pictures
    images = photos.flip(-1)
    together = pixel_metrics(Driven(images, masks.flip(-1), photos, masks, torch.zeros(3, 136)))
    for i in range(3):
        part = slice(i, i + 1)
        alone = pixel_metrics(
            Driven(images[part], masks[part].flip(-1), photos[part], masks[part], torch.zeros(1, 136))
        )
        for name, values in alone.items():
            torch.testing.assert_close(together[name][part], values)


def test_mask_iou():
    left = torch.zeros(1, 1, 4, 4)
    left[..., :2] = 1
    assert mask_iou(left, left).item() == 1
    assert mask_iou(left, 1 - left).item() == 0
    assert mask_iou(left, torch.ones_like(left)).item() == 0.5
    assert mask_iou(left * 0, left * 0).item() == 0


def test_the_outline_counts_only_in_what_is_shown(pictures):
    photos, masks = pictures
    perfect = pixel_metrics(Driven(photos, masks, photos, masks, torch.zeros(3, 136)))
    assert all((perfect[name] > 100).all() for name in ("psnr_masked", "psnr_shown", "psnr_raw"))
    cut = pixel_metrics(Driven(photos, masks * 0.5, photos, masks, torch.zeros(3, 136)))
    assert torch.equal(cut["psnr_masked"], perfect["psnr_masked"])
    assert torch.equal(cut["ssim_masked"], perfect["ssim_masked"])
    assert (cut["psnr_shown"] < 30).all()
    assert (cut["psnr_raw"] < 40).all()
    assert (cut["mask_iou"] < 0.6).all()


def test_lpips_is_the_published_formula(tmp_path, pictures):
    """Computed again with torch.nn, layer by layer, in float64."""
    photos, masks = pictures
    vgg, lin = lpips_weights()
    paths = write_states(tmp_path, vgg, lin)
    images = photos.flip(-1)
    found = Lpips(*paths)(Driven(images, masks, photos, masks, torch.zeros(3, 136)))["lpips"]
    a, b = (
        (x.double() - torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64).view(3, 1, 1))
        for x in (masked(images, masks), masked(photos, masks))
    )
    a, b = (x / torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64).view(3, 1, 1) for x in (a, b))
    expected = torch.zeros(3, dtype=torch.float64)
    for i, stage in enumerate(STAGES):
        if i:
            a, b = (torch.nn.MaxPool2d(2, 2)(x) for x in (a, b))
        for n in stage:
            layer = torch.nn.Conv2d(*vgg[f"features.{n}.weight"].shape[1::-1], 3, padding=1).double()
            layer.load_state_dict({"weight": vgg[f"features.{n}.weight"], "bias": vgg[f"features.{n}.bias"]})
            a, b = layer(a).relu(), layer(b).relu()
        difference = [x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b)]
        weighted = (difference[0] - difference[1]) ** 2 * lin[f"lin{i}.model.1.weight"].double()
        expected += weighted.sum(1).mean((1, 2))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-7)
    assert (found > 0).all()


def test_lpips_from_either_container_is_zero_for_equal_pictures(tmp_path, pictures):
    photos, _ = pictures
    vgg, lin = lpips_weights()
    torch_files = Lpips(*write_states(tmp_path, vgg, lin))
    save_file(vgg, tmp_path / "vgg.safetensors")
    save_file(lin, tmp_path / "lin.safetensors")
    safe = Lpips(tmp_path / "vgg.safetensors", tmp_path / "lin.safetensors")
    assert (safe.distance(photos, photos) == 0).all()
    torch.testing.assert_close(safe.distance(photos, -photos), torch_files.distance(photos, -photos))
    with pytest.raises(BadInput, match="16 pixels"):
        safe.distance(photos[..., :8, :8], photos[..., :8, :8])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda vgg, lin: vgg.pop("features.5.bias"), "features.5.bias is missing"),
        (lambda vgg, lin: vgg.update({"features.7.weight": torch.zeros(6, 5, 3, 3)}), "not any x 6 x 3 x 3"),
        (lambda vgg, lin: lin.pop("lin4.model.1.weight"), "lin4.model.1.weight is missing"),
        (lambda vgg, lin: lin.update({"lin0.model.1.weight": torch.zeros(1, 9, 1, 1)}), "not 1 x 4 x 1 x 1"),
    ],
)
def test_wrong_lpips_weights_are_refused(tmp_path, damage, words):
    vgg, lin = lpips_weights()
    damage(vgg, lin)
    with pytest.raises(BadInput, match=words):
        Lpips(*write_states(tmp_path, vgg, lin))


def test_unreadable_lpips_weights_are_refused(tmp_path):
    vgg, lin = write_states(tmp_path, *lpips_weights())
    with pytest.raises(BadInput, match=r"none\.pth: there is no such weights file"):
        Lpips(tmp_path / "none.pth", lin)
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(BadInput, match=f"{name} is not a readable"):
            Lpips(vgg, tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(BadInput, match="plain state dict; pass the VGG weights of LPIPS"):
        Lpips(vgg, tmp_path / "list.pth")
    assert "vgg16" in VGG
    assert "vgg.pth" in LIN


def test_faces_are_aligned_to_the_standard_points():
    transform = pytest.importorskip("skimage.transform")
    moved = (STANDARD - 50) @ np.array([[0.3, 0.1], [-0.1, 0.3]]) + (30, 40)
    moved += np.random.default_rng(0).normal(0, 1, moved.shape)
    reference = transform.SimilarityTransform.from_estimate(moved, STANDARD)
    np.testing.assert_allclose(similarity(moved, STANDARD), reference.params[:2], atol=1e-9)
    # A picture with five dots at the five points of a face has them at the standard places afterwards.
    points = (five_points(FACE) + 1) * 128 / 2 - 0.5
    y, x = np.mgrid[:128, :128]
    for i, (cx, cy) in enumerate(points):
        dot = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8) * 255
        face = aligned_face(np.repeat(dot[..., None], 3, axis=2).astype(np.uint8), FACE)[..., 0].astype(float)
        v, u = np.mgrid[:112, :112]
        centre = np.array([(face * u).sum(), (face * v).sum()]) / face.sum()
        expected = similarity(points, STANDARD) @ (cx, cy, 1)
        np.testing.assert_allclose(centre, expected, atol=0.2)
        assert np.linalg.norm(expected - STANDARD[i]) < 12


def test_csim_of_the_same_face_is_one_and_of_its_negative_is_not(tmp_path):
    photos = F.interpolate(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), 64) * 2 - 1
    masks, points = torch.ones(2, 1, 64, 64), torch.from_numpy(FACE).float().expand(2, -1)
    csim = FaceSimilarity(write_recognition(tmp_path / "face.onnx"))
    same = csim(Driven(photos, masks, photos, masks, points))["csim"]
    torch.testing.assert_close(same, torch.ones(2), atol=1e-6, rtol=0)
    other = csim(Driven(photos.flip(0), masks, photos, masks, points))["csim"]
    assert (other < 0.95).all()
    a, b = (csim.features(aligned_face(to_uint8(photo), FACE)) for photo in photos)
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert other.tolist() == pytest.approx([expected, expected], abs=1e-6)


def test_csim_without_features_is_no_number(tmp_path):
    csim = FaceSimilarity(write_recognition(tmp_path / "zero.onnx", scale=0))
    photo, mask = torch.zeros(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    assert csim(Driven(photo, mask, photo, mask, torch.from_numpy(FACE).float()[None]))["csim"].isnan().all()


def test_unusable_recognition_networks_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no such face-recognition network"):
        FaceSimilarity(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(BadInput, match=r"text\.onnx is not an ONNX file"):
        FaceSimilarity(tmp_path / "text.onnx")
    with pytest.raises(BadInput, match=r"1, 3, 64, 64.*112, 112"):
        FaceSimilarity(write_recognition(tmp_path / "small.onnx", size=64))


class OneFace:
    """A tracker that sees the same mesh in every picture that is not black."""

    def __init__(self, points):
        self.points = points

    def detect(self, image):
        return ["box"] if image.any() else []

    def confirm(self, image, face):
        from types import SimpleNamespace

        return SimpleNamespace(points=(self.points + 1) / 2 * image.shape[0])


def test_nme_is_relative_to_the_eyes_and_counts_missing_faces():
    goal = FACE.reshape(-1, 2)
    eyes = np.linalg.norm(goal[36] - goal[45])
    images, masks = torch.zeros(2, 3, 32, 32), torch.ones(2, 1, 32, 32)
    images[1] = -1
    points = torch.from_numpy(FACE).float().expand(2, -1)
    metric = LandmarkError(OneFace(goal + np.array([0.03, 0.04])))
    found = metric(Driven(images, masks, images, masks, points))
    assert found["nme_percent"][0].item() == pytest.approx(100 * 0.05 / eyes, rel=1e-4)
    assert found["nme_percent"][1].isnan()
    assert found["no_face"].tolist() == [0, 1]
    assert normalised_error(goal, goal) == 0
    assert normalised_error(np.roll(goal, 1, axis=0), goal) > 10, "points in another order are an error"


def test_a_metric_that_cannot_run_says_why(monkeypatch):
    from mobile_avatar.errors import MissingTool
    from mobile_avatar.training import evaluation_metrics

    def offline(directory):
        raise MissingTool("the models could not be fetched")

    monkeypatch.setattr(evaluation_metrics, "tracker_models", offline)
    metrics, not_run = open_metrics(Wanted())
    assert list(metrics) == ["pixels"]
    assert set(not_run) == {"lpips", "csim", "nme_percent", "no_face"}
    assert not_run["nme_percent"] == "the models could not be fetched"
    assert "--no-nme" in open_metrics(Wanted(nme=False))[1]["no_face"]
