"""Make the shipped files from finished training runs: python -m mobile_avatar.assets.make NAME RUN/weights.safetensors

`compact`: the weights in FP16, and the avatar of one synthetic person whom training never saw. `mobile`: what a student
of `compact` has that its teacher has not.
"""

import sys
from pathlib import Path

import torch

from mobile_avatar.avatar import avatar_facts
from mobile_avatar.creation import Source, create_avatar, write_contact_sheet
from mobile_avatar.data.synthetic import SyntheticHeads
from mobile_avatar.keypoints.landmark_image import draw_landmarks
from mobile_avatar.models.bilayer.weights import load_weights, save_weights

HERE = Path(__file__).parent
PERSON = 226  # looks straight ahead, almost smiling
REFINE_STEPS = 200


def make_mobile(weights: Path) -> None:
    """Write mobile.safetensors beside the weights it was distilled from."""
    model, facts = load_weights(weights)
    save_weights(model, HERE / "mobile.safetensors", facts, half=True, base=HERE / "compact.safetensors")


def make_compact(weights: Path) -> None:
    """Write compact.safetensors, default.avatar and its contact sheet beside this file."""
    model, facts = load_weights(weights)
    shipped = HERE / "compact.safetensors"
    save_weights(model, shipped, facts, half=True)
    model, facts = load_weights(shipped)
    size = model.config.image_size
    batch = SyntheticHeads(size, "test").sample([PERSON], 1)
    keypoints = batch.keypoints[0, 0]
    landmarks = torch.from_numpy(draw_landmarks(keypoints.numpy(), size))
    source = Source(batch.images[0, 0], batch.masks[0, 0], keypoints, landmarks)
    facts = avatar_facts(shipped, facts, None) | {"person": f"synthetic, test identity {PERSON}"}
    created = create_avatar(model, source, facts, refine_steps=REFINE_STEPS)
    created.avatar.save(HERE / "default.avatar")
    write_contact_sheet(created, source, HERE / "default.png")
    print({stage: round(value, 2) for stage, value in created.psnr.items()})


if __name__ == "__main__":
    {"compact": make_compact, "mobile": make_mobile}[sys.argv[1]](Path(sys.argv[2]))
