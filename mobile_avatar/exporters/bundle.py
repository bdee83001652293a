"""Bundles: an avatar, exported for one runtime, verified and described by its manifest."""

import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import torch

from mobile_avatar.avatar import Avatar
from mobile_avatar.benchmarking.estimate import budget
from mobile_avatar.errors import BadInput, CheckFailed
from mobile_avatar.exporters.recipes import Recipe
from mobile_avatar.exporters.registry import INTEGER, Request, find_target
from mobile_avatar.files import replace_folder, sha256
from mobile_avatar.graphs.deployment import WARPS
from mobile_avatar.graphs.frame_generator import plain
from mobile_avatar.graphs.layers import LAYERS, layer_table, save_layers
from mobile_avatar.graphs.onnx_graph import count, to_onnx
from mobile_avatar.graphs.rewrites import check_rewrites, rewrite
from mobile_avatar.graphs.rewrites.choice import default_rewrites
from mobile_avatar.graphs.spec import GraphSpec, graph_spec
from mobile_avatar.images import to_uint8, write_png
from mobile_avatar.quantization.calibration import load_calibration
from mobile_avatar.quantization.recipe import MixedRecipe
from mobile_avatar.rendering.shader import composite_shader, composite_vertex_shader
from mobile_avatar.rendering.tracks import varied_keypoints
from mobile_avatar.verification.fp16_range import fp16_warnings, ranges
from mobile_avatar.verification.manifest import FORMAT
from mobile_avatar.verification.parity import write_golden
from mobile_avatar.verification.verify import verify_files

CASES = 8


@dataclass(frozen=True)
class Plan:
    """What to export, with every default resolved."""

    target: str
    precision: str
    warp: str
    device: str
    options: dict = field(default_factory=dict)
    budget_ms: float | None = None
    calibration: Path | None = None
    """Keypoints that set the ranges of integer precisions; None: those of `calibration_data/`."""
    recipe: Path | None = None
    """Which layers `mixed` keeps above 8 bits."""
    quantize_io: bool = False
    rewrites: tuple[str, ...] | None = None
    """Exact rewrites of the graph (`graphs.rewrites.REWRITES`); None: those of the target."""

    def __post_init__(self) -> None:
        target = find_target(self.target)
        for word, value, known in (("precision", self.precision, target.precisions), ("warp", self.warp, target.warps)):
            if value not in known:
                raise BadInput(f"target {self.target} has no {word} {value!r}; choose one of {', '.join(known)}")
        for name in self.options:
            if name not in target.options:
                raise BadInput(f"target {self.target} has no option {name!r}; leave it out")
        if self.calibration and not self.integer:
            raise BadInput(f"--calibration sets the ranges of integers; {self.precision} has none, leave it out")
        if (self.recipe is not None) != (self.precision == "mixed"):
            raise BadInput(
                "--precision mixed and --recipe go together; `mobile-avatar quantize-report` writes a recipe"
            )
        if self.quantize_io and not (self.integer and target.quantize_io):
            raise BadInput(
                f"{self.target} in {self.precision} has no integer inputs and outputs; leave --quantize-io out"
            )
        if self.rewrites is not None:
            check_rewrites(self.rewrites)

    @property
    def chosen_rewrites(self) -> tuple[str, ...]:
        """The rewrites in the order in which they are applied."""
        return default_rewrites(self.target) if self.rewrites is None else check_rewrites(self.rewrites)

    @property
    def chip(self) -> str:
        """What the budget is for: the chip that a context binary was asked for, else the recipe's."""
        return (self.options.get("socs") or [self.device])[0]

    @property
    def halves(self) -> bool:
        """Whether the graph computes in half precision; a gather warp is for CPUs, which compute in float32."""
        return self.precision == "fp16" and self.warp != "gather"

    @property
    def integer(self) -> bool:
        """Whether the graph computes with integers, so that it has to be calibrated."""
        return self.precision in INTEGER


def plan_from_recipe(deployment: Recipe, /, **overrides: object) -> Plan:
    """A plan from a deployment recipe; overrides that are None keep the recipe's choice."""
    values = {
        "target": deployment.target,
        "precision": deployment.precision,
        "warp": deployment.warp,
        "device": deployment.name,
        "options": deployment.options,
    }
    return Plan(**values | {key: value for key, value in overrides.items() if value is not None})


