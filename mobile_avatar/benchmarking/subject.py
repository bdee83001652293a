"""What is measured: a bundle, opened and checked once for all places."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobile_avatar.errors import BadInput
from mobile_avatar.files import inside
from mobile_avatar.graphs.spec import GraphSpec, TensorSpec
from mobile_avatar.verification.manifest import belongs, read_manifest, spec_of
from mobile_avatar.verification.verify import changed_files, read_golden


@dataclass(frozen=True)
class Subject:
    """A bundle whose model file is the one that was exported."""

    folder: Path
    manifest: dict
    spec: GraphSpec
    files: dict[str, Path] = field(repr=False)
    """Role -> absolute path inside the folder; `model` is the file that the phone loads."""
    model_sha256: str

    @property
    def target(self) -> str:
        return self.manifest["target"]

    @property
    def precision(self) -> str:
        return self.manifest["precision"]

    @property
    def warp(self) -> str:
        return self.manifest["warp"]

    def golden(self, tensor: TensorSpec) -> np.ndarray:
        """(T, ...) float32 golden values of one input or output; CheckFailed when the file is damaged."""
        return read_golden(self.folder, tensor)


def open_subject(folder: Path) -> Subject:
    """Open a bundle.

    Raises:
        BadInput: not a bundle, or its model file is missing or is not the one that was exported.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    files = {role: inside(folder, name) for role, name in manifest["roles"].items()}
    return Subject(folder, manifest, spec_of(manifest), files, _checked_hash(folder, manifest))


def _checked_hash(folder: Path, manifest: dict) -> str:
    """SHA-256 of the model file (of the listed hashes where it is a folder), after comparing it with the manifest."""
    role = manifest["roles"]["model"]
    entries = [entry for entry in manifest["files"] if belongs(entry["path"], role)]
    changed = changed_files(folder, entries)
    if changed or not entries:
        what = next(iter(changed.values()), f"{role} is not in its list of files")
        raise BadInput(f"{folder}: {what}; export the bundle again")
    if len(entries) == 1:
        return entries[0]["sha256"]
    return hashlib.sha256(
        "".join(sorted(f"{entry['path']} {entry['sha256']}\n" for entry in entries)).encode()
    ).hexdigest()
