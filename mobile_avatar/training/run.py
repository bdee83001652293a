"""A training run as a folder: options, metrics, pictures and checkpoints that survive a kill."""

import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import yaml
from torch import Tensor

from mobile_avatar.errors import BadInput, CheckFailed, first_line
from mobile_avatar.files import replace_file
from mobile_avatar.progress import progress
from mobile_avatar.training.batches import Batches
from mobile_avatar.training.distributed import is_first, wait_for_all
from mobile_avatar.training.options import TrainOptions
from mobile_avatar.training.step import Step, Trained

FORMAT = 2


class Run:
    """Steps through a loop, writing metrics, sheets and checkpoints; with `resume` it goes on from the last checkpoint.

    Only the first process of a data-parallel run writes; all read the same checkpoint.
    """

    def __init__(self, folder: Path, options: TrainOptions, parts: dict[str, Trained], resume: bool) -> None:
        """`parts` are the networks in training by name; the weights of `model` are averaged for export."""
        self.folder, self.options, self.parts = Path(folder), options, parts
        self.network = parts["model"].network
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.step = 0
        self.checkpoint = self.folder / "checkpoint.pt"
        if self.checkpoint.exists():
            if not resume:
                raise BadInput(f"{folder} holds a run already; pass --resume to go on or choose another --run")
            self._restore()
        wait_for_all()
        if is_first():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._trim_metrics()
            with replace_file(self.folder / "options.yaml") as temporary:
                temporary.write_text(yaml.safe_dump(asdict(options), sort_keys=False))

    def loop(self, step: Step, batches: Batches, sheet: Callable[[Path], None]) -> None:
        """Run the steps that are left; `sheet` writes a picture.

        Raises CheckFailed when a loss, a gradient or a weight is not finite; the last checkpoint is from before.
        """
        options, first = self.options, is_first()
        started, since = time.monotonic(), self.step
        with contextlib.closing(batches.ahead(self.step, options.steps)) as waiting:
            label = f"training {self.folder.name}"
            for clips in progress(waiting, options.steps, label, first, self.step, options.batch_size):
                losses = step.gradients(clips, self.step)
                self._check(losses)
                rate = options.rate(self.step)
                step.update(rate)
                self.step += 1
                self._follow()
                if first and self._due(options.log_every):
                    self._log(losses, rate, time.monotonic() - started, since)
                if self._due(options.checkpoint_every):
                    self._save()
                if first and self._due(options.sheet_every):
                    sheet(self.folder / f"sheet-{self.step:06d}.png")
        wait_for_all()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.options.steps

    def _check(self, losses: dict[str, float]) -> None:
        for name in ("total", "gradient"):
            if not math.isfinite(losses[name]):
                word = "loss" if name == "total" else name
                self._stop(f"the {word} became {losses[name]} at step {self.step}")

    def _stop(self, what: str) -> None:
        if self.checkpoint.exists():
            remedy = f"the last good checkpoint is {self.checkpoint}; pass --resume with a lower --lr"
        else:
            remedy = "there is no checkpoint yet; start again with a lower --lr"
        raise CheckFailed(f"{self.folder}: {what}; {remedy}")

    def _log(self, losses: dict[str, float], rate: float, seconds: float, since: int) -> None:
        """A row of metrics: all that a plot or a scheduler wants to know."""
        speed = (self.step - since) * self.options.batch_size / max(seconds, 1e-9)
        left = (self.options.steps - self.step) * self.options.batch_size / speed
        row = {"step": self.step, "seconds": round(seconds, 1), "samples_per_second": round(speed, 2)}
        row |= {"seconds_left": round(left), "lr": float(f"{rate:.6g}")}
        row |= {name: float(f"{value:.7g}") for name, value in losses.items()}
        with open(self.folder / "metrics.jsonl", "a") as metrics:
            metrics.write(json.dumps(row) + "\n")

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.options.ema, self.step / (self.step + 20))
        learned = {name for name, _ in self.network.named_parameters()}
        for name, value in self.network.state_dict().items():
            if name in learned:
                self.average[name].lerp_(value, 1 - keep)
            else:
                # Statistics and vectors of power iterations belong to the present weights.
                self.average[name].copy_(value)

    def _save(self) -> None:
        """Write the checkpoint, in the first process; never one that holds NaN or Inf."""
        for name, part in self.parts.items():
            for key, value in part.network.state_dict().items():
                if not torch.isfinite(value).all():
                    self._stop(f"{key} of the {name} holds NaN or Inf at step {self.step}")
        if not is_first():
            return
        state = {
            "format": FORMAT,
            # The batches are a function of the seed and the step, so these two are the position in the data.
            "step": self.step,
            "seed": self.options.seed,
            "average": self.average,
            "networks": {name: part.network.state_dict() for name, part in self.parts.items()},
            "optimizers": {name: part.optimizer.state_dict() for name, part in self.parts.items()},
            "random": torch.get_rng_state(),
        }
        with replace_file(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def _restore(self) -> None:
        state = _read_checkpoint(self.checkpoint, self.options.device)
        if state["networks"].keys() != self.parts.keys() or state["seed"] != self.options.seed:
            raise BadInput(f"{self.checkpoint} is of a run with other networks or another seed; choose another --run")
        self.step = state["step"]
        for name, part in self.parts.items():
            try:
                part.network.load_state_dict(state["networks"][name])
                part.optimizer.load_state_dict(state["optimizers"][name])
            except (RuntimeError, ValueError) as error:
                raise BadInput(f"{self.checkpoint}: the {name} does not fit ({first_line(error)})") from error
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        torch.set_rng_state(state["random"].cpu())

    def _trim_metrics(self) -> None:
        """Drop rows behind the checkpoint, whose steps are about to be made again, and a row that was cut off."""
        path = self.folder / "metrics.jsonl"
        if path.is_file():
            rows = [line for line in path.read_text().splitlines() if _step_of(line) <= self.step]
            with replace_file(path) as temporary:
                temporary.write_text("".join(f"{row}\n" for row in rows))


def _step_of(row: str) -> float:
    try:
        return json.loads(row)["step"]
    except (ValueError, KeyError):
        return math.inf


def _read_checkpoint(path: Path, device: str) -> dict[str, object]:
    try:
        state: dict[str, Tensor] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a foreign file raises whatever its bytes happen to mean
        raise BadInput(f"{path} is not a readable checkpoint ({first_line(error)}); choose another --run") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise BadInput(f"{path} was written by another version; start a new --run with --weights")
    return state
