"""Verify a bundle of several graphs: each file for itself, then a whole frame with the draw call done on the host."""

from pathlib import Path

import numpy as np

from mobile_avatar.errors import CheckFailed, MissingTool
from mobile_avatar.exporters.rome_data import Draw, read_draw
from mobile_avatar.graphs.spec import GraphSpec, TensorSpec
from mobile_avatar.verification.parity import THRESHOLDS, Parity, compare, run_cases, unmeasured
from mobile_avatar.verification.rome_manifest import spec_of_graph
from mobile_avatar.verification.runners import Check, Exported, Runner
from mobile_avatar.verification.verify import changed_files, open_unchanged, read_golden

FRAME_THRESHOLDS = {"fp32": 50.0, "fp16": 30.0}
"""Gates of the picture from end to end. Along outlines a pixel changes sides when a vertex moves by a hundredth of one,
so codes in half precision cost more here than in any single graph."""
RUN_TIME = "the software rasteriser in between"


def verify_graphs(folder: Path, manifest: dict) -> dict:
    """Rows for the manifest: `parity` (one per output, with its `graph`, and the frame from end to end) and `checks`.

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
    frame = _verify_frame(folder, manifest, runners)
    parity.append(frame.to_dict() | {"graph": "frame"})
    return {"parity": parity, "checks": [vars(check) for check in checks]}


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


def _verify_frame(folder: Path, manifest: dict, runners: dict[str, Runner]) -> Parity:
    """The exported files one after another, from the camera's frame to the picture."""
    specs = {graph["name"]: spec_of_graph(graph) for graph in manifest["graphs"]}
    (rgba,) = specs["renderer"].outputs
    picture = TensorSpec("frame", rgba.shape, rgba.layout, rgba.range)
    images = read_golden(folder, specs["encoder"].inputs[0], "golden/encoder")
    golden = read_golden(folder, rgba, "golden/frame")
    threshold = FRAME_THRESHOLDS[manifest["precision"]]
    missing = [name for name in specs if name not in runners]
    if missing:
        # Whether that is a failure is told by the graph's own rows.
        reason = f"the {missing[0]} did not run, so there is no frame"
        return unmeasured(picture, "none", len(images), threshold, None, reason)
    draw = read_draw(folder, manifest)
    frames = [_frame(runners, specs, draw, image[None]) for image in images]
    names = " + ".join(dict.fromkeys(runner.name for runner in runners.values()))
    return compare(picture, f"{names}, {RUN_TIME}", np.concatenate(frames), golden, threshold)


def _frame(runners: dict[str, Runner], specs: dict[str, GraphSpec], draw: Draw, image: np.ndarray) -> np.ndarray:
    codes = run_cases(runners["encoder"], image)["codes"]
    mesh = run_cases(runners["mesh"], codes)
    features = draw.features(mesh["positions"], mesh["normals"])
    if specs["renderer"].inputs[0].layout == "NHWC":
        features = features.transpose(0, 2, 3, 1)
    return run_cases(runners["renderer"], np.ascontiguousarray(features))["rgba"]
