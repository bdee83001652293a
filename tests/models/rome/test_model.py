"""ROME as a whole: the official path in its three modes, and what holds for any weights."""

from dataclasses import replace

import pytest
import torch

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.camera import crop_box, uncrop_camera
from mobile_avatar.models.rome.model import MODES, Person, Rome
from mobile_avatar.models.rome.networks import RomeNetworks
from mobile_avatar.models.rome.postprocess import on_white, opened_mask
from mobile_avatar.models.rome.regressors import FrameCodes, split_frame_codes
from tests.models.rome.heads import EXPRESSIONS, SHAPES, golden_arrays, golden_head, random_head
from tests.models.rome.official import SMALL, random_networks

SHEET = replace(SMALL, n_vertices=48, n_shape=SHAPES, n_exp=EXPRESSIONS, image_size=32)


def near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def golden(shared) -> dict[str, torch.Tensor]:
    return golden_arrays(shared, "11_linear_path")


@pytest.fixture(scope="module")
def official(shared) -> RomeNetworks:
    """The networks of the golden data; encoders and regressors were replaced there by the codes they return."""
    parts = ("geometry_unet", "vertex_mlp", "rendering_unet", "linear_basis")
    networks = RomeNetworks(SMALL, parts).eval()
    files = ("01_unet_geom_weights", "03_mlp_weights", "01_unet_img_weights")
    for part, file in zip(parts, files, strict=False):
        networks.part(part).load_state_dict(golden_arrays(shared, file))
    model = golden_arrays(shared, "00_model")
    networks.linear_basis.load_state_dict({"basis": model["u_full"], "mean": model["mean_deform"]})
    return networks


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_equals_the_official_path(shared, golden, official, mode):
    rome = Rome(official, golden_head(shared), mode)
    want = {key.removeprefix(f"{mode}/"): value for key, value in golden.items() if key.startswith(f"{mode}/")}
    offsets = official.linear_basis(golden["coef"]) if rome.mode.linear else None
    if rome.mode.mobile:
        codes = split_frame_codes(golden["online_output"], SMALL)
    else:
        camera = uncrop_camera(golden["cam_crop"], crop_box(golden["keypoints"]))
        codes = FrameCodes(golden["exp"], golden["pose"], camera)
    near(codes.camera, want["cam"], 1e-5)
    frame = rome(Person(golden["texture"], golden["shape"], offsets), codes)
    mesh, loose = frame.mesh, mode == "full"
    near(mesh.posed.rotation, want["rot_mats"][:, 0], 1e-6)
    near(mesh.posed.root, want["root_joint"], 1e-6)
    near(mesh.posed.vertices, want["vertices_posed"], 1e-6)
    near(mesh.offsets, want["offsets"], 1e-5)
    near(mesh.vertices, want["vertices"], 1e-5)
    near(mesh.turned, want["vertices_rotated"], 1e-5)
    near(mesh.projected, want["vertices_proj"], 1e-4 if loose else 1e-5)
    near(mesh.landmarks, want["landmarks_proj"], 1e-4 if loose else 1e-5)
    assert torch.equal(frame.maps.mask.long(), want["hard_mask"])
    near(frame.features[:, :8], want["rendered_texture_masked"], 1e-2 if loose else 1e-3)
    near(frame.maps.normals, want["normals"], 1e-3 if loose else 1e-4)
    if mode == "linear":
        near(frame.features[:, :, ::2, ::2], want["unet_input_every_2nd"], 3e-3)
    near(frame.image, want["image"], 5e-3 if loose else 1e-3)
    near(frame.mask, want["mask"], 5e-3 if loose else 1e-3)
    near(on_white(want["image"], want["mask"])[0], want["render_masked"], 1e-6)


@torch.no_grad()
def test_deformation_equals_the_official_one(shared, official):
    want = golden_arrays(shared, "03_deformer")
    rome = Rome(official, golden_head(shared))
    posed = rome.head(want["deform/shape"], want["deform/exp"], torch.tensor([[0.1, -0.4, 0.05, 0.25, 0.02, -0.03]]))
    near(posed.vertices, want["deform/vertices"], 1e-6)
    near(rome.deformation(want["deform/texture"], posed.vertices), want["deform/offsets"], 1e-5)


def test_linear_basis_equals_the_official_one(golden, official):
    basis = official.linear_basis
    near(basis(golden["coef"])[0], golden["linear/delta_v"], 1e-6)
    near(basis.coefficients(golden["linear/delta_v"][None]), golden["linear/coef_recovered"], 1e-6)


