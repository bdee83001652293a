"""What is measured: a bundle, opened and checked once for all places."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobile_avatar.errors import BadInput
from mobile_avatar.files import inside
from mobile_avatar.graphs.spec import GraphSpec, TensorSpec
from mobile_avatar.verification.manifest import GRAPHS_FORMAT, belongs, judged_tensors, read_manifest, spec_of
from mobile_avatar.verification.verify import changed_files, read_golden


@dataclass(frozen=True)
class Subject:
    """A bundle whose model file is the one that was exported, or one graph of a bundle of several."""

    folder: Path
    manifest: dict
    """Of a graph: the bundle's, with what is the graph's own (precision, warp, inputs, outputs, roles) in its place."""
    spec: GraphSpec
    """Of a bundle of several graphs: what goes into the first and comes out of the last."""
    files: dict[str, Path] = field(repr=False)
    """Role -> absolute path inside the folder; `model` is the file that the phone loads. None of a bundle of several
    graphs: look into `graphs`."""
    model_sha256: str
    """Of a bundle of several graphs: over the hashes of their files."""
    name: str = ""
    """Which graph of a bundle of several it is; empty for a whole bundle."""
    graphs: tuple["Subject", ...] = ()
    """The graphs of a bundle of several, in the order of a frame; empty where there is one."""

    @property
    def target(self) -> str:
        return self.manifest["target"]

    @property
    def precision(self) -> str:
        return self.manifest["precision"]

    @property
    def warp(self) -> str:
        return self.manifest["warp"]

    @property
    def judged(self) -> list[TensorSpec]:
        """What is compared with golden values: outputs, and the image that a split bundle is composed to."""
        return list(self.spec.outputs) if self.name else judged_tensors(self.manifest)

    @property
    def composed(self) -> bool:
        """Whether an image is composed of the outputs by the app, as it is compared here."""
        return not self.name and self.warp == "split"

    @property
    def hashes(self) -> set[str]:
        """Hashes that results of this bundle may carry."""
        return {self.model_sha256, *(graph.model_sha256 for graph in self.graphs)}

    def golden(self, tensor: TensorSpec) -> np.ndarray:
        """(T, ...) float32 golden values of one input or output; CheckFailed when the file is damaged."""
        return read_golden(self.folder, tensor, f"golden/{self.name}" if self.name else "golden")


def open_subject(folder: Path) -> Subject:
    """Open a bundle.

    Raises:
        BadInput: not a bundle, or its model file is missing or is not the one that was exported.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest["format"] != GRAPHS_FORMAT:
        return _open(folder, manifest)
    graphs = tuple(_open(folder, manifest | row, row["name"]) for row in manifest["graphs"])
    spec = GraphSpec(graphs[0].spec.inputs, graphs[-1].spec.outputs)
    whole = _together(f"{graph.name} {graph.model_sha256}" for graph in graphs)
    return Subject(folder, manifest, spec, {}, whole, graphs=graphs)


def _open(folder: Path, manifest: dict, name: str = "") -> Subject:
    files = {role: inside(folder, path) for role, path in manifest["roles"].items()}
    return Subject(folder, manifest, spec_of(manifest), files, _checked_hash(folder, manifest), name)


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
    return _together(f"{entry['path']} {entry['sha256']}" for entry in entries)


def _together(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(f"{line}\n" for line in lines)).encode()).hexdigest()
