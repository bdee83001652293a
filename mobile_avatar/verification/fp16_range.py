"""Whether a graph survives half precision: the range of each tensor in it, and the epsilons that would vanish.

Everything is measured in float32 over given keypoints. Three things go wrong in float16: a value leaves +-65,504; a
sum inside an operator does so on the way although its result does not (on hardware that also adds up in half
precision); a small constant that protects a division becomes zero. Operators that hide such steps are taken apart
first: a norm shows its mean, variance, epsilon and reciprocal root one by one.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

LIMIT = 65_504.0
"""The largest float16."""
NEAR = LIMIT / 4
"""Measured values above this are warned of: other keypoints than the measured ones may go further."""
NORMAL = 2.0**-14
"""The smallest float16 that every chip keeps; many take what is smaller for zero, and below 2^-25 all do."""
BATCH = 8  # vectors at once, while intermediate tensors of a 256 px network still fit into some hundred MB

aten = torch.ops.aten


@dataclass(frozen=True)
class TensorRange:
    """One tensor of the graph, over all keypoints."""

    name: str
    """Path of the module that computes it, `generator.blocks.3.conv2`, or of the parameter that holds it."""
    operator: str
    """`convolution`, `add`, `add_1` for a module's second, ...; `constant` for parameters and buffers."""
    low: float
    high: float
    partial: float
    """No sum inside the operator exceeds this in magnitude, in whatever order it adds. An upper bound, not a
    measurement: convolutions count each channel's largest value at every tap. 0 where nothing is summed."""
    lost: tuple[str, ...] = ()
    """What half precision takes for zero here, one clause each."""


def ranges(module: nn.Module, inputs: np.ndarray) -> list[TensorRange]:
    """Run a graph in float32 and measure every parameter, then every tensor in the order in which it is computed.

    Views are left out. Vectors run in batches where the graph takes them, else one by one.

    Args:
        module: a deployment graph in eval mode, inputs (N, ...) or (1, ...) -> tensors.
        inputs: float32 (N, ...), of the bi-layer avatar keypoints (N, 136) in [-1, 1].
    """
    constants = {name: value.detach() for name, value in (*module.named_parameters(), *module.named_buffers())}
    found = [
        TensorRange(name, "constant", float(value.min()), float(value.max()), 0.0)
        for name, value in constants.items()
        if _counts(value)
    ]
    vectors = torch.from_numpy(np.ascontiguousarray(inputs, np.float32))
    recorder = _Recorder({value.data_ptr() for value in constants.values()})
    with torch.no_grad():
        parts = vectors.split(BATCH if _takes_batches(module, vectors[:2]) else 1)
    with torch.no_grad(), _follow(module, recorder.path), recorder:
        for part in parts:
            recorder.position = 0
            module(part)
    return found + [step.finish() for step in recorder.steps]


def fp16_warnings(found: list[TensorRange]) -> list[str]:
    """One sentence per tensor that half precision endangers, with the name of its layer; empty for a safe graph."""
    sentences = []
    for tensor in found:
        where = f"{tensor.name or 'the graph itself'} ({tensor.operator})"
        peak = max(abs(tensor.low), abs(tensor.high))
        if not math.isfinite(peak):
            sentences.append(f"{where} is not finite even in float32; the weights are damaged")
        elif peak > LIMIT:
            sentences.append(f"{where} reaches {peak:.4g} and becomes infinite in half precision, which ends at 65,504")
        elif peak > NEAR:
            sentences.append(f"{where} reaches {peak:.4g}, near the end of half precision at 65,504")
        elif tensor.partial > LIMIT:
            sentences.append(
                f"{where} stays at {peak:.4g}, but its partial sums are only known to stay below {tensor.partial:.4g}: "
                "a chip that adds up in half precision may leave 65,504 on the way"
            )
        sentences += [f"{where}: {clause}" for clause in tensor.lost]
    return sentences


