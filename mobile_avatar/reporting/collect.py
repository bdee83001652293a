"""The facts of a bundle: its manifest, its files executed again, stored measurements and the estimate."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from mobile_avatar.benchmarking.estimate import estimate_result
from mobile_avatar.benchmarking.gate import RANK
from mobile_avatar.benchmarking.result import Result
from mobile_avatar.benchmarking.store import newest, stored_results
from mobile_avatar.benchmarking.subject import open_subject
from mobile_avatar.errors import BadInput, CheckFailed, MobileAvatarError
from mobile_avatar.exporters.registry import find_target
from mobile_avatar.files import inside
from mobile_avatar.reporting.clean import mapping, number, rows, text, texts
from mobile_avatar.reporting.contents import Contents, read_contents
from mobile_avatar.reporting.frames import Frames, make_frames, texture_picture
from mobile_avatar.reporting.latency import Group, figure, group
from mobile_avatar.reporting.sensitivity import Sensitivity, read_sensitivity
from mobile_avatar.reporting.verdicts import File, Verdict, budget_verdict, hash_verdict, parity_verdict
from mobile_avatar.verification.manifest import belongs, read_manifest
from mobile_avatar.verification.verify import Verified, changed_files, examine, read_texture

LARGEST_IMAGE = 2048
"""Side in pixels that a page takes; real avatars have 128 to 512."""


@dataclass(frozen=True)
class Facts:
    """Everything a page says about one bundle. Texts of the manifest are clean; they still need escaping."""

    folder: Path
    name: str
    person: str
    target: str
    precision: str
    warp: str
    device: str
    size: int
    manifest: dict
    parity: Verdict
    hashes: Verdict
    budget: Verdict
    parity_rows: tuple[dict, ...]
    """Of this run of the file; `recorded` holds the row of the export where that says something else."""
    checks: tuple[dict, ...]
    notes: tuple[str, ...]
    files: tuple[File, ...]
    contents: Contents
    frames: Frames
    frames_reason: str
    """Why the file drew nothing here."""
    texture: str
    """A `data:` address, or empty."""
    groups: tuple[Group, ...]
    measurement_notes: tuple[str, ...]
    estimate: Result | None
    estimate_reason: str
    sensitivity: Sensitivity | None
    verified: Verified | None

    @property
    def executed(self) -> bool:
        """Whether the model file ran for this page."""
        return self.verified is not None and bool(self.verified.results)

    @property
    def app_bytes(self) -> int:
        """What an app carries: model, texture, shader."""
        return sum(file.bytes for file in self.files if file.part != "checks")

    @property
    def model_bytes(self) -> int:
        return sum(file.bytes for file in self.files if file.part == "model")

    @property
    def best(self) -> Result | None:
        """The figure to show first: of the best kind, the fastest of the bundle's own file."""
        own = [row for row in self.results if row.own_file and figure(row)[1] is not None]
        return min(own, key=lambda row: (RANK.index(row.kind), figure(row)[1]), default=self.estimate)

    @property
    def results(self) -> list[Result]:
        """Measured and simulated rows."""
        return [row.result for found in self.groups for row in found.rows]


