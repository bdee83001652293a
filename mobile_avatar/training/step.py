"""One optimisation step: losses of a batch, gradients of all processes, Adam."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mobile_avatar.data.clips import Clips
from mobile_avatar.training.distributed import average_gradients, mean_over_processes

BETA2, EPS = 0.999, 1e-7

Objective = Callable[[Clips, int], dict[str, Tensor]]


@dataclass(frozen=True)
class Trained:
    """A network and its optimiser."""

    network: nn.Module
    optimizer: torch.optim.Adam
    """With one group per factor on the learning rate."""
    clip_norm: float
    """0 for no clipping."""

    @property
    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def trained(
    network: nn.Module, lr: float, beta1: float, clip_norm: float, rates: Iterable[tuple[nn.Module, float]] = ()
) -> Trained:
    """Give `network` an Adam; `rates` lists the parts of it with the factor on the learning rate of each."""
    groups = [
        {"params": [p for p in part.parameters() if p.requires_grad], "factor": factor}
        for part, factor in rates or [(network, 1.0)]
    ]
    groups = [group for group in groups if group["params"]]
    return Trained(network, torch.optim.Adam(groups, lr, (beta1, BETA2), EPS), clip_norm)


class Step:
    """The networks that train together: one total, one backward pass, all optimisers step together.

    Args:
        objective: (this process's share of a batch, number of the step) -> named scalar losses with their `total`.
        trained: the networks.
        device: where they are.
        bf16: autocast convolutions and matrix products to bfloat16.
    """

    def __init__(self, objective: Objective, trained: list[Trained], device: str = "cpu", bf16: bool = False) -> None:
        self.objective, self.trained, self.bf16 = objective, trained, bf16
        self.kind = torch.device(device).type

    def gradients(self, clips: Clips, number: int) -> dict[str, float]:
        """Compute the gradients of a batch; returns its losses and the norm of the first network's gradient."""
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.bf16):
            losses = self.objective(clips, number)
        for part in self.trained:
            part.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        norms = []
        for part in self.trained:
            average_gradients(part.parameters)
            norms.append(nn.utils.clip_grad_norm_(part.parameters, part.clip_norm or torch.inf))
        with torch.no_grad():
            # All processes must see the same numbers: they decide together whether to go on.
            means = mean_over_processes(torch.stack([value.detach() for value in losses.values()]))
        return dict(zip(losses, means.tolist(), strict=True)) | {"gradient": norms[0].item()}

    def update(self, rate: float | None = None) -> None:
        """Step all optimisers, at another learning rate if one is given."""
        for part in self.trained:
            for group in part.optimizer.param_groups:
                if rate is not None:
                    group["lr"] = rate * group["factor"]
            part.optimizer.step()