@dataclass
class _Step:
    """What is known about one operator so far."""

    name: str
    operator: str
    low: float = math.inf
    high: float = -math.inf
    partial: float = 0.0
    weights: Tensor | None = None
    """Convolutions: summed |weight| (groups, outputs, inputs)."""
    peaks: Tensor | None = None
    """Convolutions: largest |x| per input channel."""
    smallest: float = math.inf
    """Divisors: the smallest magnitude that is not zero."""
    epsilon: float = 0.0
    absorbed: bool = True
    """Added constants: never changed any half-precision value."""

    def finish(self) -> TensorRange:
        partial = self.partial
        if self.weights is not None:
            groups, _, inputs = self.weights.shape
            partial = float((self.weights @ self.peaks.view(groups, inputs, 1)).max())
        return TensorRange(self.name, self.operator, self.low, self.high, partial, tuple(self._lost()))

    def _lost(self) -> list[str]:
        clauses = []
        if 0 < self.epsilon < NORMAL:
            clauses.append(f"the constant {self.epsilon:g} {_vanishes(self.epsilon)}")
        elif self.epsilon and self.absorbed:
            clauses.append(f"the constant {self.epsilon:g} disappears beside what it is added to in half precision")
        if self.smallest < NORMAL:
            clauses.append(f"it divides by {self.smallest:.3g}, which {_vanishes(self.smallest)}")
        return clauses


def _vanishes(value: float) -> str:
    if value <= NORMAL * 2**-11:
        return "becomes 0 in half precision"
    return "is below the normal numbers of half precision (6.1e-05), and many chips take those for 0"


