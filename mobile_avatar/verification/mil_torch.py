"""CoreML's intermediate language (MIL) evaluated in torch, for machines that cannot run CoreML.

Every value keeps the type that the program declares: what is float16 there is rounded to float16 after its operation
(overflow becomes inf), while the sums inside an operation are float32. The meaning of each operation follows the MIL
operator reference (opsets CoreML6 and CoreML7 / iOS 16 and 17); an operation or option that is not listed here is
refused, never guessed.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.errors import CheckFailed, first_line
from mobile_avatar.verification.coreml_package import Operation, Program, Value

Arguments = dict[str, Value | list[Value]]
OPERATIONS: dict[str, Callable[[Arguments], Tensor]] = {
    "add": lambda a: a["x"] + a["y"],
    "sub": lambda a: a["x"] - a["y"],
    "mul": lambda a: a["x"] * a["y"],
    "real_div": lambda a: a["x"] / a["y"],
    "sqrt": lambda a: a["x"].sqrt(),
    "reduce_sum": lambda a: a["x"].sum(_integers(a["axes"]), keepdim=bool(a.get("keep_dims", False))),
    "reduce_mean": lambda a: a["x"].mean(_integers(a["axes"]), keepdim=bool(a.get("keep_dims", False))),
    "maximum": lambda a: torch.maximum(a["x"], a["y"]),
    "relu": lambda a: a["x"].relu(),
    "tanh": lambda a: a["x"].tanh(),
    "sigmoid": lambda a: a["x"].sigmoid(),
    "sin": lambda a: a["x"].sin(),
    "cos": lambda a: a["x"].cos(),
    "clip": lambda a: a["x"].clamp(float(a["alpha"]), float(a["beta"])),
    "cast": lambda a: a["x"],  # the declared output type does the rest
    "transpose": lambda a: a["x"].permute(*_integers(a["perm"])),
    "leaky_relu": lambda a: torch.where(a["x"] >= 0, a["x"], a["x"] * a["alpha"]),
    "linear": lambda a: F.linear(a["x"], a["weight"], a.get("bias")),
}


def evaluate(
    program: Program, inputs: dict[str, Tensor], note: Callable[[str, Tensor], None] | None = None
) -> dict[str, Tensor]:
    """Outputs of `program` by name, in the types that it declares.

    Args:
        inputs: One tensor per input of the program, of its shape.
        note: Called with the name and value of every tensor that is computed, in order.

    Raises:
        CheckFailed: an operation or option is unknown, a name is missing or a result has another shape than declared.
    """
    values: dict[str, Value] = dict(program.constants)
    for declared in program.inputs:
        values[declared.name] = inputs[declared.name].to(declared.dtype).reshape(declared.shape)
    with torch.no_grad():
        for operation in program.operations:
            _step(operation, values)
            if note is not None:
                note(operation.outputs[0].name, values[operation.outputs[0].name])
    missing = [name for name in program.outputs if name not in values]
    if missing:
        raise CheckFailed(f"the program never computes its output {missing[0]!r}; the file is damaged")
    return {name: values[name] for name in program.outputs}


def means(name: str) -> Callable[[Callable[[Arguments], Tensor]], Callable[[Arguments], Tensor]]:
    """Decorate the meaning of one operation."""

    def add(function: Callable[[Arguments], Tensor]) -> Callable[[Arguments], Tensor]:
        OPERATIONS[name] = function
        return function

    return add


def _step(operation: Operation, values: dict[str, Value]) -> None:
    where = f"operation {operation.type!r} ({operation.name})"
    if operation.type not in OPERATIONS or len(operation.outputs) != 1:
        raise CheckFailed(f"{where} is not known to the MIL evaluator; this file can only be checked on macOS")
    declared = operation.outputs[0]
    try:
        arguments: Arguments = {key: _bound(key, bound, values) for key, bound in operation.inputs.items()}
        result = OPERATIONS[operation.type](arguments)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise CheckFailed(f"{where} cannot be evaluated: {reason}") from error
    if tuple(result.shape) != declared.shape:
        raise CheckFailed(f"{where} gives shape {tuple(result.shape)}, but the file declares {declared.shape}")
    values[declared.name] = result.to(declared.dtype)


def _bound(key: str, bound: list, values: dict[str, Value]) -> Value | list[Value]:
    found = [_widen(values[entry] if isinstance(entry, str) else entry) for entry in bound]
    return found if key == "values" else found[0]


def _widen(value: Value) -> Value:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value


def _integers(value: Tensor) -> list[int]:
    return [int(entry) for entry in value.flatten()]


def _only(arguments: Arguments, name: str, allowed: object, default: object = None) -> None:
    """Refuse an option whose value this evaluator does not model."""
    value = arguments.get(name, default)
    value = value.item() if isinstance(value, Tensor) else value
    if value != allowed:
        raise ValueError(f"{name}={value!r} is not known to the MIL evaluator")


@means("conv")
def conv(a: Arguments) -> Tensor:
    """x (N, C, *D), weight (O, C / groups, *K); pad_type valid, custom, same (odd pixel behind) or same_lower."""
    x, weight = a["x"], a["weight"]
    rank = x.ndim - 2
    ones = torch.ones(rank, dtype=torch.int32)
    strides, dilations = _integers(a.get("strides", ones)), _integers(a.get("dilations", ones))
    kind = a.get("pad_type", "valid")
    if kind == "custom":
        pads = _integers(a["pad"])
    elif kind == "valid":
        pads = [0] * (2 * rank)
    elif kind in ("same", "same_lower"):
        pads = []
        for size, kernel, stride, dilation in zip(x.shape[2:], weight.shape[2:], strides, dilations, strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            small = total // 2
            pads += [small, total - small] if kind == "same" else [total - small, small]
    else:
        raise ValueError(f"pad_type={kind!r} is not known to the MIL evaluator")
    # MIL lists (before, after) from the first spatial axis, torch from the last.
    x = F.pad(x, [pad for axis in reversed(range(rank)) for pad in pads[2 * axis : 2 * axis + 2]])
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank]
    groups = int(a["groups"]) if "groups" in a else 1
    return function(x, weight, a.get("bias"), strides, 0, dilations, groups)


@means("conv_transpose")
def conv_transpose(a: Arguments) -> Tensor:
    """x (N, C, *D), weight (C, O / groups, *K); pad_type valid, or custom: what `pad` cuts off the full result."""
    x, rank = a["x"], a["x"].ndim - 2
    kind = a.get("pad_type", "valid")
    if kind not in ("valid", "custom"):
        raise ValueError(f"pad_type={kind!r} is not known to the MIL evaluator")
    ones = torch.ones(rank, dtype=torch.int32)
    strides, dilations = _integers(a.get("strides", ones)), _integers(a.get("dilations", ones))
    function = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[rank]
    groups = int(a["groups"]) if "groups" in a else 1
    full = function(x, a["weight"], a.get("bias"), strides, 0, 0, groups, dilations)
    pads = _integers(a["pad"]) if kind == "custom" else [0] * (2 * rank)
    return F.pad(full, [-pad for axis in reversed(range(rank)) for pad in pads[2 * axis : 2 * axis + 2]])


@means("pixel_shuffle")
def pixel_shuffle(a: Arguments) -> Tensor:
    """(N, C * f * f, H, W) -> (N, C, H * f, W * f)."""
    return F.pixel_shuffle(a["x"], int(a["upscale_factor"]))


@means("matmul")
def matmul(a: Arguments) -> Tensor:
    """Batched product with optional transposition of the last two axes of either side."""
    x, y = a["x"], a["y"]
    x = x.transpose(-1, -2) if a.get("transpose_x") else x
    return x @ (y.transpose(-1, -2) if a.get("transpose_y") else y)


@means("batch_norm")
def batch_norm(a: Arguments) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta along axis 1."""
    epsilon = float(a["epsilon"]) if "epsilon" in a else 1e-5
    return F.batch_norm(a["x"], a["mean"], a["variance"], a.get("gamma"), a.get("beta"), eps=epsilon)


