"""The hard rasteriser: brute force, properties, hopeless input, and the official edge cases."""

import numpy as np
import pytest
import torch

from mobile_avatar.errors import BadInput
from mobile_avatar.rendering import pixel_boxes
from mobile_avatar.rendering.rasterize import rasterize, seen_vertices
from tests.rendering.brute_force import layers, random_mesh

SIZE = 20


def maps(seen):
    """Faces, barycentrics and depth as pictures of the first frame."""
    return seen.image(seen.face, -1)[0], seen.image(seen.barycentrics, -1)[0], seen.image(seen.depth, -1)[0]


def equal(first, second):
    return all(torch.equal(getattr(first, k), getattr(second, k)) for k in ("pixel", "face", "barycentrics", "depth"))


@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force(seed):
    vertices, faces = random_mesh(seed)
    face, weights, depth = maps(rasterize(vertices, faces, SIZE))
    covered = 0
    for row in range(SIZE):
        for column in range(SIZE):
            front = layers(vertices[0].numpy(), faces.numpy(), column, row, SIZE, radius=0)[:1]
            assert face[row, column] == (front[0].face if front else -1)
            if front:
                covered += 1
                # 1e-8 is added to the doubled area, which small faces notice.
                np.testing.assert_allclose(weights[:, row, column], front[0].weights, rtol=1e-4, atol=1e-6)
                np.testing.assert_allclose(depth[row, column], front[0].depth, rtol=1e-4)
    assert covered > SIZE * SIZE / 4


def test_attributes_of_vertices_and_of_corners():
    vertices, faces = random_mesh(3, frames=2)
    seen = rasterize(vertices, faces, SIZE)
    position = seen.interpolate(vertices, faces)
    centres = (2 * torch.arange(SIZE, dtype=torch.float64) + 1) / SIZE - 1
    covered = seen.mask()[:, 0] > 0
    assert covered.any(dim=2).any(dim=1).all()
    torch.testing.assert_close(position[:, 0][covered], centres.expand(2, SIZE, SIZE)[covered], atol=1e-4, rtol=0)
    assert (position[:, 2] - seen.image(seen.depth)).abs().max() < 1e-6
    assert (position.permute(0, 2, 3, 1)[~covered] == 0).all()
    # One row per face, the same for all frames: the picture of the faces' numbers.
    number = torch.arange(len(faces), dtype=torch.float64)[None, :, None]
    flat = seen.interpolate(number, torch.arange(len(faces))[:, None].expand(-1, 3))[:, 0]
    torch.testing.assert_close(flat[covered], seen.image(seen.face, -1)[covered].double(), atol=1e-2, rtol=0)


def test_the_order_of_the_faces_does_not_matter():
    vertices, faces = random_mesh(4)
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
    plain, shuffled = rasterize(vertices, faces, SIZE), rasterize(vertices, faces[order], SIZE)
    assert torch.equal(plain.face, order[shuffled.face])
    assert torch.equal(plain.barycentrics, shuffled.barycentrics)


def test_moving_by_whole_pixels_moves_the_picture():
    vertices, faces = random_mesh(5)
    moved = vertices + torch.tensor([2 * 3 / SIZE, 2 * -2 / SIZE, 0], dtype=torch.float64)
    face, weights, _ = maps(rasterize(vertices, faces, SIZE))
    face_there, weights_there, _ = maps(rasterize(moved, faces, SIZE))
    assert torch.equal(face[2:, :-3], face_there[:-2, 3:])
    torch.testing.assert_close(weights[:, 2:, :-3], weights_there[:, :-2, 3:], atol=1e-10, rtol=0)


def test_mirror_images_and_windings_are_alike():
    vertices, faces = random_mesh(6)
    face = maps(rasterize(vertices, faces, SIZE))[0]
    assert torch.equal(maps(rasterize(vertices, faces.flip(1), SIZE))[0], face)
    assert torch.equal(maps(rasterize(vertices * torch.tensor([-1, 1, 1]), faces, SIZE))[0], face.flip(1))