@contextmanager
def _follow(module: nn.Module, path: list[str]) -> Iterator[None]:
    """Keep the name of the module that runs at the end of `path`."""
    hooks = []
    for name, child in module.named_modules():
        hooks.append(child.register_forward_pre_hook(lambda *_, name=name: path.append(name)))
        hooks.append(child.register_forward_hook(lambda *_: path.pop() and None, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _takes_batches(module: nn.Module, pair: Tensor) -> bool:
    """Whether the graph's output has one row per vector; some graphs fix the batch at 1."""
    try:
        outputs = module(pair)
    except RuntimeError:
        return False
    return all(len(value) == len(pair) for value in (outputs if isinstance(outputs, tuple) else (outputs,)))


@dataclass
class _Recorder(TorchDispatchMode):
    """Sees every ATen operator while it is entered."""

    constants: set[int]
    """Addresses of parameters and buffers."""
    steps: list[_Step] = field(default_factory=list)
    position: int = 0
    """Index of the next operator."""
    path: list[str] = field(default_factory=lambda: [""])
    """Of the modules that run, innermost last."""
    counted: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, function: object, types: object, args: tuple = (), kwargs: dict | None = None):
        kwargs = kwargs or {}
        packet = function.overloadpacket
        if packet in HIDING:
            from torch._decomp import get_decompositions  # seconds to import, and folded graphs have none of these

            with self:
                return get_decompositions([packet])[function](*args, **kwargs)
        result = function(*args, **kwargs)
        values = [value for value in (result if isinstance(result, tuple | list) else [result]) if _counts(value)]
        if function.is_view or not values:
            return result
        if self.position == len(self.steps):
            self.steps.append(_Step(self.path[-1], self.numbered(packet.__name__)))
        step = self.steps[self.position]
        self.position += 1
        self.measure(step, packet, args, kwargs, values)
        return result

    def numbered(self, operator: str) -> str:
        """`add`, then `add_1`: the second of the same module."""
        before = self.counted[self.path[-1], operator]
        self.counted[self.path[-1], operator] += 1
        return f"{operator}_{before}" if before else operator

    def measure(self, step: _Step, packet: object, args: tuple, kwargs: dict, values: list[Tensor]) -> None:
        for value in values:
            low, high = value.aminmax()
            # A NaN, once seen, has to stay: min() would drop it.
            if not (math.isfinite(low) and math.isfinite(high)):
                step.low, step.high = -math.inf, math.inf
            step.low, step.high = min(step.low, float(low)), max(step.high, float(high))
        if packet in SUMS:
            SUMS[packet](step, *args, **kwargs)
        if packet in DIVISORS:
            divisor = DIVISORS[packet](*args)
            if isinstance(divisor, Tensor):
                size = divisor.abs()
                step.smallest = min(step.smallest, float(torch.where(size > 0, size, math.inf).min()))
        if packet in EPSILONS:
            step.epsilon = abs(self.scalar(args[1]))
            if step.epsilon and packet is aten.add:
                half = args[0].half()
                step.absorbed &= bool((half + self.scalar(args[1]) == half).all())

    def scalar(self, value: object) -> float:
        """A single constant, written in the code or held in a buffer; 0 for anything else."""
        if isinstance(value, Tensor):
            return float(value) if value.numel() == 1 and value.data_ptr() in self.constants else 0.0
        return float(value) if isinstance(value, float) else 0.0


def _counts(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0


def _convolution(step: _Step, x: Tensor, weight: Tensor, *rest: object) -> None:
    transposed, groups = rest[4], rest[6]
    if step.weights is None:
        taps = weight.detach().abs().flatten(2).sum(2)
        taps = taps.view(groups, -1, taps.shape[1])
        step.weights = taps.transpose(1, 2) if transposed else taps
        step.peaks = torch.zeros(x.shape[1])
    low, high = x.flatten(2).aminmax(dim=2)
    step.peaks = torch.maximum(step.peaks, torch.maximum(high, -low).amax(0))


def _product(step: _Step, x: Tensor, y: Tensor, **_: object) -> None:
    step.partial = max(step.partial, float((x.abs() @ y.abs()).max()))


def _biased_product(step: _Step, bias: Tensor, x: Tensor, y: Tensor, **_: object) -> None:
    _product(step, x, y)


def _sum(step: _Step, x: Tensor, axes: list[int] | None = None, *_: object, **__: object) -> None:
    sums = x.abs().sum(axes) if axes else x.abs().sum()
    step.partial = max(step.partial, float(sums.max()))


def _variance(step: _Step, x: Tensor, axes: list[int] | None = None, *_: object, **__: object) -> None:
    mean = x.mean(axes, keepdim=True) if axes else x.mean()
    _sum(step, (x - mean).square(), axes)


def _norm(step: _Step, x: Tensor, order: float = 2, axes: list[int] | None = None, *_: object, **__: object) -> None:
    _sum(step, x.abs() ** order if math.isfinite(order) else x, axes)


prims = torch.ops.prims
SUMS: dict[object, Callable] = {
    aten.convolution: _convolution,
    aten.mm: _product,
    aten.bmm: _product,
    aten.addmm: _biased_product,
    aten.sum: _sum,
    prims.sum: _sum,
    aten.mean: _sum,
    prims.var: _variance,
    aten.linalg_vector_norm: _norm,
}
"""Operators that add up, and how their partial sums are bounded."""
DIVISORS: dict[object, Callable] = {
    aten.div: lambda x, y, *_: y,
    aten.reciprocal: lambda x: x,
    aten.rsqrt: lambda x: x,
    aten.log: lambda x: x,
    aten.pow: lambda x, power, *_: x if isinstance(power, float | int) and power < 0 else None,
}
"""What an operator must not find to be zero."""
EPSILONS = {aten.add, aten.clamp_min, aten.clamp, aten.maximum}
"""Operators whose second argument keeps something away from zero, if it is one small constant."""
HIDING = {
    aten.native_layer_norm,
    aten.native_group_norm,
    aten.native_batch_norm,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_no_training,
    aten.var_mean,
    aten.var,
}
"""Operators that are taken apart so that their sums, epsilons and divisions are seen."""
