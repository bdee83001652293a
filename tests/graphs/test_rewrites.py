"""Rewrites of the per-frame network: same numbers, fewer multiply-accumulates, and what cannot be combined."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from mobile_avatar.avatar import Avatar
from mobile_avatar.cli.common import shipped
from mobile_avatar.errors import BadInput
from mobile_avatar.exporters.registry import targets
from mobile_avatar.graphs.deployment import WARPS
from mobile_avatar.graphs.even_heads import even_heads
from mobile_avatar.graphs.frame_generator import UpsampledConv, plain
from mobile_avatar.graphs.onnx_graph import count, to_onnx
from mobile_avatar.graphs.rewrites import ALWAYS, REWRITES, check_rewrites, rewrite
from mobile_avatar.graphs.rewrites.choice import CHOICES, default_rewrites
from mobile_avatar.graphs.rewrites.layers import MaximumActivation
from mobile_avatar.graphs.rewrites.upsampling import PhaseConv, SkipThenUpsample, transposed
from mobile_avatar.graphs.spec import graph_spec
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.models.bilayer.folded import FoldedGenerator
from tests.deployment_cases import SMALL, make_case

COMBINATIONS = [(), *[(name,) for name, row in REWRITES.items() if not row.needs], ALWAYS]
COMBINATIONS += [(*ALWAYS, "affine-conv"), *sorted({default_rewrites(target) for target in CHOICES})]


def generator(scale: int = 1, activation: str = "leaky_relu") -> FoldedGenerator:
    """Random numbers everywhere, in double precision, so that a wrong rewrite cannot hide in rounding."""
    config = dataclasses.replace(SMALL, inf_scale=scale, inf_activation=activation)
    return make_case("split", "NCHW", config).module.generator.double()


def largest_difference(first: nn.Module, second: nn.Module) -> float:
    keypoints = torch.rand(1, 136, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2 - 1
    return max(float((a - b).detach().abs().max()) for a, b in zip(first(keypoints), second(keypoints), strict=True))


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
@pytest.mark.parametrize(("scale", "activation"), [(1, "leaky_relu"), (2, "relu")])
def test_a_rewritten_network_computes_the_same(names: tuple[str, ...], scale: int, activation: str) -> None:
    folded = generator(scale, activation)
    assert largest_difference(folded, rewrite(folded, names).double()) < 1e-12


@pytest.mark.parametrize("names", [(*ALWAYS, "transposed"), (*ALWAYS, "phases"), default_rewrites("tflite")])
def test_the_default_avatar_is_unchanged_in_single_precision(names: tuple[str, ...]) -> None:
    folded = Avatar.load(shipped("default.avatar")).generator
    keypoints = torch.rand(4, 136, generator=torch.Generator().manual_seed(1)) * 2 - 1
    changed = rewrite(folded, names)
    for row in keypoints[:, None]:
        for a, b in zip(folded(row), changed(row), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [transposed, PhaseConv, lambda layer: PhaseConv(layer, channels_last=True)])
def test_upsampled_convolution_and_its_replacements_agree(make) -> None:
    layer = UpsampledConv(nn.Conv2d(5, 7, 3, padding=1))
    x = torch.randn(1, 5, 6, 6)
    torch.testing.assert_close(make(layer)(x), layer(x), atol=1e-5, rtol=0)


def test_skip_and_activation_agree_with_their_plain_versions() -> None:
    x, conv = torch.randn(2, 5, 6, 6), nn.Conv2d(5, 7, 1)
    torch.testing.assert_close(SkipThenUpsample(conv)(x), UpsampledConv(conv)(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(MaximumActivation(0.2)(x), nn.LeakyReLU(0.2)(x), atol=0, rtol=0)


def macs(preset: str, names: tuple[str, ...] | None) -> int:
    """Per frame; None: the official structure."""
    folded = FoldedGenerator(PRESETS[preset])
    network = plain(folded) if names is None else rewrite(folded, names)
    size = folded.config.image_size
    module = WARPS["split"](network, torch.zeros(1, 3, size, size), "NCHW").eval()
    return count(to_onnx(module, graph_spec("split", size, "NCHW")))[1]


def test_macs_before_and_after() -> None:
    official = macs("medium", None)
    assert official == pytest.approx(4.31e9, rel=2e-3)  # the published cost of a frame
    assert macs("medium", (*ALWAYS, "transposed")) <= 2.5e9
    assert macs("medium", default_rewrites("tflite")) <= 2.65e9  # phases compute one more row and column
    assert macs("mobile", ()) <= 1.0e9
    assert macs("mobile", default_rewrites("tflite")) <= 0.5e9
    assert macs("mobile-512", ()) < official


def test_every_target_has_a_choice_and_its_reason() -> None:
    assert set(targets()) <= set(CHOICES)
    for name in targets():
        assert check_rewrites(default_rewrites(name))
        assert CHOICES[name].fact


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("faster",), "unknown rewrite 'faster'"),
        (("transposed", "phases"), "exclude each other"),
        (("phases", "phases-nhwc"), "exclude each other"),
        (("affine-conv",), "needs affine"),
    ],
)
def test_what_cannot_be_is_refused(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        rewrite(generator(), names)


def test_even_heads_compute_the_same_and_share_a_range() -> None:
    case = make_case("split", "NCHW", SMALL, rewrites=default_rewrites("tflite"))
    keypoints = np.concatenate(case.vectors)
    case.module.generator.heads.weight.data[:2] *= 0.01
    changed = even_heads(case.module, keypoints)
    seen: list[torch.Tensor] = []
    changed.generator.tail.register_forward_pre_hook(lambda _, args: seen.append(args[0].abs().amax((0, 2, 3))))
    for row in torch.from_numpy(keypoints)[:, None]:
        for a, b in zip(case.module(row), changed(row), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    peaks = [part.max().item() for part in torch.stack(seen).amax(0).split((2, 3, 1))]
    assert max(peaks) < 1.001 * min(peaks)
