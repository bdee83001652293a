"""Golden values of a ROME bundle: what torch FP32 computes for varied frames, graph by graph and from end to end."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobile_avatar.exporters.rome_data import half
from mobile_avatar.images import resized
from mobile_avatar.models.rome.avatar import CODES, RomeAvatar

# Added to the photo's codes: head (pitch, yaw, roll) and how far the jaw opens, in radians; then an expression's seed.
VARIED = (
    ((0.0, 0.0, 0.0), 0.0, None),
    ((0.0, 0.5, 0.0), 0.0, None),
    ((0.0, -0.5, 0.0), 0.0, None),
    ((0.25, 0.1, 0.0), 0.0, 1),
    ((-0.2, -0.2, 0.0), 0.1, 2),
    ((0.0, 0.0, 0.3), 0.0, 3),
    ((0.05, 0.0, 0.0), 0.3, None),
    ((0.1, 0.3, -0.15), 0.2, 4),
)
HALVES = ("image", "features")
"""Inputs that are rounded to half precision first and stored so: they are what is large."""


def varied_codes(avatar: RomeAvatar) -> Tensor:
    """(8, e + 9): the photo's codes, turned, nodding, rolled, jaw open, other expressions."""
    rows = avatar.source_codes.repeat(len(VARIED), 1)
    first = avatar.mesh.expressions
    for row, (head, jaw, seed) in zip(rows, VARIED, strict=True):
        row[first : first + 3] += torch.tensor(head)
        row[first + 3] += jaw
        if seed is not None:
            row[:first] += torch.from_numpy(np.random.default_rng(seed).normal(0, 0.7, first)).float()
    assert rows.shape[1] == first + CODES
    return rows


@torch.no_grad()
def golden_frames(avatar: RomeAvatar, layout: str) -> dict[str, dict[str, np.ndarray]]:
    """Graph -> tensor -> (8, ...) float32 in the target's layout; `frame` holds the pictures from end to end.

    The encoder sees the avatar's own frames on white, so its codes are not those that made them unless it was trained.
    """
    golden: dict[str, dict[str, list]] = {name: {} for name in ("encoder", "mesh", "renderer", "frame")}

    def note(graph: str, name: str, value: Tensor) -> None:
        image = value.ndim == 4 and layout == "NHWC"
        golden[graph].setdefault(name, []).append((value.permute(0, 2, 3, 1) if image else value).numpy())

    for codes in varied_codes(avatar)[:, None]:
        positions, normals = avatar.mesh(codes)
        features = rounded(avatar.features(positions, normals))
        rgba = avatar.renderer(features)
        image = rounded(resized(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:], avatar.encoder_size))
        found = avatar.encoder(image)
        frame = avatar.renderer(avatar.features(*avatar.mesh(found)))
        for graph, values in (
            ("encoder", {"image": image, "codes": found}),
            ("mesh", {"codes": codes, "positions": positions, "normals": normals}),
            ("renderer", {"features": features, "rgba": rgba}),
            ("frame", {"rgba": frame}),
        ):
            for name, value in values.items():
                note(graph, name, value)
    return {graph: {name: np.concatenate(rows) for name, rows in tensors.items()} for graph, tensors in golden.items()}


def rounded(values: Tensor) -> Tensor:
    """To the numbers of half precision."""
    return torch.from_numpy(half(values.numpy()))


def write_golden_frames(folder: Path, golden: dict[str, dict[str, np.ndarray]]) -> None:
    """golden/GRAPH/TENSOR.npy; float16 for HALVES, else float32."""
    for graph, tensors in golden.items():
        place = folder / "golden" / graph
        place.mkdir(parents=True)
        for name, array in tensors.items():
            kind = np.float16 if name in HALVES else np.float32
            np.save(place / f"{name}.npy", np.ascontiguousarray(array, dtype=kind), allow_pickle=False)
