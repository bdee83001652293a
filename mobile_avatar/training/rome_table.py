"""How close meshes from one photo are to the true heads of people who were not trained on, as a table.

python -m mobile_avatar.training.rome_table --weights FILE
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from mobile_avatar.cli.common import failing_in_a_sentence, print_json, print_table, say
from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.model import Rome
from mobile_avatar.models.rome.networks import RomeNetworks
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.models.rome.weights import load_weights
from mobile_avatar.training.rome_codes import code_table
from mobile_avatar.training.rome_heads import RomeClips, unseen_clips
from mobile_avatar.training.rome_options import FRAME
from mobile_avatar.training.rome_person import photo_person, rest_mesh
from mobile_avatar.training.rome_truth import HeadErrors, head_errors, true_heads

PEOPLE, SEEDS = 20, (0,)
HEADER = ("mesh", "Chamfer mm", "+- heads", "relative", "hair mm", "hair relative", "heads", "photo seeds")
CODES_HEADER = ("read off frames", "unit", "error", "of the mean", "relative")


@dataclass(frozen=True)
class MeshRow:
    """A way to get a mesh and its mean errors over heads and photos; distances in millimetres."""

    mesh: str
    chamfer: float
    spread: float
    """Standard deviation of the Chamfer distance over the heads."""
    relative: float
    """Chamfer distance over that of the bare head."""
    hair: float
    """From the true hair to the mesh, heads with hair only."""
    hair_relative: float
    """The same over that of the bare head."""
    heads: int
    seeds: tuple[int, ...]
    """Of the photos: pose, expression and light; the people are the first of the test split, by number."""


def bare_head(networks: RomeNetworks, clips: RomeClips) -> Tensor:
    """Vertices (b, v, 3) of the head model with the given shape."""
    return _model(networks, "full").head.blended(clips.shape, torch.zeros_like(clips.expression[:, 0]))


def full_mesh(networks: RomeNetworks, clips: RomeClips) -> Tensor:
    """The full mode: the given shape, offsets from the photo through both geometry networks."""
    model = _model(networks, "full")
    return rest_mesh(model, photo_person(model, clips)).vertices


def average_mesh(networks: RomeNetworks, clips: RomeClips) -> Tensor:
    """The given shape with the mean of the linear basis: the same hair for everybody."""
    return bare_head(networks, clips) + networks.part("linear_basis").mean


def linear_mesh(networks: RomeNetworks, clips: RomeClips) -> Tensor:
    """The linear mode's offsets on the given shape."""
    return (
        bare_head(networks, clips)
        + _model(networks, "linear").linear_codes(clips.source(networks.config.image_size)[0])[1]
    )


def linear_own_shape(networks: RomeNetworks, clips: RomeClips) -> Tensor:
    """The linear mode as on a phone: the photo gives offsets and shape."""
    model = _model(networks, "linear")
    shape, offsets = model.linear_codes(clips.source(networks.config.image_size)[0])
    return model.head.blended(shape, torch.zeros_like(clips.expression[:, 0])) + offsets


MESHES: dict[str, tuple[Callable[[RomeNetworks, RomeClips], Tensor], tuple[str, ...]]] = {
    "bare head": (bare_head, ()),
    "average offsets": (average_mesh, ("linear_basis",)),
    "full": (full_mesh, ("texture_encoder", "geometry_unet", "vertex_mlp")),
    "linear, given shape": (linear_mesh, ("linear_basis", "basis_regressor")),
    "linear, own shape": (linear_own_shape, ("linear_basis", "basis_regressor")),
}
"""Name -> how vertices are made, and the parts it needs."""


@torch.no_grad()
def rome_table(networks: RomeNetworks, people: int = PEOPLE, seeds: Sequence[int] = SEEDS) -> list[MeshRow]:
    """A row per mesh that the networks can make, the bare head first; all in rest pose against the true heads.

    Args:
        networks: in eval mode, made for the synthetic head.
        people: how many of the test split.
        seeds: of their photos; means go over all of them.
    """
    truth, faces, size = true_heads(range(people)), synthetic_head().faces, networks.config.image_size
    errors: dict[str, list[list[HeadErrors]]] = {}
    for seed in seeds:
        clips = unseen_clips(size, people, 1, frame_seed=seed)
        for name, (make, needed) in MESHES.items():
            own_shape = name != "linear, own shape" or networks.config.photo_shape
            if set(needed) <= set(networks.parts) and own_shape:
                pairs = zip(make(networks, clips), truth, strict=True)
                errors.setdefault(name, []).append([head_errors(vertices, faces, true) for vertices, true in pairs])
    means = {name: _means(rows) for name, rows in errors.items()}
    bare = means["bare head"]
    return [
        MeshRow(name, chamfer, spread, chamfer / bare[0], hair, hair / bare[2], people, tuple(seeds))
        for name, (chamfer, spread, hair) in means.items()
    ]


def _means(rows: list[list[HeadErrors]]) -> tuple[float, float, float]:
    """Mean Chamfer distance, its deviation over the heads, mean distance of hair."""
    chamfer = torch.tensor([[error.chamfer for error in row] for row in rows])
    hair = [error.hair for row in rows for error in row if not math.isnan(error.hair)]
    spread = float(chamfer.mean(0).std()) if chamfer.shape[1] > 1 else 0.0
    return float(chamfer.mean()), spread, sum(hair) / len(hair) if hair else math.nan


def _model(networks: RomeNetworks, mode: str) -> Rome:
    return Rome(networks, synthetic_head(), mode).eval()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="ROME weights trained on synthetic heads")
    parser.add_argument("--people", type=int, default=PEOPLE, help="unseen heads")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of their photos")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    given = parser.parse_args()
    with failing_in_a_sentence():
        _print(given)


def _print(given: argparse.Namespace) -> None:
    if given.people < 1:
        raise BadInput(f"{given.people} people make no table; use 1 or more")
    networks, facts = load_weights(given.weights)
    rows = rome_table(networks, given.people, given.seeds)
    codes = code_table(networks, given.people) if FRAME in networks.parts else []
    if given.json:
        told = {"rows": [asdict(row) for row in rows], "codes": [asdict(row) for row in codes]}
        print_json({"weights": str(given.weights), "facts": facts} | told)
        return
    say(f"{given.weights}: {facts.get('trained_on', 'unknown training')}; people test 0 to {given.people - 1}")
    cells = [[round(value, 3) if isinstance(value, float) else value for value in asdict(row).values()] for row in rows]
    print_table(HEADER, [[*row[:-1], ",".join(map(str, row[-1]))] for row in cells])
    if codes:
        lines = [
            [value if isinstance(value, str) else round(value, 3) for value in asdict(row).values()] for row in codes
        ]
        print_table(CODES_HEADER, lines)


if __name__ == "__main__":
    main()