def test_gradients_are_those_of_finite_differences():
    vertices, faces = random_mesh(7, faces=16)
    values = torch.rand(1, 48, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def picture(v, a):
        seen = rasterize(v, faces, 12)
        return seen.interpolate(a, faces), seen.depth

    assert rasterize(vertices, faces, 12).pixel.numel() > 16
    assert torch.autograd.gradcheck(picture, (vertices.requires_grad_(), values.requires_grad_()))


def test_a_batch_is_its_frames_and_pieces_are_the_whole(monkeypatch):
    vertices, faces = random_mesh(8, frames=3, kind=torch.float32)
    together = rasterize(vertices, faces, 33)
    for number, one in enumerate(vertices):
        alone = rasterize(one[None], faces, 33)
        mine = together.frame == number
        assert torch.equal(together.pixel[mine] - number * 33 * 33, alone.pixel)
        assert torch.equal(together.barycentrics[mine], alone.barycentrics)
    monkeypatch.setattr(pixel_boxes, "PIECE", 50)  # less than one large box
    assert equal(rasterize(vertices, faces, 33), together)


@pytest.mark.parametrize(("frames", "vertices", "faces"), [(2, 4, 0), (1, 0, 0), (0, 4, 2)])
def test_nothing_to_draw(frames, vertices, faces):
    table = torch.zeros(faces, 3, dtype=torch.int64)
    seen = rasterize(torch.zeros(frames, vertices, 3), table, 5)
    assert seen.mask().shape == (frames, 1, 5, 5)
    assert not seen.mask().any()
    assert seen.interpolate(torch.zeros(frames, vertices, 7), table).shape == (frames, 7, 5, 5)
    assert not seen_vertices(seen.frame, seen.face, table, (frames, vertices)).any()


def test_hopeless_faces_do_not_disturb_the_others():
    good, faces = random_mesh(9, faces=20, kind=torch.float32)
    nan, far = float("nan"), 3e38
    bad = [
        [[nan, 0, 1], [1, 0, 1], [0, 1, 1]],
        [[-1, -1, nan], [1, -1, 1], [0, 1, 1]],
        [[-far, -far, 1], [far, -far, 1], [0, far, 1]],
        [[float("inf"), 0, 1], [0, 1, 1], [-1, -1, 1]],
        [[-1, -1, -0.5], [1, -1, 0.5], [0, 1, 0.5]],  # reaches behind the camera
        [[0.1, 0.1, 0.5]] * 3,
        [[-1, -1, 0.5], [0, 0, 0.5], [1, 1, 0.5]],
        [[5, 5, 0.5], [6, 5, 0.5], [5, 6, 0.5]],
    ]
    vertices = torch.cat((good, torch.tensor(bad).view(1, -1, 3)), dim=1)
    more = torch.cat((faces, torch.arange(len(bad) * 3).view(-1, 3) + good.shape[1]))
    assert equal(rasterize(vertices, more, SIZE), rasterize(good, faces, SIZE))


def test_bad_meshes_are_refused():
    vertices, faces = random_mesh(0)
    for wrong in ((vertices[0], faces, 8), (vertices.half(), faces, 8)):
        with pytest.raises(BadInput, match="vertices"):
            rasterize(*wrong)
    with pytest.raises(BadInput, match="faces must be int64"):
        rasterize(vertices, faces.int(), 8)
    with pytest.raises(BadInput, match="0 pixels"):
        rasterize(vertices, faces, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_sees_the_same():
    vertices, faces = random_mesh(10, faces=500, frames=2, kind=torch.float32)
    here, there = rasterize(vertices, faces, 64), rasterize(vertices.cuda(), faces.cuda(), 64)
    assert (here.image(here.face, -1) != there.image(there.face, -1).cpu()).float().mean() < 1e-3


def test_official_edge_cases(shared):
    golden = np.load(shared / "parity/rome/07_raster_edge_cases.npz", allow_pickle=False)
    vertices, faces = torch.from_numpy(golden["vertices"])[None], torch.from_numpy(golden["faces"]).long()
    seen = rasterize(vertices, faces, 16)
    face, weights, depth = maps(seen)
    np.testing.assert_array_equal(face, golden["pix_to_face"])
    np.testing.assert_allclose(weights.permute(1, 2, 0), golden["bary"], atol=1e-5)
    np.testing.assert_allclose(depth, golden["zbuf"], atol=1e-5)
    attributes = torch.from_numpy(golden["attributes"]).reshape(1, -1, 2)
    image = seen.interpolate(attributes, torch.arange(3 * len(faces)).view(-1, 3))
    image = torch.cat((image, seen.mask()), dim=1)[0].permute(1, 2, 0)
    np.testing.assert_allclose(image, golden["attribute_image"], atol=1e-5)


@pytest.mark.parametrize("pose", ["a", "b", "c"])
def test_official_heads(shared, pose):
    golden = np.load(shared / "parity/rome/07_raster_hard.npz", allow_pickle=False)
    model = np.load(shared / "parity/rome/00_model.npz", allow_pickle=False)
    vertices = torch.from_numpy(golden[f"{pose}/vertices_proj"])[None] + torch.tensor([0, 0, 10])
    face, weights, depth = maps(rasterize(vertices, torch.from_numpy(model["faces"]).long(), 128))
    np.testing.assert_array_equal(face, golden[f"{pose}/pix_to_face"])
    np.testing.assert_allclose(weights.permute(1, 2, 0), golden[f"{pose}/bary"], atol=2e-5)
    np.testing.assert_allclose(depth, golden[f"{pose}/zbuf"], atol=1e-4)
