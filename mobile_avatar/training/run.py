"""A training run as a folder: options, metrics, pictures and checkpoints that survive a kill."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from mobile_avatar.errors import BadInput, CheckFailed
from mobile_avatar.files import replace_file

CLIP_NORM = 1.0


@dataclass(frozen=True)
class TrainOptions:
    """Options of a run; stored in its folder as options.yaml."""

    preset: str = "compact"
    """Member of the model family."""
    steps: int = 4000
    """Optimiser steps."""
    batch_size: int = 8
    """People per step."""
    targets: int = 3
    """Driven frames per person and step."""
    lr: float = 4e-4
    """Adam's peak learning rate: linear warm-up, cosine decay to a twentieth."""
    seed: int = 0
    """Of everything random."""
    identities: int = 1200
    """Synthetic identities in the pool."""
    frames: int = 8
    """Frames of each."""
    spectral_norm: bool = False
    """Normalise every layer; needed with a discriminator, slower without one."""
    device: str = "cpu"
    """Torch device."""
    bf16: bool = True
    """Compute convolutions in bfloat16; losses and weights stay float32."""
    sheet_every: int = 250
    """Steps between contact sheets and checkpoints."""

    def __post_init__(self) -> None:
        if self.frames <= self.targets:
            raise BadInput(f"{self.frames} frames per person are too few for a source and {self.targets} targets")
        if self.identities < self.batch_size:
            raise BadInput(f"{self.identities} identities are too few for a batch of {self.batch_size}")


class Run:
    """Steps through a loop, writing metrics, sheets and checkpoints; `--resume` goes on from the last checkpoint."""

    def __init__(
        self, folder: Path, options: TrainOptions, model: nn.Module, rates: list[tuple[nn.Module, float]], resume: bool
    ) -> None:
        """`rates` lists the trained modules with the factor on the learning rate of each."""
        self.folder, self.options, self.model = Path(folder), options, model
        self.trained = [parameter for module, _ in rates for parameter in module.parameters()]
        groups = [{"params": module.parameters(), "factor": factor} for module, factor in rates]
        self.optimizer = torch.optim.Adam(groups, lr=options.lr, eps=1e-7)
        self.generator = np.random.default_rng(options.seed)
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.step = 0
        self.checkpoint = self.folder / "checkpoint.pt"
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            if not resume:
                raise BadInput(f"{folder} holds a run already; pass --resume to go on or choose another --run")
            self._restore()
        (self.folder / "options.yaml").write_text(yaml.safe_dump(asdict(options), sort_keys=False))

    def loop(self, compute: Callable[[], dict[str, Tensor]], sheet: Callable[[Path], None]) -> None:
        """`compute` returns named losses; their `total` is minimised. `sheet` writes a picture."""
        bar = tqdm(total=self.options.steps, initial=self.step, desc=self.folder.name, mininterval=5)
        started = time.monotonic()
        with open(self.folder / "metrics.jsonl", "a") as metrics:
            while self.step < self.options.steps:
                self._set_rate()
                losses = compute()
                if not torch.isfinite(losses["total"]):
                    raise CheckFailed(
                        f"{self.folder}: the loss became {losses['total'].item()} at step {self.step}; the last good "
                        f"checkpoint is {self.checkpoint}; lower --lr and pass --resume"
                    )
                self.optimizer.zero_grad(set_to_none=True)
                losses["total"].backward()
                nn.utils.clip_grad_norm_(self.trained, CLIP_NORM)
                self.optimizer.step()
                self.step += 1
                self._follow()
                bar.update()
                if self.step % 10 == 0 or self.step == self.options.steps:
                    row = {"step": self.step, "seconds": round(time.monotonic() - started, 1)}
                    row |= {name: round(value.item(), 5) for name, value in losses.items()}
                    metrics.write(json.dumps(row) + "\n")
                    metrics.flush()
                    bar.set_postfix(total=row["total"])
                if self.step % self.options.sheet_every == 0 or self.step == self.options.steps:
                    self._save()
                    sheet(self.folder / f"sheet-{self.step:06d}.png")
        bar.close()

    def averaged(self) -> dict[str, Tensor]:
        """State dict of the averaged weights, which are the ones to keep."""
        return self.average

    def _set_rate(self) -> None:
        done = self.step / self.options.steps
        warm = min(1.0, (self.step + 1) / 100)
        rate = self.options.lr * warm * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]

    def _follow(self) -> None:
        keep = min(0.995, self.step / (self.step + 20))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - keep)
                else:
                    self.average[name].copy_(value)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "random": json.dumps(self.generator.bit_generator.state),
            "torch_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        with replace_file(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def _restore(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.options.device, weights_only=True)
        self.step, self.average = state["step"], state["average"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.bit_generator.state = json.loads(state["random"])
        torch.set_rng_state(state["torch_random"].cpu())
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all([value.cpu() for value in state["cuda_random"]])
        self._trim_metrics()

    def _trim_metrics(self) -> None:
        """Drop rows behind the checkpoint: those steps are about to be made again."""
        path = self.folder / "metrics.jsonl"
        if path.is_file():
            rows = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= self.step]
            path.write_text("".join(f"{row}\n" for row in rows))


def read_options(folder: Path, resume: bool, overrides: dict) -> TrainOptions:
    """TrainOptions of a run: from the command line, or when resuming those it was started with.

    Only `steps` and `device` may change on the way; BadInput names any other option that would.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    stored = Path(folder) / "options.yaml"
    if not (resume and stored.is_file()):
        return TrainOptions(**given)
    before = yaml.safe_load(stored.read_text())
    for key, value in given.items():
        if key not in ("steps", "device") and before.get(key) != value:
            raise BadInput(f"{stored} has {key} {before.get(key)}, not {value}; leave the option out to resume")
    known = {field.name for field in fields(TrainOptions)}
    return TrainOptions(**{key: value for key, value in before.items() if key in known} | given)
