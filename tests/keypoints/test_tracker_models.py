"""Where the tracker's models come from. Every download here is pip itself, from a folder in place of the network."""

import os
import shutil
import threading
import zipfile
from pathlib import Path

import pytest

from mobile_avatar.errors import BadInput, MissingTool
from mobile_avatar.files import sha256
from mobile_avatar.keypoints.models import FILES, TrackerModels, cache_folder, cached_models, tracker_models

WHEEL = "mediapipe-0.10.21-cp312-cp312-manylinux_2_28_x86_64.whl"


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """An empty cache, and a pip that sees only the returned folder."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("MOBILE_AVATAR_CACHE", str(tmp_path / "cache"))
    return wheels


def write_wheel(folder: Path, models: TrackerModels, damaged: str = "") -> Path:
    path = folder / WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        for role, file in FILES.items():
            content = getattr(models, role).read_bytes()
            content = content[:-1] + b"!" if role == damaged else content
            archive.writestr(f"mediapipe/modules/{file.folder}/{file.name}", content)
        info = "mediapipe-0.10.21.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mediapipe\nVersion: 0.10.21\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: cp312-cp312-manylinux_2_28_x86_64\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def digests(models: TrackerModels) -> list[str]:
    return [sha256(getattr(models, role)) for role in FILES]


RIGHT = [file.digest for file in FILES.values()]


def test_first_use_fetches_and_later_uses_do_not(offline, models):
    write_wheel(offline, models)
    assert cached_models() is None
    found = tracker_models()
    assert cached_models() == cache_folder()
    assert found.detector.parent == cache_folder()
    assert digests(found) == RIGHT
    (offline / WHEEL).unlink()
    assert tracker_models() == found
    assert sorted(path.name for path in cache_folder().iterdir()) == sorted(file.name for file in FILES.values())


def test_a_damaged_cache_heals_itself(offline, models):
    write_wheel(offline, models)
    found = tracker_models()
    found.landmarks.write_bytes(found.landmarks.read_bytes()[:1000])
    found.segmenter.unlink()
    assert cached_models() is None
    assert digests(tracker_models()) == RIGHT


def test_a_wheel_with_other_models_is_refused_and_nothing_is_kept(offline, models):
    write_wheel(offline, models, damaged="landmarks")
    with pytest.raises(BadInput, match=r"face_landmark\.tflite: not the published model"):
        tracker_models()
    assert not (cache_folder() / "face_landmark.tflite").exists()


def test_without_a_network_the_sentence_says_what_to_do(offline):
    with pytest.raises(MissingTool) as caught:
        tracker_models()
    sentence = str(caught.value)
    assert "pip download --no-deps" in sentence
    assert "--tracker-models DIR" in sentence
    assert "\n" not in sentence


def test_a_cache_that_cannot_be_written_is_a_missing_tool(offline, models, tmp_path, monkeypatch):
    write_wheel(offline, models)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MOBILE_AVATAR_CACHE", str(tmp_path / "file"))
    with pytest.raises((MissingTool, BadInput), match="cannot be written"):
        tracker_models()


def test_processes_that_start_together_all_get_whole_files(offline, models):
    wheel = write_wheel(offline, models)
    results: list = []

    def first_use() -> None:
        try:
            results.append(digests(tracker_models(wheel.parent)))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=first_use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [RIGHT] * 8


def test_a_folder_of_models_is_used_as_it_is(offline, models, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    for role in FILES:
        shutil.copy(getattr(models, role), folder)
    assert digests(tracker_models(folder)) == RIGHT
    assert tracker_models(folder).detector.parent == folder
    assert not cache_folder().exists()
    (folder / "selfie_segmentation.tflite").write_bytes(b"TFL3")
    with pytest.raises(BadInput, match=r"selfie_segmentation\.tflite: not the published model"):
        tracker_models(folder)
    (folder / "selfie_segmentation.tflite").unlink()
    with pytest.raises(BadInput, match=r"selfie_segmentation\.tflite not found in this folder"):
        tracker_models(folder)
    with pytest.raises(BadInput, match="no such folder"):
        tracker_models(tmp_path / "nowhere")


def test_a_folder_with_the_wheel_serves_offline_machines(offline, models, tmp_path):
    folder = tmp_path / "usb"
    folder.mkdir()
    write_wheel(folder, models)
    assert digests(tracker_models(folder)) == RIGHT
    (folder / WHEEL).write_bytes(b"PK truncated")
    shutil.rmtree(cache_folder())
    with pytest.raises(BadInput, match="not a readable wheel"):
        tracker_models(folder)


def test_the_cache_follows_the_usual_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("MOBILE_AVATAR_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "tracker"
    monkeypatch.delenv("MOBILE_AVATAR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "mobile-avatar" / "tracker"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "mobile-avatar" / "tracker"