def test_opening_equals_the_official_one(golden):
    assert torch.equal(opened_mask(golden["postprocess/mask"][None])[0].long(), golden["postprocess/opened"])


def test_opening_by_hand():
    mask = torch.zeros(1, 1, 30, 5)
    mask[..., 0:5, 0] = 1  # at the border the outside counts as covered
    mask[..., 10:18, 1] = 1  # eight are too few
    mask[..., 10:19, 2] = 0.61
    mask[..., 10:19, 3] = 0.6
    mask[..., 3, :] = 0  # cuts the first column
    expected = torch.zeros_like(mask)
    expected[..., 10:19, 2] = 1
    assert torch.equal(opened_mask(mask), expected)
    image = torch.full((1, 3, 30, 5), 0.25)
    assert torch.equal(on_white(image, mask), torch.where(expected > 0, 0.25, 1.0).expand_as(image))


@pytest.fixture(scope="module")
def networks() -> RomeNetworks:
    return random_networks(SHEET)


def inputs(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    return (
        torch.rand(n, 3, 32, 32, generator=g),
        torch.rand(n, 1, 32, 32, generator=g),
        torch.rand(n, 68, 2, generator=g),
    )


def some_codes(n: int) -> FrameCodes:
    g = torch.Generator().manual_seed(4)
    camera = torch.tensor([8.0, 0.0, 0.0]).repeat(n, 1)
    return FrameCodes(torch.randn(n, EXPRESSIONS, generator=g), 0.2 * torch.randn(n, 6, generator=g), camera)


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_from_photo_to_frames(networks, mode):
    rome = Rome(networks, random_head(), mode).eval()
    photo, matte, keypoints = inputs(2)
    person = rome.person(photo[:1], matte[:1], keypoints[:1])
    assert person.texture.shape == (1, 8, 32, 32)
    assert (person.offsets is None) == (mode == "full")
    codes = rome.frame_codes(photo, None if rome.mode.mobile else keypoints)
    assert codes.expression.shape == (2, EXPRESSIONS)
    frame = rome(person, some_codes(2))
    assert frame.image.shape == (2, 3, 32, 32)
    assert frame.mask.shape == (2, 1, 32, 32)
    assert 0 <= frame.image.min() < frame.image.max() <= 1
    assert 0.1 < frame.maps.mask.mean() < 1, "the sheet is in the picture"
    for i in range(2):
        one = rome(person, FrameCodes(*(value[i : i + 1] for value in vars(some_codes(2)).values())))
        near(one.image, frame.image[i : i + 1], 1e-3)
        near(one.mesh.projected, frame.mesh.projected[i : i + 1], 1e-5)
    if rome.mode.linear:
        assert torch.equal(frame.mesh.offsets[0], frame.mesh.offsets[1])
    else:
        still = (random_head().deforms_mask == 0)[:, 0]
        assert not frame.mesh.offsets[:, still].any()
        assert frame.mesh.offsets[:, ~still].any()


@pytest.mark.parametrize("mode", ["full", "linear_mobile"])
def test_pictures_train_what_made_them(networks, mode):
    rome = Rome(networks, random_head(), mode).eval()
    networks.zero_grad()
    photo, matte, keypoints = inputs(1)
    codes = rome.frame_codes(photo, keypoints)
    near_codes = FrameCodes(codes.expression, codes.pose * 0.1, codes.camera * 0.1 + torch.tensor([8.0, 0.0, 0.0]))
    frame = rome(rome.person(photo, matte, keypoints), near_codes)
    (frame.image.square().mean() + frame.mask.mean()).backward()
    used = {"texture_encoder", "rendering_unet", "face_encoder"}
    used |= {"geometry_unet", "vertex_mlp"} if mode == "full" else {"basis_regressor", "frame_regressor"}
    for name in networks.parts:
        got = [p.grad is not None and bool(p.grad.any()) for p in networks.part(name).parameters()]
        assert any(got) == (name in used), name


def test_what_does_not_fit_is_refused(networks):
    with pytest.raises(BadInput, match="'fast' is not one of full, linear, linear_mobile"):
        Rome(networks, random_head(), "fast")
    with pytest.raises(BadInput, match="n_vertices 48, the networks were made for 601"):
        Rome(RomeNetworks(SMALL, ("rendering_unet",)), random_head())
    rome = Rome(networks, random_head())
    with pytest.raises(BadInput, match="68 keypoints"):
        rome.frame_codes(torch.rand(1, 3, 32, 32))
    assert not {key for key in rome.state_dict() if not key.startswith("networks.")}
