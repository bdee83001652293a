"""The protocol: who is measured, that means and intervals are those of the definition, that nothing vanishes."""

import json

import numpy as np
import pytest
import torch

from mobile_avatar.data.clips import Clips, Draw
from mobile_avatar.errors import BadInput
from mobile_avatar.keypoints.landmark_image import draw_landmarks_batched
from mobile_avatar.models.bilayer.inference_generator import masked
from mobile_avatar.training import evaluation
from mobile_avatar.training.evaluation import METHODS, Measured, Stages, bootstrap, choose, drive, measure, summarise
from mobile_avatar.training.evaluation_report import markdown, result, table, write_grid
from mobile_avatar.training.metrics import pixel_metrics, score_frames
from mobile_avatar.training.people import People, Selection, dataset_people, synthetic_people
from tests.models.bilayer.official import random_model

FACTS = {"weights": "w", "data": "d", "split": "test", "image_size": 64, "skipped": {"b": "no frames"}}


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def people():
    return synthetic_people(Selection(identities=2, frames=4), 64)


def no_face(driven):
    """Stands in for the tracker: no face in the first frame of every chunk."""
    errors = torch.full((len(driven.images),), 5.0)
    errors[0] = torch.nan
    return {"nme_percent": errors, "no_face": errors.isnan().float()}


@pytest.fixture(scope="module")
def measured(model, people):
    metrics = {"pixels": pixel_metrics, "nme": no_face}
    return measure(model, people.load, people.draws, metrics, Stages(2, 3))


def test_people_are_the_first_of_the_split_and_never_trained_on(people):
    train = synthetic_people(Selection("train", 2, 4), 64)
    assert list(people.draws) == ["test 0", "test 1"]
    a, b = (them.load(draw) for them in (people, train) for draw in list(them.draws.values())[:1])
    assert a.images.shape == (1, 4, 3, 64, 64)
    assert not torch.allclose(a.images, b.images)
    assert len(next(iter(synthetic_people(Selection(), 64).draws.values())).frames) == 8
    with pytest.raises(BadInput, match="two frames"):
        Selection(frames=1)


def test_the_numbers_are_those_of_the_model(model, people, measured):
    """The whole protocol once more by hand, for one person."""
    clips = people.load(people.draws["test 1"])
    landmarks = draw_landmarks_batched(clips.keypoints[:, 0], 64)[:, None]
    with torch.no_grad():
        person = model.person(clips.images[:, :1], clips.masks[:, :1], landmarks)
        texture = model.update_texture(person, clips.images[:, :1], clips.keypoints[:, :1], 2)[-1]
        layers = model.frame_layers(clips.keypoints[:, 1:], person)
        shown = model(clips.keypoints[:, 1:], person, texture)
    photos, masks = clips.images[0, 1:], clips.masks[0, 1:]
    behind_one_mask = masked(model.unmasked(layers, texture).clamp(-1, 1), masks)
    found = measured[1].values["updated"]
    for expected, names in (
        (score_frames(behind_one_mask, photos, masks), {"psnr_masked": "psnr_masked", "ssim_masked": "ssim_masked"}),
        (
            score_frames(shown, photos, masks),
            {"psnr_masked": "psnr_shown", "psnr_raw": "psnr_raw", "ssim_raw": "ssim_raw"},
        ),
    ):
        for name, column in names.items():
            np.testing.assert_allclose(found[column], expected[name], rtol=1e-4)
    still = masked(clips.images[0, :1], clips.masks[0, :1]).expand(3, -1, -1, -1)
    expected = score_frames(still, clips.images[0, 1:], clips.masks[0, 1:])
    np.testing.assert_allclose(measured[1].values["still"]["psnr_raw"], expected["psnr_raw"], rtol=1e-5)
    assert list(measured[0].values) == list(METHODS)
    assert list(measured[0].values["photo"]) == ["nme_percent", "no_face"]
    assert [person.frames for person in measured] == [3, 3]


def test_chunks_do_not_change_anything(model, people, measured, monkeypatch):
    monkeypatch.setattr(evaluation, "CHUNK", 2)
    again = measure(model, people.load, people.draws, {"pixels": pixel_metrics}, Stages(2, 3))
    for a, b in zip(measured, again, strict=True):
        for method in b.values:
            for column, values in b.values[method].items():
                np.testing.assert_allclose(values, a.values[method][column], rtol=1e-4)


def test_stages_that_are_not_asked_for_are_left_out(model, people):
    clips = people.load(people.draws["test 0"])
    (driven,) = drive(model, clips, Stages(0, 0))
    assert list(driven) == ["still", "warp", "generated", "photo"]
    for frames in driven.values():
        assert frames.images.min() >= -1
        assert frames.images.max() <= 1


