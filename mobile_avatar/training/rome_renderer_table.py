"""How close a compact renderer comes to its teacher and to the truth, on people who were not trained on, as a table.

python -m mobile_avatar.training.rome_renderer_table --weights FILE --renderer FILE
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mobile_avatar.cli.common import failing_in_a_sentence, print_json, print_table, say
from mobile_avatar.data.synthetic import SyntheticHeads
from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.appearance import Appearance
from mobile_avatar.models.rome.appearance_weights import load_appearance
from mobile_avatar.models.rome.blocks import fold_standardisation
from mobile_avatar.models.rome.compact_renderer import COLOURS, FEATURES, CompactRenderer
from mobile_avatar.models.rome.networks import RomeNetworks
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.models.rome.weights import load_weights
from mobile_avatar.training.metrics import Driven, pixel_metrics
from mobile_avatar.training.rome_heads import RomeClips, draw_people, head_clips
from mobile_avatar.training.rome_renderer_sheet import write_renderer_sheet
from mobile_avatar.training.rome_renderer_teacher import Teacher, taught_and_seen

PEOPLE, SEEDS = 20, (0,)
SHEET_PEOPLE = 6
FRAMES = {"photo": slice(0, 1), "driven": slice(1, 3), "turned": slice(3, 5)}
"""Which frames of a person: that of the photo; others of ordinary pose; and views with yaw to 75 degrees, from so far
away that they have no perspective, which the mesh avatar has not either."""
TURNED = 2
HEADER = ("compared", "frames", "PSNR dB", "+- people", "SSIM", "mask IoU", "people", "photo seeds")
OFFICIAL_SIZE = 256  # pixels a side: what published numbers of MACs are given for


class Shown(NamedTuple):
    """Pictures (n, 3, S, S) and masks (n, 1, S, S) in [0, 1]."""

    image: Tensor
    mask: Tensor


@dataclass(frozen=True)
class RendererRow:
    """Means over people, seeds and frames of what one is compared with the other."""

    compared: str
    """The second is right: its mask is put before both."""
    frames: str
    """A key of FRAMES."""
    psnr: float
    """In dB inside the mask."""
    spread: float
    """Standard deviation of the PSNR over people."""
    ssim: float
    """Mean inside the mask."""
    mask_iou: float
    """Overlap of both masks."""
    people: int
    seeds: tuple[int, ...]
    """Of the frames; the people are the first of the test split, by number."""


def unseen_frames(size: int, people: int, seed: int) -> RomeClips:
    """The frames of FRAMES of the first people of the test split."""
    count = FRAMES["turned"].stop
    drawn = draw_people(range(people), count, "test", seed, outlines=TURNED)
    return head_clips(SyntheticHeads(size, "test").render(drawn.identity, drawn.frames, count), drawn)


@torch.no_grad()
def renderer_table(
    networks: RomeNetworks, student: Appearance, people: int = PEOPLE, seeds: Sequence[int] = SEEDS
) -> list[RendererRow]:
    """A row per comparison and kind of frame, the student against its teacher first.

    Args:
        networks: of the teacher, made for the synthetic head.
        student: in eval mode; pictures have its renderer's size.
        people: how many of the test split.
        seeds: of their frames; means go over all of them.
    """
    teacher = Teacher(networks, synthetic_head(), student.renderer.config.image_size)
    found: dict[tuple[str, str], list[Tensor]] = {}
    for seed in seeds:
        clips = unseen_frames(teacher.size, people, seed)
        frames = clips.images.shape[1]
        lesson, features = taught_and_seen(teacher, student, clips)
        own = Shown(*student(features))
        taught, truth = Shown(lesson.image, lesson.mask), Shown(clips.images.flatten(0, 1), clips.masks.flatten(0, 1))
        points = clips.keypoints.flatten(0, 1).flatten(1)
        for name, (shown, goal) in {
            "student to teacher": (own, taught),
            "teacher to truth": (taught, truth),
            "student to truth": (own, truth),
        }.items():
            scores = pixel_metrics(Driven(2 * shown.image - 1, shown.mask, 2 * goal.image - 1, goal.mask, points))
            rows = torch.stack([scores[key].float() for key in ("psnr_masked", "ssim_masked", "mask_iou")])
            for kind, part in FRAMES.items():
                found.setdefault((name, kind), []).append(rows.unflatten(1, (people, frames))[:, :, part])
    table = []
    for (name, kind), parts in found.items():
        values = torch.cat(parts, dim=2)  # (3, people, frames of all seeds)
        psnr, ssim, iou = values.mean((1, 2)).tolist()
        spread = float(values[0].mean(1).std()) if people > 1 else 0.0
        table.append(RendererRow(name, kind, psnr, spread, ssim, iou, people, tuple(seeds)))
    return table


def work(networks: RomeNetworks, renderer: CompactRenderer, size: int) -> dict[str, tuple[int, int]]:
    """Parameters of both networks and multiply-accumulates per frame of `size` pixels, counted from their graphs."""
    unet = fold_standardisation(networks.part("rendering_unet")).eval()
    return {
        "teacher": _counted(unet, networks.config.map_channels, size),
        "student": _counted(renderer.fold(), FEATURES, size),
    }


def _counted(network: nn.Module, channels: int, size: int) -> tuple[int, int]:
    from mobile_avatar.graphs.onnx_graph import count, to_onnx
    from mobile_avatar.graphs.spec import GraphSpec, TensorSpec

    limits = (-1.0, 1.0)  # they are not looked at here
    inputs = (TensorSpec("features", (1, channels, size, size), "NCHW", limits),)
    outputs = (TensorSpec("rgba", (1, COLOURS, size, size), "NCHW", limits),)
    _, macs = count(to_onnx(network, GraphSpec(inputs, outputs)))
    return sum(parameter.numel() for parameter in network.parameters()), macs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="the teacher: ROME weights for synthetic heads")
    parser.add_argument("--renderer", type=Path, required=True, help="what `train rome-renderer` made of it")
    parser.add_argument("--people", type=int, default=PEOPLE, help="unseen heads")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of their frames")
    parser.add_argument("--sheet", type=Path, help="also write a picture: truth, teacher, student, difference, masks")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    given = parser.parse_args()
    with failing_in_a_sentence():
        _print(given)


def _print(given: argparse.Namespace) -> None:
    if given.people < 1:
        raise BadInput(f"{given.people} people make no table; use 1 or more")
    (networks, _), (student, facts) = load_weights(given.weights), load_appearance(given.renderer)
    size = student.renderer.config.image_size
    rows = renderer_table(networks, student, given.people, given.seeds)
    costs = {side: work(networks, student.renderer, side) for side in dict.fromkeys((size, OFFICIAL_SIZE))}
    if given.sheet:
        clips = unseen_frames(size, min(given.people, SHEET_PEOPLE), given.seeds[0])
        write_renderer_sheet(given.sheet, Teacher(networks, synthetic_head(), size), student, clips)
    if given.json:
        told = {"renderer": str(given.renderer), "facts": facts, "rows": [asdict(row) for row in rows]}
        print_json(told | _told(costs))
        return
    say(f"{given.renderer}: {facts.get('trained_on', 'unknown training')}; people test 0 to {given.people - 1}")
    cells = [[round(value, 3) if isinstance(value, float) else value for value in asdict(row).values()] for row in rows]
    print_table(HEADER, [[*row[:-1], ",".join(map(str, row[-1]))] for row in cells])
    lines = [
        (name, side, f"{parameters:,}", round(macs / 1e9, 3))
        for side, both in costs.items()
        for name, (parameters, macs) in both.items()
    ]
    print_table(("renderer", "pixels", "parameters", "GMAC"), lines)


def _told(costs: dict[int, dict[str, tuple[int, int]]]) -> dict:
    names = ("parameters", "macs")
    return {
        "work": [
            {"renderer": name, "size": side} | dict(zip(names, pair, strict=True))
            for side, both in costs.items()
            for name, pair in both.items()
        ]
    }


if __name__ == "__main__":
    main()
