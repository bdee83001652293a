"""Finding and reading the officially released files of ROME in a folder that the user names."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mobile_avatar.errors import BadInput, first_line
from mobile_avatar.models.bilayer.official_runs import read_checkpoint
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.convert_official import (
    convert_core,
    convert_part,
    count_ignored,
    detect_config,
    face_encoder_inside,
)
from mobile_avatar.models.rome.head_files import load_linear_basis
from mobile_avatar.models.rome.networks import CORE, PARTS, RomeNetworks

LICENSE = (
    "non-commercial scientific research only: the official weights are under the ROME licence (Samsung Electronics, "
    "2022) and, as descendants of FLAME and DECA, under theirs (Max Planck), which also forbid passing them on; what "
    "is made with them is bound too"
)
CORE_FILE = "rome.pth"
BASIS_FILES = ("u_full.pt", "mean_deform.pt")


@dataclass(frozen=True)
class Imported:
    """What came out of a folder."""

    networks: RomeNetworks
    files: dict[str, Path]
    """Name of an official file -> where it was."""
    missing: dict[str, str]
    """Our part -> the official file that would have brought it."""
    ignored: dict[str, int]
    """Tensors of rome.pth that are no network of ours: beginning of the name -> how many."""


def import_official(folder: Path) -> Imported:
    """Read rome.pth, and what lies beside it of the linear model and DECA's encoder; networks in eval mode.

    The files may lie in folders below. Nothing in them is executed.

    Raises:
        BadInput: no folder, no rome.pth, an unreadable file, or a missing, mis-shaped or unknown tensor.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; pass the one with the official {CORE_FILE}")
    names = (CORE_FILE, *BASIS_FILES, *(name for name, _ in FILES.values()))
    files = {name: path for name in names if (path := _find(folder, name))}
    if CORE_FILE not in files:
        raise BadInput(f"{folder}: there is no {CORE_FILE} in it; it is the main file of the official release")
    core = read_checkpoint(files[CORE_FILE], f"the official {CORE_FILE}")
    parts = _read_parts(files)
    prefix, encoder = face_encoder_inside(core)
    if encoder:
        parts["face_encoder"] = (files[CORE_FILE], encoder)
    networks = RomeNetworks(detect_config(core, parts, files[CORE_FILE]), (*CORE, *parts)).eval()
    state = convert_core(core, networks, str(files[CORE_FILE]))
    for part, (path, tensors) in parts.items():
        state |= convert_part(tensors, networks, part, str(path))
    networks.load_state_dict(state)
    missing = {part: FILES.get(part, (" and ".join(BASIS_FILES),))[0] for part in PARTS if part not in networks.parts}
    return Imported(networks, files, missing, count_ignored(core, prefix))


def _read_parts(files: dict[str, Path]) -> dict[str, tuple[Path, dict[str, Tensor]]]:
    """Our part -> its file and tensors, of those that are there."""
    parts = {part: (files[name], read(files[name])) for part, (name, read) in FILES.items() if name in files}
    basis, mean = (files.get(name) for name in BASIS_FILES)
    if basis and not mean:
        raise BadInput(f"{basis} is of no use without {BASIS_FILES[1]}; copy both from ROME's data folder")
    if basis:
        values = load_linear_basis([basis.parent, mean.parent], RomeConfig.n_vertices)
        parts["linear_basis"] = (basis, dict(zip(("basis", "mean"), values, strict=True)))
    return parts


def _read_flat(path: Path) -> dict[str, Tensor]:
    return read_checkpoint(path, f"the official {path.name}")


def _read_deca(path: Path) -> dict[str, Tensor]:
    """The coarse encoder among DECA's networks."""
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file raises whatever its bytes happen to mean
        raise BadInput(f"{path} is not a readable checkpoint ({first_line(error)}); download it again") from error
    encoder = stored.get("E_flame") if isinstance(stored, dict) else None
    if not isinstance(encoder, dict) or not all(isinstance(value, Tensor) for value in encoder.values()):
        raise BadInput(f"{path} holds no E_flame; pass DECA's own {path.name}")
    return encoder


FILES: dict[str, tuple[str, Callable[[Path], dict[str, Tensor]]]] = {
    "basis_regressor": ("linear_hair.pth", _read_flat),
    "frame_regressor": ("disp_model.pth", _read_flat),
    "face_encoder": ("deca_model.tar", _read_deca),
}
"""Our part -> its official file and reader."""


def _find(folder: Path, name: str) -> Path | None:
    """The one file of that name in or below a folder; the nearest one, BadInput when two are equally near."""
    found = sorted(folder.rglob(name), key=lambda path: len(path.parts))
    if len(found) > 1 and len(found[0].parts) == len(found[1].parts):
        raise BadInput(f"{folder}: {name} is there twice ({found[0]}, {found[1]}); keep one of them")
    return found[0] if found else None
