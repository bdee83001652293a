"""Finding and reading the officially released run folders: `runs/<name>/checkpoints/<epoch>_<network>.pth`."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mobile_avatar.errors import BadInput, first_line
from mobile_avatar.models.bilayer.config import EMBEDDING_SIZE, BilayerConfig
from mobile_avatar.models.bilayer.convert_official import convert
from mobile_avatar.models.bilayer.discriminator import Discriminator
from mobile_avatar.models.bilayer.model import BilayerModel

BASE_NETWORKS = ("identity_embedder", "texture_generator", "keypoints_embedder", "inference_generator")
UPDATER = "texture_enhancer"
_FILE = re.compile(r"(\d+)_([a-z_]+)\.pth")


@dataclass(frozen=True)
class OfficialRuns:
    """The files that make up one model, and the options of the run that inference reads."""

    files: dict[str, Path]
    """Network -> checkpoint; `discriminator` only where the base run kept it."""
    args: dict[str, str]
    """args.txt of the enhancer run, else of the base run."""

    def describe(self) -> str:
        return ", ".join(f"{path.parent.parent.name}/{path.name}" for path in self.files.values())


def find_runs(folder: Path, epoch: int | None = None, enhancer_epoch: int | None = None) -> OfficialRuns:
    """Look for the base run and the enhancer run below `folder` (the `runs` folder, or one that holds it).

    Args:
        epoch, enhancer_epoch: which epoch of either run; the latest complete one by default.

    Raises:
        BadInput: nothing there, an incomplete epoch, or several runs that would fit.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; pass the official `runs` folder")
    found: dict[Path, dict[int, dict[str, Path]]] = {}
    for path in sorted(folder.glob("**/checkpoints/*.pth")):
        if match := _FILE.fullmatch(path.name):
            found.setdefault(path.parent.parent, {}).setdefault(int(match[1]), {})[match[2]] = path
    base_run, base = _choose(folder, found, BASE_NETWORKS, epoch, "--epoch")
    updater_run, updater = _choose(folder, found, (UPDATER,), enhancer_epoch, "--enhancer-epoch")
    files = {name: base[name] for name in BASE_NETWORKS} | {UPDATER: updater[UPDATER]}
    if "discriminator" in base:
        files["discriminator"] = base["discriminator"]
    return OfficialRuns(files, _read_args(base_run) | _read_args(updater_run))


def import_official(runs: OfficialRuns, align_corners: bool = False) -> tuple[BilayerModel, Discriminator | None]:
    """Build the model that the files describe, with spectral norm resolved, in eval mode.

    Raises BadInput with one sentence for an unreadable file or any missing or mis-shaped tensor.
    """
    states = {name: read_checkpoint(path) for name, path in runs.files.items()}
    config = detect_config(states, runs, align_corners)
    model = BilayerModel(config).eval()
    state: dict[str, Tensor] = {}
    for name in (*BASE_NETWORKS, UPDATER):
        state |= convert(states[name], model, name, str(runs.files[name]))
    model.load_state_dict(state)
    discriminator = None
    if "discriminator" in states:
        discriminator = Discriminator(config).eval()
        path = str(runs.files["discriminator"])
        discriminator.load_state_dict(convert(states["discriminator"], discriminator, "discriminator", path))
    return model, discriminator


