"""The facts of a bundle: its manifest, its files executed again, stored measurements and the estimate."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from mobile_avatar.benchmarking.estimate_graphs import estimate_rows
from mobile_avatar.benchmarking.gate import RANK
from mobile_avatar.benchmarking.result import Result
from mobile_avatar.benchmarking.store import newest, stored_results
from mobile_avatar.benchmarking.subject import open_subject
from mobile_avatar.errors import BadInput, CheckFailed, MobileAvatarError
from mobile_avatar.exporters.registry import find_target
from mobile_avatar.exporters.rome_data import read_draw
from mobile_avatar.files import inside
from mobile_avatar.reporting.clean import mapping, number, rows, text, texts
from mobile_avatar.reporting.contents import Contents, read_contents
from mobile_avatar.reporting.frames import Frames, make_frames, texture_picture
from mobile_avatar.reporting.graphs import (
    DrawFacts,
    GraphFacts,
    all_contents,
    parts_of,
    read_draw_call,
    read_graphs,
)
from mobile_avatar.reporting.latency import Group, figure, group
from mobile_avatar.reporting.rome_frames import examine_graphs, layers_of, neural_texture
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
    """Empty where a frame takes several graphs: they warp nothing, the draw call samples the texture."""
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
    estimates: tuple[Result, ...] = ()
    """Of several graphs, one row each; `estimate` is that of the frame."""
    graphs: tuple[GraphFacts, ...] = ()
    """Of bundles of several graphs, in the order of a frame."""
    draw: DrawFacts | None = None
    frames_from: str = ""
    """Of several graphs, where the frames begin."""

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
        own = [row for row in self.results if row.own_file and row.whole and figure(row)[1] is not None]
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
    several = "graphs" in manifest
    config = manifest["avatar"]["config"]
    size = config["renderer"]["image_size"] if several else config["image_size"]
    if type(size) is not int or not 1 <= size <= LARGEST_IMAGE:
        raise BadInput(f"{folder}: images of {text(size, 20)} pixels; a report takes up to {LARGEST_IMAGE}")
    if several and sensitivity is not None:
        raise BadInput(f"{folder} is of a ROME avatar, which has no integer precisions; leave --sensitivity out")
    found = None if sensitivity is None else read_sensitivity(Path(sensitivity), manifest["avatar"])
    files = _files(folder, manifest)
    verified, frames_from, trouble = _examine(folder, manifest)
    kept_back = verified is not None and not verified.results and _only_others_changed(files, manifest)
    parity_rows = _parity(verified, manifest, kept_back)
    checks = rows(verified.checks) if verified else [{"name": "golden files", "passed": False, "detail": trouble}]
    if kept_back:
        checks = [row | {"passed": None} if row["name"].endswith("the file runs") else row for row in checks]
    frames, texture = Frames(), ""
    if verified is not None:
        layout = "NHWC" if several else manifest["outputs"][0]["layout"]
        frames = make_frames(verified.golden, verified.results, layout)
        if several:
            frames = replace(frames, layers=layers_of(verified, frames.frames[-1].case))
    with contextlib.suppress(CheckFailed):  # the file is then in the list of those that are wrong
        shown = neural_texture(read_draw(folder, manifest)) if several else read_texture(folder, size)
        texture = texture_picture(shown)
    device = text(mapping(manifest.get("budget")).get("device"), 80) or "snapdragon-855"
    results, estimates, notes, estimate_reason = _times(folder, device)
    estimate = estimates[-1] if estimates else None
    graphs = read_graphs(folder, manifest, files) if several else ()
    return Facts(
        folder=folder,
        name=text(folder.resolve().name, 120) or "bundle",
        person=text(manifest["avatar"].get("person"), 120),
        target=text(manifest["target"], 40),
        precision=manifest["precision"],
        warp="" if several else manifest["warp"],
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
        contents=all_contents(graphs) if several else _contents(folder, manifest, files, size),
        frames=frames,
        frames_reason=trouble or _why_no_frames(verified, frames),
        texture=texture,
        groups=tuple(group(results)),
        measurement_notes=tuple(notes),
        estimate=estimate,
        estimate_reason=estimate_reason,
        sensitivity=found,
        verified=verified,
        estimates=estimates[:-1],
        graphs=graphs,
        draw=read_draw_call(manifest) if several else None,
        frames_from=frames_from,
    )


def _examine(folder: Path, manifest: dict) -> tuple[Verified | None, str, str]:
    """What was found, where the frames of several graphs begin, and why nothing could be used."""
    try:
        if "graphs" in manifest:
            return *examine_graphs(folder, manifest), ""
        return examine(folder, manifest), "", ""
    except CheckFailed as error:
        return None, "", text(str(error))


def roles_of(manifest: dict) -> list[tuple[str, str]]:
    """(role, path) of all graphs of a bundle."""
    return [pair for graph in manifest.get("graphs", [manifest]) for pair in graph["roles"].items()]


def _only_others_changed(files: list[File], manifest: dict) -> bool:
    """Whether the model is as exported, but a file beside it that checking needs is not, so that nothing was run."""
    changed = [file for file in files if file.wrong]
    needed = any(belongs(file.path, role) for file in changed for _, role in roles_of(manifest))
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


def _times(folder: Path, device: str) -> tuple[list[Result], tuple[Result, ...], list[str], str]:
    """Stored rows, rows of the estimate, notes about rows that are left out, and why there is no estimate."""
    try:
        subject = open_subject(folder)
    except BadInput as error:
        reason = text(str(error).removeprefix(f"{folder}: "))
        return [], (), [f"No measurement counts: {reason}"], reason
    stored, notes = stored_results(subject)
    try:
        found = estimate_rows(subject, device)
    except MobileAvatarError as error:
        return newest(stored), (), notes, text(str(error).removeprefix(f"{folder}: "))
    return newest(stored), () if found[-1].error else found, notes, text(found[-1].error)


def _files(folder: Path, manifest: dict) -> list[File]:
    changed = changed_files(folder, manifest["files"])
    models = [path for role, path in roles_of(manifest) if role == "model"]
    several = "graphs" in manifest
    parts = {"texture.f16": "texture", "composite.frag": "shader", "composite.vert": "shader"}
    parts = parts_of(manifest) if several else parts
    found = []
    for entry in manifest["files"]:
        path = inside(folder, entry["path"])
        own = any(belongs(entry["path"], model) for model in models)
        part = "model" if own else parts.get(entry["path"], "checks")
        # In a graph that warps by itself the texture lies in the model.
        part = "checks" if part == "texture" and not several and manifest["warp"] != "split" else part
        bytes_ = path.stat().st_size if path.is_file() else 0
        found.append(File(text(entry["path"], 200), bytes_, part, text(changed.get(entry["path"], ""))))
    order = ("model", "texture", "mesh", "shader", "checks")
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