@means("reshape")
def reshape(a: Arguments) -> Tensor:
    """`shape` may hold one -1 (the rest) and zeros (the size of that axis in x)."""
    shape = [a["x"].shape[i] if size == 0 else size for i, size in enumerate(_integers(a["shape"]))]
    return a["x"].reshape(shape)


@means("expand_dims")
def expand_dims(a: Arguments) -> Tensor:
    """New axes of size 1 at the positions `axes` of the result."""
    x, axes = a["x"], _integers(a["axes"])
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@means("concat")
def concat(a: Arguments) -> Tensor:
    """Joined along `axis`."""
    _only(a, "interleave", False, False)
    return torch.cat(a["values"], int(a["axis"]))


@means("gather")
def gather(a: Arguments) -> Tensor:
    """Entries `indices` of `axis`; the axes of indices take its place."""
    _only(a, "batch_dims", 0, 0)
    _only(a, "validate_indices", False, False)
    x, axis, indices = a["x"], int(a.get("axis", 0)), a["indices"].long()
    taken = x.index_select(axis, indices.flatten() % x.shape[axis])
    return taken.unflatten(axis, indices.shape) if indices.ndim != 1 else taken


@means("slice_by_index")
def slice_by_index(a: Arguments) -> Tensor:
    """numpy's x[begin:end:stride] per axis; a set mask bit means 'from the start', 'to the end' or 'drop the axis'."""
    x = a["x"]
    unset = torch.zeros(x.ndim, dtype=torch.bool)
    strides = _integers(a["stride"]) if "stride" in a else [1] * x.ndim
    masks = [a.get(name, unset) for name in ("begin_mask", "end_mask", "squeeze_mask")]
    index = []
    for axis, (begin, end) in enumerate(zip(_integers(a["begin"]), _integers(a["end"]), strict=True)):
        from_start, to_end, squeeze = (bool(mask[axis]) for mask in masks)
        cut = slice(None if from_start else begin, None if to_end else end, strides[axis])
        index.append(begin if squeeze else cut)
    return torch.from_numpy(x.numpy()[tuple(index)].copy())


