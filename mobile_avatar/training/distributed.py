"""Data-parallel training over processes, one per device, on any torch.distributed backend.

The whole is as if one process held the global batch: every process draws the same batch and loads its share, batch
norms and batch-wide means see all shares, and gradients are averaged. All shares are equally large.

The rule behind the differentiable sums: what is minimised is the mean over processes of each process's loss, so a
process's gradient holds what its parameters do to the losses of all, and the average of these is the gradient.
"""

import os
from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mobile_avatar.errors import BadInput
from mobile_avatar.training.losses import wide

BUCKET = 32 * 2**20  # gradient values that are sent together
PATIENCE = timedelta(hours=4)  # the first process may render a large pool meanwhile


def start_processes(device: str) -> str:
    """Join the processes that torchrun started, if it did; returns the device of this process.

    Raises BadInput for a device that does not work here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    local = int(os.environ.get("LOCAL_RANK", 0))
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    if several and device.startswith("cuda"):
        device = f"cuda:{local}"
    check_device(device)
    if several and not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    return device


def check_device(device: str) -> None:
    """Raise BadInput for a device that does not work here; a GPU that does becomes the current one."""
    try:
        torch.empty(1, device=device)
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BadInput(f"--device {device} does not work here; use cpu or a device that torch finds") from error


def end_processes() -> None:
    """Leave the group; nothing to do in a single process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return not dist.is_initialized() or dist.get_rank() == 0


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if world_size() > 1:
        dist.barrier()


def share(count: int) -> slice:
    """This process's part of `count` people of a global batch."""
    size, rank = world_size(), dist.get_rank() if dist.is_initialized() else 0
    if count % size:
        raise BadInput(f"--batch-size {count} cannot be shared by {size} processes; make it a multiple of {size}")
    return slice(rank * count // size, (rank + 1) * count // size)


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        return _summed(value)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(value: Tensor) -> Tensor:
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of a tensor over the processes; its derivative reaches all of them."""
    return value if world_size() == 1 else _SumOverProcesses.apply(value) / world_size()


def same_start(modules: Iterable[nn.Module]) -> None:
    """Give every process the first one's parameters and buffers."""
    if world_size() > 1:
        for module in modules:
            for value in module.state_dict().values():
                dist.broadcast(value, 0)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the processes, many in one message."""
    if world_size() == 1:
        return
    bucket: list[Tensor] = []
    for gradient in [p.grad for p in parameters if p.grad is not None]:
        bucket.append(gradient)
        if sum(g.numel() for g in bucket) >= BUCKET:
            _average(bucket)
            bucket = []
    if bucket:
        _average(bucket)


def _average(gradients: list[Tensor]) -> None:
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


class _Normalise(torch.autograd.Function):
    """x -> (x - mean) / sqrt(var + eps) over the samples of all processes, and mean and var."""

    @staticmethod
    def forward(ctx: object, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        values = wide(x)
        # Two passes: the difference of two large squares would not agree with one process in float32.
        mean = _mean(values.mean((0, 2, 3)))
        centred = values - mean[:, None, None]
        variance = _mean(centred.square().mean((0, 2, 3)))
        scale = (variance + eps).rsqrt()
        y = (centred * scale[:, None, None]).to(x.dtype)
        ctx.save_for_backward(y, scale)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: object, dy: Tensor, _mean_gradient: Tensor, _variance_gradient: Tensor) -> tuple[Tensor, None]:
        y, scale = ctx.saved_tensors
        gradient, y = wide(dy), wide(y)
        means = _mean(torch.stack([gradient.mean((0, 2, 3)), (gradient * y).mean((0, 2, 3))]))
        dx = (gradient - means[0, :, None, None] - y * means[1, :, None, None]) * scale[:, None, None]
        return dx.to(dy.dtype), None


def _mean(value: Tensor) -> Tensor:
    return _summed(value) / world_size() if world_size() > 1 else value


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics in training are those of the batches of all processes together.

    Equal to nn.BatchNorm2d on the joined batch, running statistics included. nn.SyncBatchNorm is for CUDA only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), as many samples in every process."""
        if not self.training:
            return super().forward(x)
        y, mean, variance = _Normalise.apply(x, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            factor = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            count = x.numel() // x.shape[1] * world_size()
            self.running_mean.lerp_(mean, factor)
            self.running_var.lerp_(variance * count / (count - 1), factor)
        if not self.affine:
            return y
        return y * self.weight[:, None, None] + self.bias[:, None, None]


def synchronise_batch_norms(module: nn.Module) -> None:
    """Replace the batch norms inside `module` by synchronised ones, in place; parameters and names stay."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, SynchronisedBatchNorm2d):
                norm = SynchronisedBatchNorm2d(child.num_features, child.eps, child.momentum, child.affine)
                norm.weight, norm.bias = child.weight, child.bias
                for key, value in child.named_buffers():
                    setattr(norm, key, value)
                setattr(parent, name, norm.train(child.training))
