"""Frames of a bundle of several graphs: its files one after another, with the draw call done in software."""

from pathlib import Path

import numpy as np

from mobile_avatar.errors import CheckFailed, MissingTool
from mobile_avatar.exporters.rome_data import Draw, read_draw
from mobile_avatar.files import inside
from mobile_avatar.graphs.spec import GraphSpec
from mobile_avatar.rendering.composite import to_rgb8
from mobile_avatar.reporting.frames import picture
from mobile_avatar.verification.parity import run_cases
from mobile_avatar.verification.rome import verify_graphs
from mobile_avatar.verification.rome_manifest import spec_of_graph
from mobile_avatar.verification.runners import Exported, Runner
from mobile_avatar.verification.verify import Verified, changed_files, open_unchanged, read_golden

CAMERA = "from the camera's picture, through all graphs"
CODES = "from the codes on, through mesh and renderer: in half precision codes that were found shift the whole picture"


def examine_graphs(folder: Path, manifest: dict) -> tuple[Verified, str]:
    """Execute the files on every golden case.

    Returns:
        What was found, and where its frames begin. Arrays are NHWC: `image` is the frame on white in [-1, 1], `input`
        the camera's picture, `features` what was drawn, `mask` the outline; `keypoints` are the codes, (T, ...).

    Raises:
        CheckFailed: the golden files, or those of the draw call, are damaged.
    """
    folder = Path(folder)
    found = verify_graphs(folder, manifest)
    specs = {row["name"]: spec_of_graph(row) for row in manifest["graphs"]}
    whole = (inside(folder, "golden/frame") / "rgba.npy").is_file()
    (rgba,), (codes,) = specs["renderer"].outputs, specs["mesh"].inputs
    last = read_golden(folder, rgba, "golden/frame" if whole else "golden/renderer")
    camera = read_golden(folder, specs["encoder"].inputs[0], "golden/encoder")
    golden = {
        "keypoints": read_golden(folder, codes, "golden/encoder" if whole else "golden/mesh"),
        "input": _channels_last(camera, specs["encoder"].inputs[0].layout) * 2 - 1,
        **_pictures(last, rgba.layout),
    }
    if len({len(array) for array in golden.values()}) != 1:
        raise CheckFailed(f"{folder}/golden: the files hold different numbers of cases; export the bundle again")
    try:
        runners = _runners(folder, manifest, specs)
    except (MissingTool, CheckFailed):  # told in the rows
        return Verified(found["parity"], found["checks"], golden, {}), CAMERA if whole else CODES
    inputs = run_cases(runners["encoder"], camera)["codes"] if whole else golden["keypoints"]
    results = _drawn(runners, read_draw(folder, manifest), specs["renderer"], inputs)
    return Verified(found["parity"], found["checks"], golden, results), CAMERA if whole else CODES


def layers_of(verified: Verified, case: int) -> tuple[tuple[str, str, str], ...]:
    """(name, what it shows, picture) of the stages of one case, as far as they are known."""
    source = verified.results or verified.golden
    shown = [("input", "what the camera sees, here a golden frame on white", verified.golden["input"][case])]
    if "features" in source:
        features = source["features"][case]
        textures = features[..., :3] / max(float(np.abs(features[..., :3]).max()), 1e-6)
        shown += [
            ("texture", "drawn: three of its eight channels, scaled to be shown", textures),
            ("normals", "drawn: x, y, z of the surface as red, green, blue", features[..., 8:11]),
            ("coverage", "drawn: where there is a face", _grey(features[..., 11:12])),
        ]
    shown.append(("mask", "of the renderer: head (white) and background", _grey(source["mask"][case])))
    return tuple((name, what, picture(to_rgb8(np.nan_to_num(array)))) for name, what, array in shown)


def neural_texture(draw: Draw) -> np.ndarray:
    """(S, S, 3) in [-1, 1]: the first three of eight channels, scaled to be shown."""
    channels = np.nan_to_num(draw.texture[0, :3].permute(1, 2, 0).numpy())
    return channels / max(float(np.abs(channels).max()), 1e-6)


def _runners(folder: Path, manifest: dict, specs: dict[str, GraphSpec]) -> dict[str, Runner]:
    changed = changed_files(folder, manifest["files"])
    runners = {}
    for row in manifest["graphs"]:
        files = {role: inside(folder, path) for role, path in row["roles"].items()}
        exported = Exported(folder, files, specs[row["name"]], row["precision"], row["warp"])
        runners[row["name"]] = open_unchanged(manifest["target"], exported, changed)
    return runners


def _drawn(runners: dict[str, Runner], draw: Draw, renderer: GraphSpec, codes: np.ndarray) -> dict[str, np.ndarray]:
    """The stages of all cases from codes on."""
    mesh = run_cases(runners["mesh"], codes)
    pairs = zip(mesh["positions"], mesh["normals"], strict=True)
    features = np.concatenate([draw.features(positions[None], normals[None]) for positions, normals in pairs])
    features = features.transpose(0, 2, 3, 1)
    (source,), (rgba,) = renderer.inputs, renderer.outputs
    values = features.transpose(0, 3, 1, 2) if source.layout == "NCHW" else features
    made = run_cases(runners["renderer"], np.ascontiguousarray(values))["rgba"]
    return {"features": features, **_pictures(made, rgba.layout)}


def _pictures(rgba: np.ndarray, layout: str) -> dict[str, np.ndarray]:
    """`image` on white and `mask`, from colours that are not multiplied by it."""
    found = _channels_last(rgba, layout)
    colours, mask = found[..., :3], found[..., 3:]
    return {"image": (colours * mask + 1 - mask) * 2 - 1, "mask": mask}


def _channels_last(image: np.ndarray, layout: str) -> np.ndarray:
    return image.transpose(0, 2, 3, 1) if layout == "NCHW" else image


def _grey(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask * 2 - 1, 3, axis=-1)