@means("upsample_nearest_neighbor")
def upsample_nearest_neighbor(a: Arguments) -> Tensor:
    """Each pixel repeated; whole factors only."""
    x = a["x"]
    for axis, name in ((2, "scale_factor_height"), (3, "scale_factor_width")):
        factor = float(a[name]) if name in a else 1.0
        if factor != int(factor):
            raise ValueError(f"{name}={factor} is not known to the MIL evaluator")
        x = x.repeat_interleave(int(factor), axis)
    return x


@means("upsample_bilinear")
def upsample_bilinear(a: Arguments) -> Tensor:
    """The scale is that of the rounded-down result's size, not the given factor."""
    x = a["x"]
    factors = (a.get("scale_factor_height", 1), a.get("scale_factor_width", 1))
    size = [math.floor(length * float(factor)) for length, factor in zip(x.shape[2:], factors, strict=True)]
    return F.interpolate(x, size, mode="bilinear", align_corners=bool(a.get("align_corners", True)))


@means("quantize")
def quantize(a: Arguments) -> Tensor:
    """input / scale, rounded half to even, + zero point, clipped to the integers of `output_dtype`."""
    limits = torch.iinfo({"int8": torch.int8, "uint8": torch.uint8}[a["output_dtype"]])
    scale, zero = _along(a, "scale", "input"), _along(a, "zero_point", "input")
    return ((a["input"] / scale).round() + zero).clamp(limits.min, limits.max)


@means("dequantize")
def dequantize(a: Arguments) -> Tensor:
    """scale * (input - zero point)."""
    return _along(a, "scale", "input") * (a["input"].float() - _along(a, "zero_point", "input"))


@means("constexpr_affine_dequantize")
def constexpr_affine_dequantize(a: Arguments) -> Tensor:
    """scale * (quantized_data - zero point): weights that are stored as 8-bit integers."""
    data = a["quantized_data"]
    return _along(a, "scale", "quantized_data") * (data.float() - _along(a, "zero_point", "quantized_data"))


def _along(a: Arguments, name: str, data: str) -> Tensor:
    """A scale or zero point, one number or one per entry of `axis`, in float32 and shaped to meet `data`."""
    value = a.get(name, torch.zeros(())).float()
    if value.ndim == 0:
        return value
    shape = [1] * a[data].ndim
    shape[int(a["axis"])] = -1
    return value.reshape(shape)


@means("resample")
def resample(a: Arguments) -> Tensor:
    """Bilinear sampling of x (N, C, H, W) at coordinates (N, h, w, 2) = (x, y) in [-1, 1], constant outside."""
    _only(a, "sampling_mode", "bilinear")
    _only(a, "padding_mode", "constant")
    _only(a, "coordinates_mode", "normalized_minus_one_to_one")
    outside = float(a["padding_value"])
    grid = a["coordinates"].float()
    return F.grid_sample(a["x"] - outside, grid, "bilinear", "zeros", bool(a["align_corners"])) + outside
