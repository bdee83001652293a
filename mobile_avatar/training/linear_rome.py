"""Training of the linear model from a full one: the basis of its offsets, and two regressors that read codes.

A ResNet-50 reads hair, neck and shape off the photo once per avatar; a MobileNetV2 reads expression, pose and camera
off every frame. The coefficients of the full model's offsets are what the first is held against.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from mobile_avatar.cli.common import say
from mobile_avatar.data.clips import Draw
from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file
from mobile_avatar.images import resized
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.linear_basis import LinearBasis
from mobile_avatar.models.rome.model import Rome
from mobile_avatar.models.rome.networks import CORE, RomeNetworks
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.models.rome.weights import load_weights, save_weights
from mobile_avatar.progress import progress
from mobile_avatar.training.backbones import load_torchvision
from mobile_avatar.training.base import prepare_networks
from mobile_avatar.training.batches import Batches, Stream
from mobile_avatar.training.distributed import is_first, wait_for_all
from mobile_avatar.training.linear_rome_basis import explained_variance, fit_basis, regions
from mobile_avatar.training.rome import WEIGHTS_FILE, facts
from mobile_avatar.training.rome_augment import augmented
from mobile_avatar.training.rome_heads import RomeClips, RomePool, open_pool, unseen_clips
from mobile_avatar.training.rome_options import FRAME, PHOTO, REGRESSORS, RomeTrainOptions
from mobile_avatar.training.rome_person import full_offsets
from mobile_avatar.training.rome_sheet import SHEET_FRAMES, SHEET_PEOPLE, write_rome_sheet
from mobile_avatar.training.run import Run
from mobile_avatar.training.statistics import standing_statistics
from mobile_avatar.training.step import Step, trained

LINEAR = ("linear_basis", *REGRESSORS)
BASIS_FILE, COEFFICIENTS_FILE = "basis.safetensors", "coefficients.safetensors"
CHUNK = 8  # people whose offsets are computed at once
UNSEEN = 20
SMALLEST = 1e-3
"""Of a code's deviation. One that never changes (the jaw's turn to the side) counts in its own unit."""
CODES = ("expression", "pose", "camera")
"""What a frame's regressor gives, in its order."""
LAST = {PHOTO: "fc", FRAME: "classifier.1"}
"""The last layer of each regressor."""


