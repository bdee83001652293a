"""Bundles of several graphs: what each graph is, and the draw call between two of them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mobile_avatar.files import inside
from mobile_avatar.reporting.clean import mapping, number, rows, text
from mobile_avatar.reporting.contents import Contents, read_contents
from mobile_avatar.reporting.verdicts import File
from mobile_avatar.verification.manifest import belongs

WHAT = {
    "encoder": "the camera's picture → expression, rotations of head and jaw, camera",
    "mesh": "these codes → places and normals of the drawn vertices",
    "renderer": "what was drawn → colours and mask of the frame",
}
IN_THE_APP = {"corners": "mesh", "uv": "mesh", "texture": "texture"}
"""Files of the draw call that an app uploads, and how the page calls them."""


@dataclass(frozen=True)
class GraphFacts:
    """One graph of a frame."""

    name: str
    what: str
    precision: str
    path: str
    bytes: int
    macs: float | None
    parameters: float | None
    tensors: tuple[dict, ...]
    """Inputs, then outputs, as the manifest describes them."""
    contents: Contents


@dataclass(frozen=True)
class DrawFacts:
    """The draw call between mesh and renderer."""

    vertices: int
    triangles: int
    size: int
    files: tuple[tuple[str, str, str, str], ...]
    """(path, shape, type, meaning)."""
    shaders: tuple[str, ...]


def read_graphs(folder: Path, manifest: dict, files: list[File]) -> tuple[GraphFacts, ...]:
    """The graphs in the order of a frame; a file that is not as it was exported is not opened."""
    found = []
    for row in manifest["graphs"]:
        path = row["roles"]["model"]
        own = [file for file in files if belongs(file.path, path)]
        wrong = [file.wrong for file in own if file.wrong]
        contents = Contents(reason=f"not opened: {wrong[0]}") if wrong else None
        found.append(
            GraphFacts(
                name=row["name"],
                what=WHAT[row["name"]],
                precision=row["precision"],
                path=text(path, 200),
                bytes=sum(file.bytes for file in own),
                macs=number(row.get("macs")),
                parameters=number(row.get("parameters")),
                tensors=(*rows(row["inputs"]), *rows(row["outputs"])),
                contents=contents or read_contents(inside(folder, path), text(manifest["target"], 40), 0),
            )
        )
    return tuple(found)


def all_contents(graphs: tuple[GraphFacts, ...]) -> Contents:
    """What all files hold together; not counted where one of them is not."""
    reason = next((f"{graph.name}: {graph.contents.reason}" for graph in graphs if graph.contents.reason), "")
    if reason:
        return Contents(reason=reason)
    operators, constants = Counter(), Counter()
    for graph in graphs:
        operators.update(graph.contents.operators)
        constants.update(graph.contents.constants)
    return Contents(dict(operators.most_common()), dict(constants))


def read_draw_call(manifest: dict) -> DrawFacts:
    """From the manifest, whose sizes were checked when it was read."""
    draw, config = manifest["draw"], manifest["avatar"]["config"]
    files = [
        (text(row["file"], 200), _shape(row), text(row.get("dtype"), 20), text(row.get("meaning")))
        for row in mapping(draw).values()
        if isinstance(row, dict)
    ]
    shaders = [text(entry["path"], 200) for entry in manifest["files"] if _is_shader(entry["path"])]
    size = config["renderer"]["image_size"]
    return DrawFacts(config["vertices"], config["triangles"], size, tuple(files), tuple(shaders))


def parts_of(manifest: dict) -> dict[str, str]:
    """Path -> which part of an app it is, of the files beside the models."""
    draw = {row["file"]: name for name, row in manifest["draw"].items() if isinstance(row, dict)}
    found = {path: IN_THE_APP[name] for path, name in draw.items() if name in IN_THE_APP}
    return found | {entry["path"]: "shader" for entry in manifest["files"] if _is_shader(entry["path"])}


def _is_shader(path: str) -> bool:
    return path.endswith((".vert", ".frag"))


def _shape(row: dict) -> str:
    shape = row.get("shape")
    return " × ".join(text(side, 12) for side in shape) if isinstance(shape, list) else ""
