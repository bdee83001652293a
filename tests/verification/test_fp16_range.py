"""Warnings of half precision: a graph that overflows, one whose epsilon vanishes, and the shipped avatar."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mobile_avatar.avatar import Avatar
from mobile_avatar.cli.common import shipped
from mobile_avatar.graphs.deployment import WARPS
from mobile_avatar.quantization.calibration import load_calibration
from mobile_avatar.verification.fp16_range import LIMIT, TensorRange, fp16_warnings, ranges
from tests.deployment_cases import SMALL, make_case

VECTORS = np.random.default_rng(0).uniform(-1, 1, (12, 136)).astype(np.float32)


def named(found: list[TensorRange], name: str, operator: str) -> TensorRange:
    (one,) = (tensor for tensor in found if (tensor.name, tensor.operator) == (name, operator))
    return one


def test_shipped_avatar_is_clean_and_every_tensor_is_measured() -> None:
    avatar = Avatar.load(shipped("default.avatar"))
    module = WARPS["split"](avatar.generator, avatar.texture, "NCHW").eval()
    found = ranges(module, load_calibration().keypoints[::8])  # every export looks at all of them
    assert fp16_warnings(found) == []
    names = {tensor.name for tensor in found}
    layers = {name for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    assert layers <= names
    assert {name for name, _ in module.named_parameters()} <= names


@pytest.mark.parametrize("warp", ["split", "native"])
def test_ranges_are_those_of_the_layers(warp: str) -> None:
    """Batched (split) or one by one (native): against the extremes of a hook, and the exact sums of magnitudes."""
    module = make_case(warp, "NCHW", SMALL).module
    layer, seen, sums = module.generator.blocks[1].conv2, [], []

    def look(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.append((float(output.min()), float(output.max())))
        sums.append(float(nn.functional.conv2d(inputs[0].abs(), layer.weight.abs(), padding=1).max()))

    hook = layer.register_forward_hook(look)
    with torch.no_grad():
        for row in torch.from_numpy(VECTORS)[:, None]:
            module(row)
    hook.remove()
    found = named(ranges(module, VECTORS), "generator.blocks.1.conv2", "convolution")
    assert found.low == pytest.approx(min(low for low, _ in seen), rel=1e-4)
    assert found.high == pytest.approx(max(high for _, high in seen), rel=1e-4)
    assert max(sums) <= found.partial <= 30 * max(sums)


def test_overflow_is_warned_of_with_its_layer_and_happens() -> None:
    module = make_case("split", "NCHW", SMALL).module
    with torch.no_grad():
        module.generator.blocks[1].conv1.weight.mul_(1e6)
        module.generator.blocks[1].conv2.weight.div_(1e6)
        vectors = torch.from_numpy(VECTORS)
        assert all(value.isfinite().all() for value in module(vectors)), "float32 does not notice"
        sentences = fp16_warnings(ranges(module, VECTORS))
        assert any(s.startswith("generator.blocks.1.conv1 (convolution) reaches ") for s in sentences)
        assert all("generator.blocks.1" in sentence for sentence in sentences), sentences
        assert not all(value.isfinite().all() for value in module.half()(vectors.half())), "but half precision does"


def test_near_the_end_is_warned_of() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2.0e4

    (sentence,) = fp16_warnings(ranges(Twice(), VECTORS))
    assert sentence.startswith("the graph itself (mul) reaches")
    assert "near the end of half precision" in sentence


class Cancelling(nn.Module):
    """Large products of both signs: the sum is small, half-precision partial sums are not."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.layer = (nn.ConvTranspose2d if transposed else nn.Conv2d)(136, 1, 1, bias=False)
        weight = torch.full((136,), 2000.0)
        weight[68:] *= -1
        self.layer.weight = nn.Parameter(weight.view_as(self.layer.weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, :, None, None])


@pytest.mark.parametrize("transposed", [False, True])
def test_partial_sums_that_leave_half_precision_are_warned_of(transposed: bool) -> None:
    module = Cancelling(transposed)
    ones = np.ones((2, 136), np.float32)
    found = named(ranges(module, ones), "layer", "convolution")
    assert (found.low, found.high, found.partial) == (0, 0, 136 * 2000)
    (sentence,) = fp16_warnings([found])
    assert sentence.startswith("layer (convolution) stays at 0, but its partial sums")
    with np.errstate(over="ignore"):
        steps = np.cumsum((ones[0] * module.layer.weight.detach().numpy().ravel()).astype(np.float16), dtype=np.float16)
    assert np.isinf(steps).any()


class Normalising(nn.Module):
    """x / sqrt(mean(x^2) + epsilon), in its own layer."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.norm = nn.Module()
        self.norm.forward = lambda x: x * (x.square().mean(1, keepdim=True) + epsilon).rsqrt()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


def test_vanishing_epsilon_is_warned_of_with_its_layer_and_vanishes() -> None:
    flat = np.concatenate([VECTORS, np.zeros((1, 136), np.float32)])
    module = Normalising(1e-8)
    assert module(torch.from_numpy(flat)).isfinite().all()
    added, divided = fp16_warnings(ranges(module, flat))
    assert added == "norm (add): the constant 1e-08 becomes 0 in half precision"
    assert divided == "norm (rsqrt): it divides by 1e-08, which becomes 0 in half precision"
    assert not module.half()(torch.from_numpy(flat).half()).isfinite().all()
    assert fp16_warnings(ranges(Normalising(1e-3), flat)) == []


def test_epsilon_that_is_never_seen_beside_its_sum_is_warned_of() -> None:
    module = Normalising(1e-4)
    (sentence,) = fp16_warnings(ranges(module, VECTORS))
    assert sentence == "norm (add): the constant 0.0001 disappears beside what it is added to in half precision"
    variance = torch.from_numpy(VECTORS).square().mean(1).half()
    assert torch.equal(variance + 1e-4, variance)


@pytest.mark.parametrize(
    ("norm", "name"),
    [
        (nn.LayerNorm(136, eps=1e-8), "norm (add)"),
        (nn.GroupNorm(4, 136, eps=1e-8), "norm (add)"),
        (nn.BatchNorm1d(136, eps=1e-8), "norm (add)"),
    ],
)
def test_norms_are_taken_apart(norm: nn.Module, name: str) -> None:
    module = nn.Module()
    module.norm = norm
    module.forward = lambda x: module.norm(x)
    found = ranges(module.eval(), VECTORS)
    assert f"{name}: the constant 1e-08 becomes 0 in half precision" in fp16_warnings(found)
    module.norm.eps = 1e-2
    assert fp16_warnings(ranges(module, VECTORS)) == []


def test_squares_inside_a_norm_are_counted() -> None:
    module = nn.LayerNorm(136, eps=1e-2)
    sentences = fp16_warnings(ranges(module, VECTORS * 100))
    assert any("partial sums" in sentence for sentence in sentences), sentences
    spread = VECTORS[0] * 100 - VECTORS[0].mean() * 100
    assert (spread**2).sum() > LIMIT


def test_weights_and_damage_are_warned_of() -> None:
    layer = nn.Linear(136, 2)
    with torch.no_grad():
        layer.weight[0, 0] = 1e5
        layer.bias[1] = float("nan")
    sentences = fp16_warnings(ranges(layer, VECTORS))
    assert any(s.startswith("weight (constant) reaches 1e+05 and becomes infinite") for s in sentences)
    assert "bias (constant) is not finite even in float32; the weights are damaged" in sentences
    assert "the graph itself (addmm) is not finite even in float32; the weights are damaged" in sentences
