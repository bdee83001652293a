"""Reading a bundle's manifest: every field that is used is checked first, and no path leads out of the folder."""

import json
import math
from dataclasses import replace
from pathlib import Path

from mobile_avatar.errors import BadInput
from mobile_avatar.files import inside
from mobile_avatar.graphs.spec import GraphSpec, TensorSpec, graph_spec, image_shape
from mobile_avatar.verification.parity import THRESHOLDS
from mobile_avatar.verification.rome_manifest import check_graphs

FORMAT = 1
GRAPHS_FORMAT = 2
"""Of bundles with several graphs, `manifest["graphs"]`, and a draw call in between: ROME avatars."""
INTEGERS = ("int8", "uint8", "int16", "uint16")


def read_manifest(folder: Path) -> dict:
    """The manifest of a bundle of either format; BadInput when it is missing, damaged or of a newer format."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise BadInput(f"{folder} is not a bundle (no manifest.json); make one with `mobile-avatar export`")
    try:
        manifest = json.loads(path.read_text())
        version = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is damaged; export the bundle again") from error
    if not isinstance(version, int) or version > GRAPHS_FORMAT:
        raise BadInput(f"{path} has format {version}, this program reads up to {GRAPHS_FORMAT}; update mobile-avatar")
    try:
        names = check_graphs(manifest) if version == GRAPHS_FORMAT else _check(manifest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is damaged ({error!r}); export the bundle again") from error
    for name in names:
        inside(Path(folder), name)
    return manifest


def spec_of(manifest: dict) -> GraphSpec:
    """Inputs and outputs as the manifest describes them."""
    return GraphSpec(*(tuple(TensorSpec.from_dict(row) for row in manifest[key]) for key in ("inputs", "outputs")))


def judged_tensors(manifest: dict) -> list[TensorSpec]:
    """What is compared with the golden files: the outputs, and last the image that a split bundle is composed to."""
    wanted = list(spec_of(manifest).outputs)
    if manifest["warp"] == "split":
        wanted.append(
            TensorSpec("image", image_shape(3, manifest["avatar"]["config"]["image_size"], "NHWC"), "NHWC", (-1.0, 1.0))
        )
    return wanted


def belongs(path: str, role: str) -> bool:
    """Whether a listed file is the file of a role, or lies in it where the role is a folder (.mlpackage)."""
    return f"{path}/".startswith(f"{role}/")


def _as_real(spec: GraphSpec) -> GraphSpec:
    """The spec with integers that were checked taken for the real numbers they stand for."""

    def change(tensor: TensorSpec) -> TensorSpec:
        if tensor.quantization is None:
            return tensor
        scale, _ = tensor.quantization
        if tensor.dtype not in INTEGERS or not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"quantization of {tensor.name}")
        return replace(tensor, dtype="float32", quantization=None)

    return GraphSpec(tuple(map(change, spec.inputs)), tuple(map(change, spec.outputs)))


def _check(manifest: dict) -> list[str]:
    """Raise on the first field that is missing or wrong; returns every path that the manifest names."""
    size = manifest["avatar"]["config"]["image_size"]
    spec = spec_of(manifest)
    if _as_real(spec) != graph_spec(manifest["warp"], size, spec.outputs[0].layout):
        raise ValueError("inputs or outputs do not belong to this warp")
    if manifest["precision"] not in THRESHOLDS:
        raise ValueError(f"precision {manifest['precision']}")
    if not isinstance(manifest["avatar"]["config"]["align_corners"], bool):
        raise ValueError("align_corners")
    if "model" not in manifest["roles"]:
        raise ValueError("no model")
    for entry in manifest["files"]:
        if not isinstance(entry["sha256"], str):
            raise ValueError("sha256")
    names = [*manifest["roles"].values(), *(entry["path"] for entry in manifest["files"])]
    if not all(isinstance(text, str) for text in (manifest["target"], *names)):
        raise ValueError("target, roles or paths")
    return names
