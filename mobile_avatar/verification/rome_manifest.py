"""What a manifest of several graphs has to hold: every field that verification uses is checked."""

import math

from mobile_avatar.graphs.spec import GraphSpec, TensorSpec
from mobile_avatar.verification.parity import THRESHOLDS

GRAPHS = ("encoder", "mesh", "renderer")
FLOATS = ("fp32", "fp16")
LARGEST = 1_000_000
MOST_PIXELS = 4096  # a side


def spec_of_graph(graph: dict) -> GraphSpec:
    """Inputs and outputs of one graph as the manifest describes them."""
    return GraphSpec(*(tuple(TensorSpec.from_dict(row) for row in graph[key]) for key in ("inputs", "outputs")))


def check_graphs(manifest: dict) -> list[str]:
    """Raise on the first field that is missing or wrong; returns every path that the manifest names."""
    # Not above: it brings torch along, and readers of single-graph manifests do without.
    from mobile_avatar.graphs.rome import rome_specs

    config = manifest["avatar"]["config"]
    counts = [config["vertices"], config["triangles"], config["expressions"]]
    sides = [config["renderer"]["image_size"], *manifest["draw"]["texture"]["shape"][1:3]]
    if any(type(n) is not int or not 1 <= n <= LARGEST for n in counts):
        raise ValueError("sizes of the mesh")
    if any(type(n) is not int or not 1 <= n <= MOST_PIXELS for n in sides):
        raise ValueError("sizes of pictures")
    if not math.isfinite(config["texture_limit"]):
        raise ValueError("texture_limit")
    graphs = manifest["graphs"]
    if tuple(graph["name"] for graph in graphs) != GRAPHS:
        raise ValueError("graphs")
    specs = {graph["name"]: spec_of_graph(graph) for graph in graphs}
    if specs != rome_specs(config, specs["renderer"].inputs[0].layout):
        raise ValueError("inputs or outputs do not belong to this avatar")
    for graph in [*graphs, manifest]:
        if graph["precision"] not in FLOATS or graph["precision"] not in THRESHOLDS:
            raise ValueError(f"precision {graph['precision']}")
    if not all("model" in graph["roles"] and isinstance(graph["warp"], str) for graph in graphs):
        raise ValueError("no model")
    if not all(isinstance(entry["sha256"], str) for entry in manifest["files"]):
        raise ValueError("sha256")
    roles = [path for graph in graphs for path in graph["roles"].values()]
    data = [entry["file"] for entry in manifest["draw"].values() if isinstance(entry, dict)]
    return [*roles, *data, *(entry["path"] for entry in manifest["files"])]