def read_checkpoint(path: Path, expected: str = "the official <epoch>_<network>.pth files") -> dict[str, Tensor]:
    """A state dict from either container (zip or the older one); never unpickles code. BadInput asks for `expected`."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file raises whatever its bytes happen to mean
        raise BadInput(f"{path} is not a readable checkpoint ({first_line(error)}); download it again") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise BadInput(f"{path} does not hold a plain state dict; pass {expected}")
    return state


def detect_config(states: dict[str, dict[str, Tensor]], runs: OfficialRuns, align_corners: bool) -> BilayerConfig:
    """Capacities, image size and harmonic encoding from tensor shapes, checked against args.txt."""

    def dim(network: str, key: str, axis: int) -> int:
        state = states[network]
        tensor = next((state[k] for k in (f"{key}_orig", key) if k in state), None)
        if tensor is None or tensor.ndim <= axis:
            raise BadInput(f"{runs.files[network]}: tensor {key} is missing; the file is incomplete")
        return tensor.shape[axis]

    def count(network: str, pattern: str) -> int:
        return len({m[1] for key in states[network] if (m := re.match(pattern, key))})

    levels = count("identity_embedder", r"net\.enc\.(\d+)\.block_feats")
    size = EMBEDDING_SIZE * 2**levels
    last_mlp = 2 * (count("keypoints_embedder", r"net\.mlp\.(\d+)\.bias") - 1)
    last_enc = f"net.enc.{levels}.block_feats.1.weight"
    inputs = dim("keypoints_embedder", "net.mlp.0.weight", 1)
    downs = count(UPDATER, r"net\.blocks\.(\d+)\.skip\.0\.")
    ups = count(UPDATER, r"net\.blocks\.(\d+)\.skip\.1\.")
    same = count(UPDATER, r"net\.blocks\.(\d+)\.block_feats") - downs - ups
    values = {
        "image_size": size,
        "emb_channels": dim("identity_embedder", "net.enc.0.weight", 0),
        "emb_max_channels": dim("identity_embedder", last_enc, 0),
        "tex_channels": dim("texture_generator", "gen_tex.heads.0.0.weight", 1),
        "tex_max_channels": dim("texture_generator", "gen_tex_input", 1),
        "inf_channels": dim("inference_generator", "gen_inf.heads.0.0.weight", 1),
        "inf_max_channels": dim("keypoints_embedder", f"net.mlp.{last_mlp}.weight", 0) // 16,
        "pose_channels": dim("keypoints_embedder", "net.mlp.0.weight", 0),
        "pose_blocks": last_mlp // 2 + 1,
        "num_harmonics": 0 if inputs == 136 else inputs // 272,
        "enh_channels": dim(UPDATER, "net.blocks.0.weight", 0),
        "enh_max_channels": dim(UPDATER, f"net.blocks.{max(downs, 1)}.block_feats.1.weight", 0),
        "enh_bottleneck": size >> downs,
        "enh_blocks": same,
        "align_corners": align_corners,
    }
    if "discriminator" in states:
        blocks = count("discriminator", r"net\.blocks\.(\d+)\.block_feats")
        values |= {
            "dis_channels": dim("discriminator", "net.first_conv.weight", 0),
            "dis_max_channels": dim("discriminator", "net.linear.weight", 1),
            "dis_blocks": blocks,
        }
    stated = runs.args.get("image_size")
    if stated is not None and stated != str(size):
        raise BadInput(f"{runs.files[UPDATER].parent.parent}/args.txt says image_size {stated}, the tensors say {size}")
    return BilayerConfig(**values)


def _choose(
    folder: Path, found: dict, networks: tuple[str, ...], epoch: int | None, option: str
) -> tuple[Path, dict[str, Path]]:
    """The one run that has all of `networks`, and its files at `epoch` or at the latest complete epoch."""
    complete = {
        run: {e: files for e, files in epochs.items() if set(networks) <= set(files)} for run, epochs in found.items()
    }
    complete = {run: epochs for run, epochs in complete.items() if epochs}
    if not complete:
        seen = sorted({name for epochs in found.values() for files in epochs.values() for name in files})
        lacking = [name for name in networks if name not in seen] or ["one epoch with all of them"]
        raise BadInput(f"{folder}: no checkpoint of {', '.join(lacking)} in <run>/checkpoints/<epoch>_<network>.pth")
    if len(complete) > 1:
        names = ", ".join(str(run) for run in complete)
        raise BadInput(f"{folder}: {networks[-1]} is in several runs ({names}); keep one of them in the folder")
    run, epochs = next(iter(complete.items()))
    if epoch is not None and epoch not in epochs:
        known = ", ".join(map(str, sorted(epochs)))
        raise BadInput(f"{run}: no complete epoch {epoch} of {networks[-1]}; {option} can be {known}")
    return run, epochs[max(epochs) if epoch is None else epoch]


def _read_args(run: Path) -> dict[str, str]:
    path = run / "args.txt"
    if not path.is_file():
        return {}
    lines = (line.partition(":") for line in path.read_text(errors="replace").splitlines())
    return {key.strip(): value.strip() for key, _, value in lines if key.strip()}
