"""Playing ROME avatars: cameras of crops, frames without a face, an avatar of another head; and the turntable."""

import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image

from mobile_avatar import turntable
from mobile_avatar.assets import shipped
from mobile_avatar.avatar import Avatar
from mobile_avatar.errors import BadInput
from mobile_avatar.keypoints.crop import CropBox, avatar_crop, normalise_points
from mobile_avatar.keypoints.video import VideoTrack
from mobile_avatar.models.rome.landmark_fit import AvatarLandmarks
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.players import load_player, moved_camera, rome_player, video_codes
from mobile_avatar.rendering.tracks import turned_keypoints
from tests.rome_avatars import small_avatar


@pytest.fixture(scope="module")
def avatar():
    return small_avatar(synthetic_head())


def test_a_camera_moves_between_crops(avatar):
    landmarks = AvatarLandmarks.of(avatar.mesh, synthetic_head())
    box, other = CropBox(150, 140, 60), CropBox(120, 160, 75)
    there = landmarks(moved_camera(avatar.source_codes, box, other)[None]) * other.half + torch.tensor([120, 160])
    here = landmarks(avatar.source_codes[None]) * box.half + torch.tensor([150, 140])
    torch.testing.assert_close(there, here, rtol=0, atol=1e-3)


def write_video(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 200, 200, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def test_the_encoder_reads_each_frame_in_its_own_crop(avatar, tmp_path):
    """A picture that only moves: the same codes, but for a camera that moves along."""
    rng = np.random.default_rng(0)
    picture = np.asarray(Image.fromarray(rng.integers(0, 255, (10, 10, 3), np.uint8)).resize((200, 200)))
    shifts = (0, 8, 16)
    write_video(tmp_path / "v.mp4", [np.roll(picture, shift, axis=1) for shift in shifts])
    face = turned_keypoints([0.0]).reshape(68, 2) * 40 + 100
    box = avatar_crop(face + np.array((8, 0)))
    points = np.concatenate([normalise_points(face + np.array((shift, 0)), box) for shift in shifts]).reshape(3, -1)
    codes = video_codes(avatar, tmp_path / "v.mp4", VideoTrack(points, 10.0, (), box))
    assert np.abs(codes[:, :-3] - codes[0, :-3]).max() < 0.05
    centre = codes[:, -3] * codes[:, -2]
    assert np.allclose(np.diff(centre), 8 / box.half, atol=0.02)

    held = video_codes(avatar, tmp_path / "v.mp4", VideoTrack(points, 10.0, (0, 2), box))
    assert (held == codes[1]).all()


def test_an_avatar_of_another_head_takes_videos_only(tmp_path):
    path = tmp_path / "other.avatar"
    small_avatar().save(path)
    player = load_player(path)
    with pytest.raises(BadInput, match="pass --video"):
        player.from_keypoints(np.zeros((2, 136), np.float32))
    with pytest.raises(BadInput, match="pass --video"):
        player.neutral()


def test_the_neutral_keypoints_give_the_photos_picture(avatar):
    player = rome_player(avatar)
    drivers = player.from_keypoints(player.neutral()[None])
    wanted = player.draw(avatar.source_codes.numpy()).astype(int)
    assert np.abs(player.draw(drivers[0]) - wanted).mean() < 0.5
    assert wanted.std() > 5


def test_turntable(avatar, tmp_path, monkeypatch, capsys):
    avatar.save(tmp_path / "rome.avatar")
    output = tmp_path / "sheet.png"
    given = ("--rome", tmp_path / "rome.avatar", "--bilayer", shipped("default.avatar"), "-o", output)
    monkeypatch.setattr(sys, "argv", ["turntable", *map(str, given)])
    turntable.main()
    sheet = np.asarray(Image.open(output))
    assert sheet.shape[1] > len(turntable.DEGREES) * turntable.CELL
    assert capsys.readouterr().out == f"{output}\n"

    swapped = ("--rome", shipped("default.avatar"), "--bilayer", tmp_path / "rome.avatar", "-o", tmp_path / "x.png")
    monkeypatch.setattr(sys, "argv", ["turntable", *map(str, swapped)])
    with pytest.raises(SystemExit) as exit_:
        turntable.main()
    assert exit_.value.code == 2
    assert "not a ROME avatar file" in capsys.readouterr().err


def test_bilayer_avatars_play_as_before():
    player, avatar = load_player(shipped("default.avatar")), Avatar.load(shipped("default.avatar"))
    track = turned_keypoints([0.3], player.neutral())
    assert player.from_keypoints(track) is track
    image = avatar.render(torch.from_numpy(track)).image[0]
    wanted = ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    assert (player.draw(track[0]) == wanted).all()