def test_frames_without_a_face_are_counted(measured):
    summary = summarise(measured)["updated"]
    assert summary["nme_percent"] == {"mean": 5.0, "ci95": [5.0, 5.0], "identities": 2, "frames": 4}
    assert summary["no_face"]["mean"] == pytest.approx(1 / 3)
    text = markdown(result(measured, {}, FACTS))
    assert "NME of `updated` is over 4 of 6 frames" in text


def test_means_are_of_identities_not_of_frames():
    def person(name, *values):
        return Measured(name, len(values), {"still": {"psnr_raw": np.array(values)}})

    nan = float("nan")
    people = [person("a", 10.0, 20.0, nan), person("b", 30.0), person("c", nan)]
    assert summarise(people)["still"]["psnr_raw"]["mean"] == 22.5
    assert summarise(people)["still"]["psnr_raw"]["identities"] == 2
    assert summarise(people)["still"]["psnr_raw"]["frames"] == 3
    assert summarise(people[2:])["still"]["psnr_raw"] is None
    found = result(people, {"lpips": "no weights"}, FACTS)
    assert found["methods"]["still"]["metrics"]["lpips"] is None
    assert found["people"][2]["metrics"]["still"]["psnr_raw"] is None
    json.dumps(found, allow_nan=False)
    header, rows = table(found)
    assert "LPIPS" not in header
    assert "**LPIPS**: not measured: no weights" in markdown(found)
    assert "skipped b: no frames" in markdown(found)
    assert len(rows[0]) == len(header)


def test_the_interval_covers_and_repeats():
    values = np.random.default_rng(0).normal(20, 2, 50)
    low, high = bootstrap(values)
    assert (low, high) == bootstrap(values)
    error = 1.96 * values.std(ddof=1) / np.sqrt(50)
    assert low == pytest.approx(values.mean() - error, abs=0.1)
    assert high == pytest.approx(values.mean() + error, abs=0.1)
    assert bootstrap(values[:1]) == (values[0], values[0])


def test_best_median_and_worst():
    def person(psnr):
        return Measured(str(psnr), 1, {"updated": {"psnr_masked": np.array([psnr])}})

    people = [person(psnr) for psnr in (21.0, 25.0, 19.0, 23.0, 22.0)]
    names = {word: found.name for word, found in choose(people, "updated").items()}
    assert names == {"best": "25.0", "median": "22.0", "worst": "19.0"}
    assert list(choose(people[:1], "updated")) == ["best"]


def test_the_grid_has_a_row_a_person(model, people, measured, tmp_path):
    from PIL import Image

    write_grid(tmp_path / "grid.png", model, people, measured, Stages(2, 0))
    width, height = Image.open(tmp_path / "grid.png").size
    assert width >= 13 * 64
    assert height >= 2 * 64


class Dataset:
    """What `people` asks of a dataset: two videos of a, none usable of b, one of c and d."""

    def __init__(self, root, split, image_size):
        self.people = ["a/1", "a/2", "b/1", "c/1", "d/1"]
        self.counts = [7, 9, 0, 1, 51]

    def frames_of(self, person):
        if not self.counts[person]:
            raise BadInput("b/1: no frame has a picture")
        return tuple(range(self.counts[person]))

    def load(self, draws, device):
        ((_, frames),) = draws
        n = len(frames)
        return Clips(torch.zeros(1, n, 3, 8, 8), torch.zeros(1, n, 1, 8, 8), torch.zeros(1, n, 136))


def test_a_dataset_gives_one_video_a_person_and_names_the_skipped(tmp_path, monkeypatch):
    from mobile_avatar.training import people

    monkeypatch.setattr(people, "VoxCelebClips", Dataset)
    found = dataset_people(tmp_path, Selection(), 8)
    assert found.draws == {"a/1": Draw(0, tuple(range(7))), "d/1": Draw(4, tuple(range(51)))}
    assert list(found.skipped) == ["b/1", "c/1"]
    assert isinstance(found, People)
    assert found.load(found.draws["a/1"]).images.shape[1] == 7
    sparse = dataset_people(tmp_path, Selection(every=25), 8)
    assert sparse.draws == {"d/1": Draw(4, (0, 25, 50))}
    few = dataset_people(tmp_path, Selection(identities=1, frames=3), 8)
    assert few.draws == {"a/1": Draw(0, (0, 3, 6))}
    with pytest.raises(BadInput, match="two frames"):
        dataset_people(tmp_path, Selection(every=100), 8)