def export_bundle(avatar: Avatar, plan: Plan, output: Path, say: Callable[[str], None] = print) -> dict:
    """Export, verify and describe; `output` appears only when everything is written.

    A bundle whose checks failed is kept, with `passed: false` in its manifest, so that it can be examined.

    Args:
        say: receives one plain line per step.

    Returns:
        The manifest.
    """
    target = find_target(plan.target)
    spec = graph_spec(plan.warp, avatar.size, target.layout)
    generator = rewrite(avatar.generator, plan.chosen_rewrites)
    module = WARPS[plan.warp](generator, avatar.texture, target.layout).eval()
    with replace_folder(output) as folder:
        say(f"converting to {target.title}, {plan.precision}, {plan.warp} warp")
        metadata = {
            "name": "mobile-avatar",
            "description": "Neural head avatar: 68 keypoints in, one frame out. Synthetic media.",
            "version": importlib.metadata.version("mobile-avatar"),
            "author": "made with mobile-avatar",
            "license": avatar.facts["license"],
            "synthetic_media": "true",
            "avatar": json.dumps(avatar.describe(), sort_keys=True),
            "keypoints": "68 points, iBUG order, x0 y0 x1 y1 ..., [-1, 1] of the crop, y down",
        }
        request = Request(module, spec, plan.precision, plan.warp, folder, metadata, plan.options)
        quantization = {}
        if plan.integer:
            calibration = load_calibration(plan.calibration)
            keep = keep_layers(plan.recipe, avatar)
            request = replace(request, calibration=calibration.keypoints, keep=keep, quantize_io=plan.quantize_io)
            quantization = {"calibration": calibration.describe(), "keep": list(keep)}
        product = target.convert(request)
        spec = spec.with_integers(product.integers)
        _write_texture(folder, avatar.texture)
        if plan.warp == "split":
            (folder / "composite.frag").write_text(composite_shader())
            (folder / "composite.vert").write_text(composite_vertex_shader())
        keypoints = varied_keypoints(CASES, seed=0, neutral=avatar.source_keypoints.numpy())
        # From the avatar as it is: what the rewrites lose, if anything, counts against the file.
        reference = WARPS[plan.warp](avatar.generator, avatar.texture, target.layout).eval()
        write_golden(folder, keypoints, golden_outputs(avatar, reference, spec, keypoints))
        graph = _as_onnx(avatar, generator, plan.warp)
        parameters, macs = count(graph)
        _, macs_plain = count(_as_onnx(avatar, plain(avatar.generator), plan.warp))
        layers = layer_table(graph)
        save_layers(layers, folder / LAYERS)
        warnings = fp16_warnings(ranges(module, load_calibration().keypoints)) if plan.halves else []
        manifest = {
            "format": FORMAT,
            "avatar": avatar.describe(),
            "target": plan.target,
            "precision": plan.precision,
            "warp": plan.warp,
            "device": plan.device,
            "inputs": [tensor.to_dict() for tensor in spec.inputs],
            "outputs": [tensor.to_dict() for tensor in spec.outputs],
            "roles": product.files,
            "files": hash_files(folder),
            "parameters": parameters,
            "macs": macs,
            "macs_plain": macs_plain,
            "rewrites": list(plan.chosen_rewrites),
            "budget": budget(layers, plan.target, plan.precision, plan.warp, plan.chip, plan.budget_ms),
            "tools": product.tools
            | {"mobile-avatar": importlib.metadata.version("mobile-avatar"), "torch": torch.__version__},
            "quantization": quantization | product.quantization,
            "notes": [*product.notes, *warnings],
            "license": avatar.facts["license"],
            "synthetic_media": True,
        }
        say(f"verifying on {CASES} keypoint vectors")
        manifest |= verify_files(folder, manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return manifest


def judge(manifest: dict, strict: bool = False, gate_budget: bool = False) -> None:
    """Raise CheckFailed with one sentence when a check of the manifest failed.

    Args:
        strict: a check that could not run counts as failed.
        gate_budget: an estimate over the budget counts as failed.
    """
    bad = (False, None) if strict else (False,)
    failed = [row for row in manifest["parity"] if row["passed"] in bad]
    rows = [f"{row['output']} {row['psnr_db']} dB" for row in failed if row["psnr_db"] is not None]
    rows += sorted({row["reason"] for row in failed if row["psnr_db"] is None})
    rows += [
        f"{c['name']}: {c['detail']}" for c in manifest["checks"] if c["passed"] in bad and c["detail"] not in rows
    ]
    limit = manifest["budget"]
    if gate_budget and limit["passed"] in bad:
        if limit["estimate_ms"] is None:
            rows.append(f"no estimate for the budget: {limit['method']}")
        else:
            what = f"estimate {limit['estimate_ms']} ms ({limit['low_ms']} to {limit['high_ms']})"
            rows.append(f"{what} for a budget of {limit['budget_ms']} ms on {limit['device']}")
    if rows:
        raise CheckFailed("check failed: " + "; ".join(rows))


@torch.no_grad()
def golden_outputs(avatar: Avatar, module: torch.nn.Module, spec: GraphSpec, keypoints: np.ndarray) -> dict:
    """What torch FP32 computes: every output in the target's layout, and the composited image as NHWC."""
    frames = []
    for row in torch.from_numpy(keypoints)[:, None]:
        outputs = module(row)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        frame = {tensor.name: value.numpy() for tensor, value in zip(spec.outputs, outputs, strict=True)}
        if "image" not in frame:
            image = avatar.render(row).image.clamp(-1, 1)
            frame["image"] = image.permute(0, 2, 3, 1).numpy()
        frames.append(frame)
    return {name: np.concatenate([frame[name] for frame in frames]) for name in frames[0]}


def keep_layers(recipe: Path | None, avatar: Avatar) -> tuple[str, ...]:
    """Layers that a recipe keeps above 8 bits; BadInput when it is not for this avatar."""
    if recipe is None:
        return ()
    found = MixedRecipe.load(recipe)
    found.check([name for name, _ in avatar.generator.named_modules()], recipe)
    return found.keep


def _write_texture(folder: Path, texture: torch.Tensor) -> None:
    """texture.f16: raw little-endian FP16, NHWC, for the texture unit; texture.png: the same to look at, clamped."""
    texture[0].permute(1, 2, 0).numpy().astype("<f2").tofile(folder / "texture.f16")
    write_png(folder / "texture.png", to_uint8(texture[0]))


def hash_files(folder: Path) -> list[dict]:
    """`manifest["files"]`: path, SHA-256 and size of everything in the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        {"path": path.relative_to(folder).as_posix(), "sha256": sha256(path), "bytes": path.stat().st_size}
        for path in paths
    ]


def _as_onnx(avatar: Avatar, generator: torch.nn.Module, warp: str) -> onnx.ModelProto:
    module = WARPS[warp](generator, avatar.texture, "NCHW").eval()
    return to_onnx(module, graph_spec(warp, avatar.size, "NCHW"))
