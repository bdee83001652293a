"""The photo's colours in the texture: where they come from, and what must not be believed."""

import pytest
import torch
import torch.nn.functional as F

from mobile_avatar.models.rome.avatar_mesh import AvatarMesh
from mobile_avatar.models.rome.camera import project
from mobile_avatar.models.rome.feature_image import feature_image
from mobile_avatar.models.rome.parametric import rotation_matrices
from mobile_avatar.models.rome.photo_texture import PhotoSurface, PhotoUnfolding, avatar_texture, with_photo
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from tests.rome_weights import CAMERA

SIZE = 64


def wall(x: float, z: float, half: float = 0.4) -> torch.Tensor:
    """A square (4, 3) that faces the viewer, around x; its diagonal meets no pixel's centre, where no face would be."""
    low = half + 0.013
    return torch.tensor([[x - half, -half, z], [x + half, -half, z], [x + half, low, z], [x - half, low, z]])


def unfolded(vertices: torch.Tensor, photo: torch.Tensor, matte: torch.Tensor | None = None):
    """Colours, trust and person of squares, each in a column of the texture of its own."""
    count = len(vertices) // 4
    faces = torch.cat([torch.tensor([[0, 2, 1], [0, 3, 2]]) + 4 * number for number in range(count)])
    edges = torch.linspace(-1, 1, count + 1).tolist()
    corners = [[[a, -1], [b, -1], [b, 1], [a, 1]] for a, b in zip(edges, edges[1:], strict=False)]
    uv = torch.tensor(corners, dtype=torch.float32).flatten(0, 1)
    matte = torch.ones(1, 1, SIZE, SIZE) if matte is None else matte
    found = PhotoUnfolding(vertices, faces, uv, faces, SIZE // 2)(vertices[None], photo, matte)
    return [part.chunk(count, dim=3) for part in found]


@pytest.fixture
def ramp() -> torch.Tensor:
    """Red grows to the right, green downwards."""
    x = torch.linspace(0, 1, SIZE)
    return torch.stack((x.expand(SIZE, SIZE), x[:, None].expand(SIZE, SIZE), torch.zeros(SIZE, SIZE)))[None]


def test_texels_take_the_colour_of_their_place_in_the_photo(ramp):
    (colours,), (share,), _ = unfolded(wall(0.0, 0.0), ramp)
    assert share[..., 4:-4, 4:-4].min() > 0.999
    middle = torch.linspace(-0.4, 0.4, SIZE + 1).unfold(0, 2, 1).mean(1) / 2 + 0.5
    torch.testing.assert_close(colours[0, 0, SIZE // 2, 4:-4], middle[4:-4], atol=0.02, rtol=0)
    torch.testing.assert_close(colours[0, 1, 4:-4, SIZE // 2], middle[4:-4], atol=0.02, rtol=0)


def test_what_is_hidden_turned_away_or_not_the_person_is_not_believed(ramp):
    near, far = wall(0.0, -0.5), wall(0.5, 0.3)
    _, (front, behind), (_, nobody) = unfolded(torch.cat((near, far)), ramp)
    assert front[..., 8:-8, 8:-8].min() > 0.999
    # The left part of the far wall, from x = 0.1 to 0.4, stands behind the near one.
    assert behind[..., 4:-4, 2:9].max() == 0
    assert behind[..., 8:-8, 26:28].min() > 0.999
    assert nobody[..., 4:-4, 2:9].abs().max() == 0  # hidden: the photo says neither
    _, (back,), _ = unfolded(near.flip(0), ramp)
    assert back.max() == 0
    slanted = near.clone()
    slanted[:, 0], slanted[:, 2] = near[:, 0] * 0.2, near[:, 0]
    _, (grazing,), _ = unfolded(slanted, ramp)
    assert 0 < grazing.max() < 0.5
    matte = torch.zeros(1, 1, SIZE, SIZE)
    matte[..., : SIZE // 2] = 1
    _, (half,), (person,) = unfolded(near, ramp, matte)
    assert half[..., 4:-4, 4:24].min() > 0.999
    assert half[..., 30:].max() == 0  # two pixels of the outline are not believed either
    assert person[..., 4:-4, 4:28].min() > 0.999
    assert person[..., 4:-4, 36:-4].max() < -0.999


def test_the_encoder_fills_in_where_the_photo_says_nothing():
    texture, colours, person = torch.randn(2, 8, 16, 16), torch.rand(2, 3, 32, 32), torch.rand(2, 1, 32, 32)
    larger = F.interpolate(texture, (32, 32), mode="bilinear", align_corners=False)
    nothing = with_photo(texture, PhotoSurface(colours, torch.zeros(2, 1, 32, 32), person))
    torch.testing.assert_close(nothing[:, :3], colours + larger[:, :3])
    everything = with_photo(texture, PhotoSurface(colours, torch.ones(2, 1, 32, 32), person))
    torch.testing.assert_close(everything[:, :3], colours)
    for found in (nothing, everything):
        assert torch.equal(found[:, 3:4], person)
        assert torch.equal(found[:, 4:], larger[:, 4:])


def test_what_the_photo_does_not_show_takes_the_colours_nearest_to_it_on_the_head():
    head = synthetic_head()
    unfolding = PhotoUnfolding(head.template, head.faces, head.uv, head.uv_faces, SIZE)
    # Seen from the left, red above and blue below: the right half is guessed.
    turned = head.template[None] @ rotation_matrices(torch.tensor([[0.0, 1.2, 0.0]])).mT
    positions = project(turned, torch.tensor([CAMERA]))
    photo = torch.zeros(1, 3, SIZE, SIZE)
    photo[:, 0, : SIZE // 2], photo[:, 2, SIZE // 2 :] = 0.8, 0.6
    found = unfolding(positions, photo, torch.ones(1, 1, SIZE, SIZE))
    places = unfolding.surface(positions)[:, 1:2]
    hidden = (found.share == 0) & (unfolding.surface.mask() > 0)
    assert hidden.float().mean() > 0.2
    above, below = hidden & (places < -0.35), hidden & (places > 0.35)
    assert found.colours[:, :1][above].mean() > 0.6
    assert found.colours[:, 2:][below].mean() > 0.5
    nobody = unfolding(positions, photo, torch.zeros(1, 1, SIZE, SIZE))
    assert nobody.share.max() == 0
    assert nobody.colours.isfinite().all()


def test_an_avatar_in_the_pose_of_its_photo_shows_the_photo(ramp):
    head = synthetic_head()
    offsets = torch.zeros(1, len(head.template), 3)
    mesh = AvatarMesh.of(head, torch.zeros(1, head.shape_basis.shape[2]), offsets)
    codes = torch.zeros(1, mesh.expressions + 9)
    codes[0, mesh.expressions + 1], codes[0, -3:] = 0.3, torch.tensor(CAMERA)
    texture = avatar_texture(mesh, codes, torch.full((1, 8, 16, 16), 9.0), ramp, torch.ones(1, 1, SIZE, SIZE))
    assert texture.shape == (1, 8, 2 * SIZE, 2 * SIZE)
    corners = mesh.corners.long()
    features = feature_image(*mesh(codes), corners, mesh.uv, texture, SIZE)
    covered = features[:, -1] > 0
    # What is not believed is as the encoder left it.
    believed = covered & (features[:, 2] < 0.01)
    assert believed.sum() > 0.6 * covered.sum()
    error = (features[:, :2] - ramp[:, :2]).abs().amax(1)[believed]
    assert error.median() < 0.005
    assert error.quantile(0.99) < 0.05