def collect(folder: Path, sensitivity: Path | None = None) -> Facts:
    """Read a bundle, execute its file on the golden cases and gather what is known about its speed.

    A damaged model or golden file is a fact to show. BadInput is raised for what is no bundle or what no page
    can be made of.

    Args:
        sensitivity: folder that `quantize-report` wrote, or None.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    find_target(manifest["target"])
    size = manifest["avatar"]["config"]["image_size"]
    if type(size) is not int or not 1 <= size <= LARGEST_IMAGE:
        raise BadInput(f"{folder}: images of {text(size, 20)} pixels; a report takes up to {LARGEST_IMAGE}")
    found = None if sensitivity is None else read_sensitivity(Path(sensitivity), manifest["avatar"])
    files = _files(folder, manifest)
    verified, trouble = _examine(folder, manifest)
    kept_back = verified is not None and not verified.results and _only_others_changed(files, manifest)
    parity_rows = _parity(verified, manifest, kept_back)
    checks = rows(verified.checks) if verified else [{"name": "golden files", "passed": False, "detail": trouble}]
    if kept_back:
        checks = [row | {"passed": None} if row["name"] == "the file runs" else row for row in checks]
    frames, texture = Frames(), ""
    if verified is not None:
        frames = make_frames(verified.golden, verified.results, manifest["outputs"][0]["layout"])
    with contextlib.suppress(CheckFailed):  # the file is then in the list of those that are wrong
        texture = texture_picture(read_texture(folder, size))
    device = text(mapping(manifest.get("budget")).get("device"), 80) or "snapdragon-855"
    results, estimate, notes, estimate_reason = _times(folder, device)
    return Facts(
        folder=folder,
        name=text(folder.resolve().name, 120) or "bundle",
        person=text(manifest["avatar"].get("person"), 120),
        target=text(manifest["target"], 40),
        precision=manifest["precision"],
        warp=manifest["warp"],
        device=text(manifest.get("device"), 80),
        size=size,
        manifest=manifest,
        parity=parity_verdict(manifest["precision"], parity_rows, checks, trouble, files),
        hashes=hash_verdict(files),
        budget=budget_verdict(manifest, device, results, (estimate, estimate_reason), notes),
        parity_rows=tuple(parity_rows),
        checks=tuple(checks),
        notes=tuple(texts(manifest.get("notes"))),
        files=tuple(files),
        contents=_contents(folder, manifest, files, size),
        frames=frames,
        frames_reason=trouble or _why_no_frames(verified, frames),
        texture=texture,
        groups=tuple(group(results)),
        measurement_notes=tuple(notes),
        estimate=estimate,
        estimate_reason=estimate_reason,
        sensitivity=found,
        verified=verified,
    )


def _examine(folder: Path, manifest: dict) -> tuple[Verified | None, str]:
    try:
        return examine(folder, manifest), ""
    except CheckFailed as error:
        return None, text(str(error))


def _only_others_changed(files: list[File], manifest: dict) -> bool:
    """Whether the model is as exported, but a file beside it that checking needs is not, so that nothing was run."""
    changed = [file for file in files if file.wrong]
    needed = any(belongs(file.path, role) for file in changed for role in manifest["roles"].values())
    return needed and not any(file.part == "model" for file in changed)


def _parity(verified: Verified | None, manifest: dict, kept_back: bool) -> list[dict]:
    """Rows of this run, each with what the export recorded where this machine says something else.

    Args:
        kept_back: the model is as exported and was not run all the same; that is no failure of it.
    """
    recorded = {text(row.get("output")): row for row in rows(manifest.get("parity"))}
    if verified is None:
        return []
    found = []
    for row in verified.parity:
        before = recorded.get(row["output"], {})
        then, now = number(before.get("psnr_db")), row["psnr_db"]
        differs = then is not None and (now is None or abs(then - now) > 0.1)
        found.append(row | {"recorded": before if differs else None} | ({"passed": None} if kept_back else {}))
    return found


def _times(folder: Path, device: str) -> tuple[list[Result], Result | None, list[str], str]:
    """Stored rows, the estimate, notes about rows that are left out, and why there is no estimate."""
    try:
        subject = open_subject(folder)
    except BadInput as error:
        reason = text(str(error).removeprefix(f"{folder}: "))
        return [], None, [f"No measurement counts: {reason}"], reason
    stored, notes = stored_results(subject)
    try:
        row = estimate_result(subject, device)
    except MobileAvatarError as error:
        return newest(stored), None, notes, text(str(error).removeprefix(f"{folder}: "))
    return newest(stored), None if row.error else row, notes, text(row.error)


def _files(folder: Path, manifest: dict) -> list[File]:
    changed = changed_files(folder, manifest["files"])
    model = manifest["roles"]["model"]
    parts = {"texture.f16": "texture", "composite.frag": "shader", "composite.vert": "shader"}
    found = []
    for entry in manifest["files"]:
        path = inside(folder, entry["path"])
        part = "model" if belongs(entry["path"], model) else parts.get(entry["path"], "checks")
        # In a graph that warps by itself the texture lies in the model.
        part = "checks" if part == "texture" and manifest["warp"] != "split" else part
        bytes_ = path.stat().st_size if path.is_file() else 0
        found.append(File(text(entry["path"], 200), bytes_, part, text(changed.get(entry["path"], ""))))
    order = ("model", "texture", "shader", "checks")
    return sorted(found, key=lambda file: (order.index(file.part), -file.bytes))


def _contents(folder: Path, manifest: dict, files: list[File], size: int) -> Contents:
    wrong = [file.wrong for file in files if file.part == "model" and file.wrong]
    if wrong:
        return Contents(reason=f"not opened: {wrong[0]}")
    return read_contents(inside(folder, manifest["roles"]["model"]), text(manifest["target"], 40), size)


def _why_no_frames(verified: Verified | None, frames: Frames) -> str:
    if verified is None or frames.frames[0].exported:
        return ""
    return next((text(row["reason"]) for row in verified.parity if row.get("reason")), "its image is not of this size")
