"""Training of the linear model from a full one: the basis of its offsets, and two regressors that read codes.

A ResNet-50 reads hair, neck and shape off the photo once per avatar; a MobileNetV2 reads expression, pose and camera
off every frame. The coefficients of the full model's offsets are what the first is held against.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.cli.common import say
from mobile_avatar.data.clips import Draw
from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.linear_basis import LinearBasis
from mobile_avatar.models.rome.model import Rome
from mobile_avatar.models.rome.networks import CORE, RomeNetworks
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.models.rome.weights import load_weights, save_weights
from mobile_avatar.training.backbones import load_torchvision
from mobile_avatar.training.base import prepare_networks
from mobile_avatar.training.batches import Batches, Stream
from mobile_avatar.training.distributed import is_first, wait_for_all
from mobile_avatar.training.linear_rome_basis import explained_variance, fit_basis, regions
from mobile_avatar.training.rome import WEIGHTS_FILE, facts
from mobile_avatar.training.rome_heads import RomeClips, RomePool, open_pool, unseen_clips
from mobile_avatar.training.rome_options import RomeTrainOptions
from mobile_avatar.training.rome_person import full_offsets
from mobile_avatar.training.rome_sheet import SHEET_FRAMES, SHEET_PEOPLE, write_rome_sheet
from mobile_avatar.training.run import Run
from mobile_avatar.training.statistics import standing_statistics
from mobile_avatar.training.step import Step, trained

REGRESSORS = ("basis_regressor", "frame_regressor")
LINEAR = ("linear_basis", *REGRESSORS)
BASIS_FILE = "basis.safetensors"
CHUNK = 8  # people whose offsets are computed at once
UNSEEN = 20
SMALLEST = 1e-3  # of a code's deviation: one that never changes has none


class LinearObjective:
    """Squared errors of codes, each in units of its own spread, so that 1 is what the mean would cost.

    Args:
        full: the full model, frozen.
        basis: of its offsets.
        regressors: REGRESSORS, in training.
        variance: of the offsets, summed over all coordinates.
        spread: (n_exp + 9,) deviations of expression, pose and camera.
    """

    def __init__(
        self, full: Rome, basis: LinearBasis, regressors: RomeNetworks, variance: float, spread: Tensor
    ) -> None:
        self.full, self.basis, self.regressors = full, basis, regressors
        self.variance, self.spread = variance, spread

    def __call__(self, clips: RomeClips, step: int) -> dict[str, Tensor]:
        """Named losses of a batch, and their `total`."""
        config = self.full.config
        wanted = self.basis.coefficients(full_offsets(self.full, clips))
        values = self.regressors.part("basis_regressor")(clips.source()[0])
        coefficients, shape = values[:, : config.n_basis], values[:, config.n_basis :]
        codes = self.regressors.part("frame_regressor")(clips.images.flatten(0, 1))
        errors = (codes - _joined(clips)) / self.spread
        expression, pose, camera = (part.square().mean() for part in errors.split(config.frame_codes, dim=1))
        losses = {
            # The basis is orthonormal: this is the squared distance of the vertices.
            "offsets": (coefficients - wanted).square().sum(1).mean() / self.variance,
            "shape": F.mse_loss(shape, clips.shape),
            "expression": expression,
            "pose": pose,
            "camera": camera,
        }
        return losses | {"total": sum(losses.values())}


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


def _offsets(full: Rome, pool: RomePool, people: int, device: str) -> Tensor:
    """Offsets (people, v, 3), on the CPU, of the first people of a pool, from a frame of each."""
    parts = []
    for first in range(0, people, CHUNK):
        draws = [Draw(person, (0,)) for person in range(first, min(first + CHUNK, people))]
        parts.append(full_offsets(full, pool.load(draws, device)).cpu())
    return torch.cat(parts)


def _spread(pool: RomePool) -> tuple[Tensor, Tensor]:
    """Deviation and mean (n_exp + 9,) of expression, pose and camera over all frames of a pool."""
    people = pool.codes[: pool.spec.identities].reshape(-1, sum(pool.lengths))
    moving = torch.from_numpy(people[:, pool.lengths[0] :].copy())
    return moving.std(0).clamp(min=SMALLEST), moving.mean(0)


def _regressors(start: RomeNetworks, options: RomeTrainOptions, middle: Tensor) -> RomeNetworks:
    """REGRESSORS as `start` has them, or fresh ones that begin with ImageNet's features and the mean of the codes."""
    networks = RomeNetworks(start.config, REGRESSORS)
    paths = dict(zip(REGRESSORS, (options.resnet50, options.mobilenet_v2), strict=True))
    for name, path in paths.items():
        network = networks.part(name)
        if name in start.parts:
            network.load_state_dict(start.part(name).state_dict())
        elif path is not None:
            load_torchvision(network, Path(path))
    # Training begins with the mean of everything.
    with torch.no_grad():
        if "basis_regressor" not in start.parts:
            networks.basis_regressor.fc.weight.zero_()
            networks.basis_regressor.fc.bias.zero_()
        if "frame_regressor" not in start.parts:
            networks.frame_regressor.classifier[1].bias.copy_(middle)
    return networks.requires_grad_(True)


def train_linear(
    options: RomeTrainOptions, folder: Path, resume: bool, start: RomeNetworks, earlier: str = ""
) -> RomeNetworks:
    """Fit the basis and train both regressors; returns all networks of both modes in eval mode.

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
    head, config, device = synthetic_head(), start.config, options.device
    if not config.photo_shape:
        raise BadInput("these ROME weights were made to get the shape from DECA; train the full model here first")
    full = Rome(start.eval().requires_grad_(False), head).to(device)
    pool = open_pool(options, folder, config.image_size)
    basis, variance = _basis(full, pool, options, Path(folder) / BASIS_FILE)
    spread, middle = _spread(pool)
    networks = _regressors(start, options, middle).train().to(device)
    prepare_networks([networks])
    training = {"model": trained(networks, options.lr, options.beta1, options.clip_norm)}
    objective = LinearObjective(full, basis, networks, variance, spread.to(device))
    held_out = unseen_clips(config.image_size, SHEET_PEOPLE, SHEET_FRAMES, device) if is_first() else None
    whole = RomeNetworks(config, CORE + LINEAR).eval().requires_grad_(False)
    for name in CORE:
        whole.part(name).load_state_dict(start.part(name).state_dict())
    whole.linear_basis.load_state_dict(basis.state_dict())
    whole.to(device)
    batches, run = Batches(pool, options), Run(folder, options, training, resume)

    def keep(state: dict[str, Tensor]) -> None:
        whole.load_state_dict(whole.state_dict() | state)
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
