"""Verify a bundle: execute the exported file itself and compare it with torch's golden outputs."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobile_avatar.errors import CheckFailed, MissingTool
from mobile_avatar.exporters.registry import find_target
from mobile_avatar.files import inside, sha256
from mobile_avatar.graphs.spec import GraphSpec, TensorSpec
from mobile_avatar.rendering.composite import composite
from mobile_avatar.verification.manifest import belongs, judged_tensors, spec_of
from mobile_avatar.verification.parity import THRESHOLDS, compare, run_cases, unmeasured
from mobile_avatar.verification.runners import Check, Exported, Runner, open_runner


@dataclass(frozen=True)
class Verified:
    """A bundle that was examined: what the manifest says of it, and the arrays behind that."""

    parity: list[dict]
    """One row per output, and one for the composited image of a split bundle."""
    checks: list[dict]
    golden: dict[str, np.ndarray] = field(repr=False)
    """Name -> (T, ...) float32 of the input, the outputs and the image."""
    results: dict[str, np.ndarray] = field(repr=False)
    """The same names without the input, as the file computed them; empty when it did not run."""


def verify_files(folder: Path, manifest: dict) -> dict:
    """Rows for the manifest: `parity` (one per output, and the composited image of a split bundle) and `checks`."""
    verified = examine(folder, manifest)
    return {"parity": verified.parity, "checks": verified.checks}


def examine(folder: Path, manifest: dict) -> Verified:
    """Execute the exported file on every golden case.

    Nothing here trusts the manifest's numbers: golden files are read, the model file is executed. A file that is
    damaged or cannot run here is told in the rows; CheckFailed is raised when the golden files are damaged.
    """
    folder = Path(folder)
    changed = changed_files(folder, manifest["files"])
    detail = "; ".join(changed.values()) or f"{len(manifest['files'])} files"
    checks = [Check("file hashes", not changed, detail)]
    spec = spec_of(manifest)
    threshold = THRESHOLDS[manifest["precision"]]
    wanted = judged_tensors(manifest)
    golden = {tensor.name: read_golden(folder, tensor) for tensor in (*spec.inputs, *wanted)}
    if len({len(array) for array in golden.values()}) != 1:
        raise CheckFailed(f"{folder}/golden: the files hold different numbers of cases; export the bundle again")
    exported = Exported(
        folder,
        {role: inside(folder, name) for role, name in manifest["roles"].items()},
        spec,
        manifest["precision"],
        manifest["warp"],
    )
    try:
        runner = open_unchanged(manifest["target"], exported, changed)
        results = run_cases(runner, golden["keypoints"])
    except (MissingTool, CheckFailed) as error:
        passed = False if isinstance(error, CheckFailed) else None
        cases = len(golden["keypoints"])
        rows = [unmeasured(t, "none", cases, threshold, passed, str(error)).to_dict() for t in wanted]
        return Verified(rows, _rows([*checks, Check("the file runs", passed, str(error))]), golden, {})
    if manifest["warp"] == "split":
        results["image"] = composite_results(folder, spec, manifest["avatar"]["config"], results)
    rows = [compare(t, runner.name, results[t.name], golden[t.name], threshold).to_dict() for t in wanted]
    return Verified(rows, _rows([*checks, *runner.checks]), golden, results)


def open_unchanged(target: str, exported: Exported, changed: dict[str, str]) -> Runner:
    """The target's runner for files that are as they were exported; `changed` is what `changed_files` found.

    A runtime written in C++ may crash on a damaged file, so it never sees one: CheckFailed.
    """
    for name, what in changed.items():
        if any(belongs(name, path.relative_to(exported.folder).as_posix()) for path in exported.files.values()):
            raise CheckFailed(f"{what}, so it was not executed")
    return open_runner(find_target(target).runner, exported)


def composite_results(folder: Path, spec: GraphSpec, config: dict, results: dict[str, np.ndarray]) -> np.ndarray:
    """The frames (T, S, S, 3) an app would show: the runner's uv, lf and mask with the bundle's own texture file."""
    texture = read_texture(folder, config["image_size"])
    layers = {
        t.name: results[t.name].transpose(0, 2, 3, 1) if t.layout == "NCHW" else results[t.name] for t in spec.outputs
    }
    return composite(layers["uv"], layers["lf"], layers["mask"], texture, config["align_corners"]).clip(-1, 1)


def read_texture(folder: Path, size: int) -> np.ndarray:
    """The texture of a bundle as the app uploads it, (size, size, 3) float32; CheckFailed when it is damaged."""
    path = inside(folder, "texture.f16")
    try:
        return np.fromfile(path, "<f2").astype(np.float32).reshape(size, size, 3)
    except (OSError, ValueError) as error:
        raise CheckFailed(f"{path} is missing or damaged; export the bundle again") from error


def changed_files(folder: Path, files: list[dict]) -> dict[str, str]:
    """Path in the bundle -> what is wrong, for every file that is missing or not as it was exported."""
    changed = {}
    for entry in files:
        path = inside(folder, entry["path"])
        if not path.is_file():
            changed[entry["path"]] = f"{entry['path']} is missing"
        elif sha256(path) != entry["sha256"]:
            changed[entry["path"]] = f"{entry['path']} differs from what was exported"
    return changed


def read_golden(folder: Path, tensor: TensorSpec, place: str = "golden") -> np.ndarray:
    """Golden values of one input or output: (T, ...) float32 of the tensor's own shape, T at least 1.

    They are stored in `place` of the bundle; as float16 where they are numbers of half precision.

    Raises CheckFailed when the file is missing or damaged.
    """
    path = inside(folder, f"{place}/{tensor.name}.npy")
    try:
        array = np.load(path, allow_pickle=False)
        if array.dtype not in (np.float16, np.float32) or array.shape[1:] != tensor.shape[1:] or not len(array):
            raise ValueError(f"{array.dtype} {array.shape}")
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise CheckFailed(f"{path} is missing or damaged; export the bundle again") from error
    return array.astype(np.float32, copy=False)


def _rows(checks: list[Check]) -> list[dict]:
    return [{"name": check.name, "passed": check.passed, "detail": check.detail} for check in checks]
