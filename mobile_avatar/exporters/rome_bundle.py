"""Bundles of ROME avatars: three graphs, and the files and shaders of the draw call between them."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import torch

from mobile_avatar.benchmarking.estimate import budget
from mobile_avatar.errors import BadInput
from mobile_avatar.exporters.bundle import Plan, hash_files
from mobile_avatar.exporters.registry import Request, Target, find_target
from mobile_avatar.exporters.rome_data import write_draw
from mobile_avatar.exporters.rome_golden import VARIED, golden_frames, write_golden_frames
from mobile_avatar.files import replace_folder
from mobile_avatar.graphs.layers import LAYERS, layer_table, save_layers
from mobile_avatar.graphs.onnx_graph import count, to_onnx
from mobile_avatar.graphs.rome import Graph, rome_graphs
from mobile_avatar.models.rome.avatar import RomeAvatar
from mobile_avatar.rendering.shader import mesh_shader, mesh_vertex_shader
from mobile_avatar.verification.fp16_range import fp16_warnings, ranges
from mobile_avatar.verification.manifest import GRAPHS_FORMAT
from mobile_avatar.verification.rome import verify_graphs
from mobile_avatar.verification.rome_manifest import FLOATS

ON_CPU = ("mesh",)
BUDGET_NOTE = ", and the mesh graph, which the CPU computes"
MESH_NOTE = (
    "mesh: float32 in every precision, for the CPU. It costs under a thousandth of a frame, half precision moves "
    "vertices by two tenths of a pixel, and GPU delegates take no gathers"
)


def export_rome_bundle(avatar: RomeAvatar, plan: Plan, output: Path, say: Callable[[str], None] = print) -> dict:
    """Export, verify and describe; `output` appears only when everything is written.

    A bundle whose checks failed is kept, so that it can be examined; `bundle.judge` raises for it.

    Args:
        plan: its warp is not used, as the draw call samples the texture; precisions are fp32 and fp16.
        say: receives one plain line per step.

    Returns:
        The manifest, of format GRAPHS_FORMAT.

    Raises:
        BadInput: a precision or rewrite that ROME avatars do not have.
    """
    if plan.precision not in FLOATS or plan.rewrites:
        raise BadInput(f"a ROME avatar is exported in {' or '.join(FLOATS)}, and its graphs have no rewrites")
    target = find_target(plan.target)
    license_text = avatar.facts.get("license", "unknown")
    with replace_folder(output) as folder:
        say("drawing golden frames")
        golden = golden_frames(avatar, target.layout)
        rows, tools, layers = [], {}, ()
        for graph in rome_graphs(avatar, target.layout):
            say(f"converting the {graph.name} to {target.title}")
            row, used = _export(graph, target, plan, folder, _metadata(avatar, graph, license_text))
            model = to_onnx(graph.module, graph.spec)
            row["parameters"], row["macs"] = count(model)
            if graph.name not in ON_CPU:
                layers += layer_table(model)
            if row["precision"] == "fp16":
                (source,) = graph.spec.inputs
                row["notes"] += fp16_warnings(ranges(graph.module, golden[graph.name][source.name]))
            rows.append(row)
            tools |= used
        save_layers(layers, folder / LAYERS)
        limit = budget(layers, plan.target, plan.precision, "split", plan.device, plan.budget_ms)
        limit["method"] += BUDGET_NOTE
        draw = write_draw(folder, avatar)
        (folder / "mesh.vert").write_text(mesh_vertex_shader())
        (folder / "mesh.frag").write_text(mesh_shader())
        if plan.precision != "fp32":
            del golden["frame"]  # not judged, see verification.rome
        write_golden_frames(folder, golden)
        own = {"mobile-avatar": importlib.metadata.version("mobile-avatar"), "torch": torch.__version__}
        manifest = {
            "format": GRAPHS_FORMAT,
            "avatar": avatar.describe(),
            "target": plan.target,
            "precision": plan.precision,
            "device": plan.device,
            "graphs": rows,
            "draw": draw,
            "files": hash_files(folder),
            "parameters": sum(row["parameters"] for row in rows),
            "macs": sum(row["macs"] for row in rows),
            "budget": limit,
            "tools": tools | own,
            "notes": [MESH_NOTE, *(f"{row['name']}: {note}" for row in rows for note in row["notes"])],
            "license": license_text,
            "synthetic_media": True,
        }
        say(f"verifying on {len(VARIED)} frames")
        manifest |= verify_graphs(folder, manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return manifest


def _export(graph: Graph, target: Target, plan: Plan, folder: Path, metadata: dict) -> tuple[dict, dict[str, str]]:
    """The manifest's row of one graph, and the tools that made its file."""
    precision, options = plan.precision, plan.options
    if graph.name in ON_CPU:
        # Nor is it compiled for an NPU.
        precision, options = "fp32", {name: value for name, value in options.items() if name != "socs"}
    request = Request(graph.module, graph.spec, precision, graph.warp, folder, metadata, options, name=graph.name)
    product = target.convert(request)
    row = {
        "name": graph.name,
        "precision": precision,
        "warp": graph.warp,
        "inputs": [tensor.to_dict() for tensor in graph.spec.inputs],
        "outputs": [tensor.to_dict() for tensor in graph.spec.outputs],
        "roles": product.files,
        "notes": list(product.notes),
    }
    return row, product.tools


def _metadata(avatar: RomeAvatar, graph: Graph, license_text: str) -> dict[str, str]:
    return {
        "name": f"mobile-avatar {graph.name}",
        "description": f"The {graph.name} of a mesh avatar (linear ROME). Synthetic media.",
        "version": importlib.metadata.version("mobile-avatar"),
        "author": "made with mobile-avatar",
        "license": license_text,
        "synthetic_media": "true",
        "avatar": json.dumps(avatar.describe(), sort_keys=True),
    }
