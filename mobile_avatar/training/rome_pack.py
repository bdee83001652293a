"""Pack what ROME avatars are made with into the one file that `create --model rome` reads.

python -m mobile_avatar.training.rome_pack --networks FILE --renderer FILE -o rome.safetensors
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from mobile_avatar.avatar import UNKNOWN_LICENSE
from mobile_avatar.cli.common import failing_in_a_sentence, print_json, print_table
from mobile_avatar.errors import BadInput
from mobile_avatar.files import check_output, sha256
from mobile_avatar.models.rome.appearance_weights import load_appearance
from mobile_avatar.models.rome.avatar import RomeAvatar, RomeFrame
from mobile_avatar.models.rome.avatar_weights import AvatarWeights, load_avatar_weights, save_avatar_weights
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.models.rome.weights import load_weights
from mobile_avatar.rome_creation import read_person
from mobile_avatar.training.rome_heads import RomeClips, unseen_clips

PEOPLE = 4
"""Unseen synthetic people on whom the packed networks are compared with the given ones."""


def pack(networks: Path, renderer: Path) -> AvatarWeights:
    """The weights of a `linear-rome` file and of a renderer's file together; the texture encoder is the renderer's.

    Raises:
        BadInput: a file is missing, damaged or of another kind, or they do not fit each other.
    """
    parts, about = load_weights(networks)
    appearance, other = load_appearance(renderer)
    if appearance.config != replace(parts.config, frame_size=appearance.config.frame_size):
        raise BadInput(f"{renderer} was trained with other networks than {networks}; distil a renderer of these")
    parts.part("texture_encoder").load_state_dict(appearance.texture_encoder.state_dict())
    licenses = dict.fromkeys(facts.get("license", UNKNOWN_LICENSE) for facts in (about, other))
    facts = {
        "license": "; ".join(licenses),
        "networks_sha256": sha256(networks),
        "renderer_sha256": sha256(renderer),
    }
    trained = {"trained_on": about.get("trained_on"), "renderer_trained_on": other.get("trained_on")}
    return AvatarWeights(parts, appearance.renderer, facts | {key: value for key, value in trained.items() if value})


@torch.no_grad()
def differences(given: AvatarWeights, packed: AvatarWeights) -> dict[str, float]:
    """What storing costs, on PEOPLE synthetic people: the largest difference of offsets in millimetres and of a vertex
    in the picture in pixels, and the largest mean difference of a picture in [0, 1]."""
    size = given.renderer.config.image_size
    clips = unseen_clips(size, PEOPLE, 1)
    worst = {"offsets_mm": 0.0, "vertices_px": 0.0, "picture": 0.0}
    for number in range(PEOPLE):
        (mesh, first), (other, second) = (_person(weights, clips, number) for weights in (given, packed))
        offsets = (mesh.mesh.offsets - other.mesh.offsets).norm(dim=1).max() * 1000
        moved = (first.positions - second.positions)[..., :2].norm(dim=-1).max() * size / 2
        # Each drawn from the same codes: a moved outline would hide what the renderer does.
        drawn = [avatar.render(mesh.source_codes[None]).rgba for avatar in (mesh, other)]
        picture = (drawn[0] - drawn[1]).abs().mean()
        for name, value in zip(worst, (offsets, moved, picture), strict=True):
            worst[name] = max(worst[name], float(value))
    return worst


def _person(weights: AvatarWeights, clips: RomeClips, number: int) -> tuple[RomeAvatar, RomeFrame]:
    """An avatar of one of the people, and its own frame as its encoder reads it."""
    seen = (clips.images[number, :1], clips.masks[number, :1], clips.keypoints[number, :1])
    read = read_person(weights, synthetic_head(), *seen, weights.facts)
    return read.avatar, read.avatar.render(read.encoder_codes[None])


def main() -> None:
    """Pack, read back, compare, and say what storing cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=Path, required=True, help="weights of `mobile-avatar train linear-rome`")
    parser.add_argument("--renderer", type=Path, required=True, help="weights of the distilled renderer")
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--full", action="store_true", help="store everything in full precision")
    parser.add_argument("--force", action="store_true", help="replace an existing output")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    given = parser.parse_args()
    with failing_in_a_sentence():
        check_output(given.output, given.force, inputs=(given.networks, given.renderer))
        weights = pack(given.networks, given.renderer)
        save_avatar_weights(weights, given.output, half=not given.full)
        cost = differences(weights, load_avatar_weights(given.output))
    result = {"weights": str(given.output), "bytes": given.output.stat().st_size, **weights.facts, **cost}
    if given.json:
        print_json(result)
    else:
        print_table(
            ("", ""), [(key, f"{value:.3g}" if isinstance(value, float) else value) for key, value in result.items()]
        )


if __name__ == "__main__":
    main()