@dataclass(frozen=True)
class Units:
    """In training the regressors give numbers around 0 with a spread of 1.

    In metres and radians, a step of Adam that is right for an expression moves the camera by forty times its spread.
    """

    scale: dict[str, Tensor]
    """Regressor -> (outputs,), what one of its numbers is worth."""
    middle: dict[str, Tensor]
    """Regressor -> (outputs,), what 0 stands for."""

    def read(self, regressors: RomeNetworks, name: str, images: Tensor) -> Tensor:
        """Codes in their own units."""
        scale, middle = (part[name].to(images.device) for part in (self.scale, self.middle))
        return regressors.part(name)(images) * scale + middle

    def own(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state of regressors in training as that of regressors which give codes in their own units."""
        changed = dict(state)
        for name, layer in LAST.items():
            if f"{name}.{layer}.weight" not in state:
                continue
            weight, bias = (f"{name}.{layer}.{part}" for part in ("weight", "bias"))
            scale, middle = (part[name].to(state[bias].device) for part in (self.scale, self.middle))
            changed[weight], changed[bias] = state[weight] * scale[:, None], state[bias] * scale + middle
        return changed

    def normal(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The reverse of `own`."""
        inverse = {name: 1 / scale for name, scale in self.scale.items()}
        return Units(inverse, {name: -self.middle[name] * inverse[name] for name in inverse}).own(state)


class LinearObjective:
    """Squared errors of codes, each in units of its own spread, so that 1 is what the mean would cost.

    Args:
        coefficients: (frames of the pool, n_basis): what the full model gives to photos, see `_coefficients`; None
            where the photo's regressor is not in training.
        regressors: one or both of REGRESSORS, in training, in `units`.
        variance: of the offsets, summed over all coordinates.
    """

    def __init__(self, coefficients: Tensor | None, regressors: RomeNetworks, variance: float, units: Units) -> None:
        self.coefficients, self.regressors = coefficients, regressors
        self.variance, self.units = variance, units

    def __call__(self, clips: RomeClips, step: int) -> dict[str, Tensor]:
        """Named losses of a batch, and their `total`."""
        losses = {}
        for name in self.regressors.parts:
            losses |= {PHOTO: self._photos, FRAME: self._frames}[name](clips)
        return losses | {"total": sum(losses.values())}

    def _photos(self, clips: RomeClips) -> dict[str, Tensor]:
        config = self.regressors.config
        values = self.units.read(self.regressors, PHOTO, clips.source(config.image_size)[0])
        coefficients, shape = values[:, : config.n_basis], values[:, config.n_basis :]
        # The basis is orthonormal: this is the squared distance of the vertices.
        offsets = (coefficients - self.coefficients[clips.row]).square().sum(1).mean() / self.variance
        return {"offsets": offsets, "shape": F.mse_loss(shape, clips.shape)}

    def _frames(self, clips: RomeClips) -> dict[str, Tensor]:
        config = self.regressors.config
        frames = resized(clips.images.flatten(0, 1), config.frame_side)
        codes = self.units.read(self.regressors, FRAME, frames)
        errors = (codes - _joined(clips)) / self.units.scale[FRAME].to(codes.device)
        parts = errors.split(config.frame_codes, dim=1)
        return {name: part.square().mean() for name, part in zip(CODES, parts, strict=True)}


def _joined(clips: RomeClips) -> Tensor:
    """Expression, pose and camera of all frames (b * n, n_exp + 9), in the order of the frame regressor."""
    return torch.cat([clips.expression, clips.pose, clips.camera], dim=2).flatten(0, 1)


def _basis(full: Rome, pool: RomePool, options: RomeTrainOptions, path: Path) -> tuple[LinearBasis, float]:
    """The basis of the run, fitted once and kept in `path`, and the variance of the offsets behind it."""
    if is_first() and not path.is_file():
        parts = regions(synthetic_head(), full.config.n_basis)
        offsets = _offsets(full, pool, min(options.basis_people, options.identities), options.device)
        networks = RomeNetworks(full.config, ("linear_basis",))
        networks.linear_basis = fit_basis(offsets, parts, full.config)
        own = explained_variance(networks.linear_basis, offsets, parts)
        unseen = unseen_clips(full.config.image_size, UNSEEN, 1, options.device)
        other = explained_variance(networks.linear_basis, full_offsets(full, unseen).cpu(), parts)
        for people, shares in ((f"{len(offsets)} people behind it", own), (f"{UNSEEN} unseen people", other)):
            told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
            say(f"{full.config.n_basis} coefficients explain of the variance of the offsets of {people}: {told}")
        variance = offsets.var(0, correction=0).sum()
        facts = {"license": "Apache-2.0", "variance": repr(float(variance))}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(networks, path, facts | {"explained": json.dumps({"own": own, "unseen": other})})
    wait_for_all()
    networks, known = load_weights(path)
    if networks.config != full.config:
        raise BadInput(f"{path} was made for another model; choose another --run")
    return networks.linear_basis.to(options.device), float(known["variance"])


def _offsets(full: Rome, pool: RomePool, people: int, device: str, photo: int = 0) -> Tensor:
    """Offsets (people, v, 3), on the CPU, of the first people of a pool, from one photo of each."""
    parts = []
    for first in range(0, people, CHUNK):
        draws = [Draw(person, (photo,)) for person in range(first, min(first + CHUNK, people))]
        parts.append(full_offsets(full, pool.load(draws, device)).cpu())
    return torch.cat(parts)


def _coefficients(full: Rome, basis: LinearBasis, pool: RomePool, device: str, path: Path) -> Tensor:
    """Of all photos of a pool, a row per frame (NaN for outline views): computed once per run and kept in `path`.

    The full model would take half of the time of every step otherwise.
    """
    people, frames = pool.spec.identities, pool.spec.frames
    if is_first() and not path.is_file():
        table = torch.full((people, frames, full.config.n_basis), torch.nan)
        photos = range(frames - pool.outlines)
        for photo in progress(photos, len(photos), "offsets of the full model", True, 0, people):
            offsets = _offsets(full, pool, people, device, photo)
            table[:, photo] = basis.coefficients(offsets.to(device)).cpu()
        with replace_file(path) as temporary:
            save_file({"coefficients": table.flatten(0, 1)}, temporary)
    wait_for_all()
    table = load_file(path)["coefficients"]
    if table.shape != (people * frames, full.config.n_basis):
        raise BadInput(f"{path} was made for other people or another model; choose another --run")
    return table.to(device)


def _units(pool: RomePool, variance: float, components: int) -> Units:
    """Of the regressors: mean and deviation of codes over all frames of a pool, the same for all components."""
    people = pool.codes[: pool.spec.identities].reshape(-1, sum(pool.lengths))
    moving = torch.from_numpy(people[:, pool.lengths[0] :].copy())
    shape = torch.ones(pool.lengths[0])
    spread, coefficients = moving.std(0), torch.full((components,), max(variance / components, SMALLEST**2) ** 0.5)
    scale = {FRAME: torch.where(spread < SMALLEST, 1.0, spread)}
    scale[PHOTO] = torch.cat((coefficients, shape))
    middle = {FRAME: moving.mean(0), PHOTO: torch.zeros(components + len(shape))}
    return Units(scale, middle)


def _check_alone(start: RomeNetworks, only: str | None) -> None:
    """BadInput where the other parts of a linear model are missing."""
    missing = [name for name in LINEAR if only not in (None, name) and name not in start.parts]
    if missing:
        raise BadInput(f"{only} cannot be trained alone: these ROME weights have no {missing[0]} yet; leave --only out")


def _regressors(start: RomeNetworks, config: RomeConfig, options: RomeTrainOptions, units: Units) -> RomeNetworks:
    """Regressors as `start` has them, or fresh ones that begin with ImageNet's features and the mean of everything."""
    chosen = options.regressors
    networks = RomeNetworks(config, chosen)
    paths = dict(zip(REGRESSORS, (options.resnet50, options.mobilenet_v2), strict=True))
    for name in chosen:
        path = paths[name]
        if name not in start.parts:
            if path is not None:
                load_torchvision(networks.part(name), Path(path))
            last = networks.part(name).get_submodule(LAST[name])
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
    state, trained_before = networks.state_dict(), [name for name in chosen if name in start.parts]
    for name in trained_before:
        own = {f"{name}.{key}": value for key, value in start.part(name).state_dict().items()}
        normal = units.normal(state | own)
        state |= {key: normal[key] for key in own}
    networks.load_state_dict(state)
    return networks.requires_grad_(True)


def train_linear(
    options: RomeTrainOptions, folder: Path, resume: bool, start: RomeNetworks, earlier: str = ""
) -> RomeNetworks:
    """Fit the basis and train the regressors; returns all networks of both modes in eval mode.

    `weights.safetensors` in the folder holds them from the first contact sheet on, with the averaged regressors.

    Args:
        options: see RomeTrainOptions; what is left open is resolved.
        folder: of the run; the basis is kept there.
        resume: go on from the folder's checkpoint if there is one.
        start: the full model; regressors that it has already are trained further.
        earlier: what it was trained on.

    Raises:
        BadInput: options, data or folder do not fit; CheckFailed: the numbers became NaN or Inf.
    """
    options = options.resolved()
    torch.manual_seed(options.seed)
    head, device = synthetic_head(), options.device
    config = replace(start.config, frame_size=options.frame_size or start.config.frame_size)
    if not config.photo_shape:
        raise BadInput("these ROME weights were made to get the shape from DECA; train the full model here first")
    full = Rome(start.eval().requires_grad_(False), head).to(device)
    size = max(config.image_size, config.frame_side)
    pool = open_pool(options, folder, size, photos_first=True)
    _check_alone(start, options.only)
    # Without the photo's regressor in training its basis must stay as it is.
    basis, variance, table = start.linear_basis if "linear_basis" in start.parts else None, 1.0, None
    if PHOTO in options.regressors:
        basis, variance = _basis(full, pool, options, Path(folder) / BASIS_FILE)
        table = _coefficients(full, basis, pool, device, Path(folder) / COEFFICIENTS_FILE)
    units = _units(pool, variance, config.n_basis)
    networks = _regressors(start, config, options, units).train().to(device)
    prepare_networks([networks])
    training = {"model": trained(networks, options.lr, options.beta1, options.clip_norm)}
    objective = LinearObjective(table, networks, variance, units)
    held_out = unseen_clips(size, SHEET_PEOPLE, SHEET_FRAMES, device) if is_first() else None
    whole = RomeNetworks(config, CORE + LINEAR).eval().requires_grad_(False)
    for name in (*CORE, *(name for name in REGRESSORS if name not in networks.parts)):
        whole.part(name).load_state_dict(start.part(name).state_dict())
    whole.linear_basis.load_state_dict(basis.state_dict())
    whole.to(device)
    batches, run = Batches(pool, options, augmented), Run(folder, options, training, resume)

    def keep(state: dict[str, Tensor]) -> None:
        whole.load_state_dict(whole.state_dict() | units.own(state))
        save_weights(whole, Path(folder) / WEIGHTS_FILE, facts(options, run.step, earlier))

    def sheet(path: Path) -> None:
        keep(run.average)
        write_rome_sheet(path, Rome(whole, head, "linear_mobile").to(device), held_out)

    run.loop(Step(objective, list(training.values()), device), batches, sheet)
    networks.load_state_dict(run.average)
    standing_statistics(
        networks,
        lambda number: objective(batches.read(number, Stream.STATISTICS), 0),
        min(options.standing_batches, options.steps),
    )
    if is_first():
        keep(networks.state_dict())
    return whole.cpu()
