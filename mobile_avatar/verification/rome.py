"""Verify a bundle of several graphs: each file for itself, then a whole frame with the draw call done on the host."""

from pathlib import Path

import numpy as np

from mobile_avatar.errors import CheckFailed, MissingTool
from mobile_avatar.exporters.rome_data import Draw, read_draw
from mobile_avatar.graphs.spec import TensorSpec
from mobile_avatar.verification.parity import THRESHOLDS, Parity, compare, run_cases, unmeasured
from mobile_avatar.verification.rome_manifest import spec_of_graph
from mobile_avatar.verification.runners import Check, Exported, Runner
from mobile_avatar.verification.verify import changed_files, open_unchanged, read_golden

PICTURE_THRESHOLDS = {"fp32": 35.0, "fp16": 30.0}
"""Gates in dB of pictures with a draw call before them. A vertex that moves by a thousandth of a pixel may change on
which side of an outline a pixel is, and one such pixel of 64 x 64 takes 100 dB down to 40."""
LARGEST_SHIFT = {"fp32": 0.05, "fp16": 1.0}
"""Pixels by which an encoder in this precision may move the mesh."""
BETWEEN = "the software rasteriser in between"


def verify_graphs(folder: Path, manifest: dict) -> dict:
    """Rows for the manifest: `parity` (one per output, with its `graph`, and pictures) and `checks`.

    Nothing here trusts the manifest's numbers. A file that is damaged or cannot run here is told in the rows;
    CheckFailed is raised when the golden or the draw call's files are damaged.
    """
    folder = Path(folder)
    changed = changed_files(folder, manifest["files"])
    checks = [Check("file hashes", not changed, "; ".join(changed.values()) or f"{len(manifest['files'])} files")]
    parity, runners = [], {}
    for graph in manifest["graphs"]:
        rows, made = _verify_graph(folder, manifest["target"], graph, changed)
        parity += [row.to_dict() | {"graph": graph["name"]} for row in rows]
        if isinstance(made, Check):
            checks.append(made)
        else:
            runners[graph["name"]] = made
            checks += [Check(f"{graph['name']}: {check.name}", check.passed, check.detail) for check in made.checks]
    rows, more = _verify_pictures(folder, manifest, runners)
    return {"parity": parity + rows, "checks": [vars(check) for check in checks + more]}


def _verify_graph(
    folder: Path, target: str, graph: dict, changed: dict[str, str]
) -> tuple[list[Parity], Runner | Check]:
    """One row per output; and the runner, or the check that says why there is none."""
    spec, precision, place = spec_of_graph(graph), graph["precision"], f"golden/{graph['name']}"
    (source,) = spec.inputs
    inputs = read_golden(folder, source, place)
    golden = {tensor.name: read_golden(folder, tensor, place) for tensor in spec.outputs}
    threshold = THRESHOLDS[precision]
    files = {role: folder / path for role, path in graph["roles"].items()}
    try:
        runner = open_unchanged(target, Exported(folder, files, spec, precision, graph["warp"]), changed)
        results = run_cases(runner, inputs)
    except (MissingTool, CheckFailed) as error:
        passed = False if isinstance(error, CheckFailed) else None
        rows = [unmeasured(t, "none", len(inputs), threshold, passed, str(error)) for t in spec.outputs]
        return rows, Check(f"{graph['name']}: the file runs", passed, str(error))
    return [compare(t, runner.name, results[t.name], golden[t.name], threshold) for t in spec.outputs], runner


def _verify_pictures(folder: Path, manifest: dict, runners: dict[str, Runner]) -> tuple[list[dict], list[Check]]:
    """The exported files one after another, with the draw call between them.

    `drawn` goes from codes to the picture. `frame` goes from the camera's image to the picture, in fp32 only: in half
    precision the codes shift the picture as a whole by a fraction of a pixel, which a difference of pictures punishes
    and nobody sees. So that is judged in pixels.
    """
    specs = {graph["name"]: spec_of_graph(graph) for graph in manifest["graphs"]}
    (rgba,), (codes,) = specs["renderer"].outputs, specs["mesh"].inputs
    threshold, plain = PICTURE_THRESHOLDS[manifest["precision"]], manifest["precision"] == "fp32"
    chains = {"drawn": (read_golden(folder, codes, "golden/mesh"), read_golden(folder, rgba, "golden/renderer"))}
    found = read_golden(folder, codes, "golden/encoder")
    if "encoder" in runners:
        images = read_golden(folder, specs["encoder"].inputs[0], "golden/encoder")
        expected, found = found, run_cases(runners["encoder"], images)["codes"]
    if plain:
        chains["frame"] = (found, read_golden(folder, rgba, "golden/frame"))
    rows, checks, draw = [], [], read_draw(folder, manifest)
    for name, (inputs, golden) in chains.items():
        needed = [graph for graph in specs if graph != "encoder" or name == "frame"]
        missing = [graph for graph in needed if graph not in runners]
        picture = TensorSpec(name, rgba.shape, rgba.layout, rgba.range)
        if missing:
            # Whether that is a failure is told by the graph's own rows.
            reason = f"the {missing[0]} did not run, so there is no picture"
            row = unmeasured(picture, "none", len(golden), threshold, None, reason)
        else:
            names = " + ".join(dict.fromkeys(runners[graph].name for graph in needed))
            pictures = np.concatenate([_picture(runners, rgba.layout, draw, row[None]) for row in inputs])
            row = compare(picture, f"{names}, {BETWEEN}", pictures, golden, threshold)
        rows.append(row.to_dict() | {"graph": "frame"})
    if {"encoder", "mesh"} <= set(runners):
        positions = [run_cases(runners["mesh"], values)["positions"][..., :2] for values in (expected, found)]
        pixels = float(np.abs(positions[1] - positions[0]).max()) * draw.size / 2
        limit = LARGEST_SHIFT[manifest["precision"]]
        detail = f"by {pixels:.2g} pixels at most (gate {limit:g})"
        checks.append(Check("encoder: its codes move the mesh", pixels <= limit, detail))
    return rows, checks


def _picture(runners: dict[str, Runner], layout: str, draw: Draw, codes: np.ndarray) -> np.ndarray:
    mesh = run_cases(runners["mesh"], codes)
    features = draw.features(mesh["positions"], mesh["normals"])
    if layout == "NHWC":
        features = features.transpose(0, 2, 3, 1)
    return run_cases(runners["renderer"], np.ascontiguousarray(features))["rgba"]
