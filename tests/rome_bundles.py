"""A bundle of a small ROME avatar, exported once per process for all tests that look at one."""

import functools
import shutil
import tempfile
from pathlib import Path

from mobile_avatar.exporters.bundle import Plan
from mobile_avatar.exporters.rome_bundle import export_rome_bundle
from tests.rome_avatars import small_avatar

AVATAR = "me.avatar"


@functools.cache
def _exported() -> tempfile.TemporaryDirectory:
    place = tempfile.TemporaryDirectory(prefix="rome-bundle-")
    avatar = small_avatar()
    avatar.save(Path(place.name, AVATAR))
    export_rome_bundle(avatar, Plan("onnx", "fp32", "split", "desktop"), Path(place.name, "rome"), lambda line: None)
    return place


def rome_bundle(folder: Path) -> Path:
    """A copy of the bundle, for ONNX Runtime in fp32; the avatar behind it lies beside it as AVATAR."""
    source = Path(_exported().name)
    shutil.copy(source / AVATAR, folder / AVATAR)
    return shutil.copytree(source / "rome", folder / "rome")
