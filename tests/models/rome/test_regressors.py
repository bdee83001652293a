"""Regressors of codes: torchvision's tensors and sizes, the order of codes, weights that the user brings."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.mobilenet_v2 import MobileNetV2
from mobile_avatar.models.rome.regressors import FlameEncoder, basis_regressor, frame_regressor, split_frame_codes
from mobile_avatar.models.rome.resnet50 import ResNet50
from mobile_avatar.training.backbones import load_torchvision
from tests.models.rome.official import SMALL

RELEASED = RomeConfig()
BUILDERS = {"linear_hair.pth": basis_regressor, "disp_model.pth": frame_regressor, "E_flame": FlameEncoder}


def measure(build, side: int) -> tuple[nn.Module, float]:
    """A network without memory, and its 1e9 multiply-accumulates for one picture."""
    with torch.device("meta"):
        network = build().eval()
        counter = FlopCounterMode(display=False)
        with counter:
            network(torch.empty(1, 3, side, side))
    return network, counter.get_total_flops() / 2e9


# Tensors, parameters and 1e9 multiply-accumulates of the release (section 1.4 of its description).
KNOWN = [
    (lambda: basis_regressor(RELEASED), 256, 320, 23_630_972, 5.338),
    (lambda: frame_regressor(RELEASED), 256, 314, 2_299_451, 0.391),
    (lambda: FlameEncoder(RELEASED), 224, 322, 25_848_108, 4.089),
]


@pytest.mark.parametrize(("build", "side", "tensors", "parameters", "macs"), KNOWN)
def test_known_sizes(build, side, tensors, parameters, macs):
    network, counted = measure(build, side)
    assert len(network.state_dict()) == tensors
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert counted == pytest.approx(macs, abs=0.0006)


@pytest.mark.parametrize(("build", "parameters"), [(ResNet50, 25_557_032), (MobileNetV2, 3_504_872)])
def test_sizes_that_torchvision_documents(build, parameters):
    with torch.device("meta"):
        network = build(1000)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("name", BUILDERS)
def test_released_tensors(shared, name):
    facts = json.loads((shared / "specs/rome_state_dict.json").read_text())
    stored = facts["deca_model.tar"][name] if name == "E_flame" else facts[name]
    with torch.device("meta"):
        state = BUILDERS[name](RELEASED).state_dict()
    assert list(state) == list(stored)
    for key, value in state.items():
        assert tuple(value.shape) == tuple(stored[key]["shape"]), key
        assert str(value.dtype) == f"torch.{stored[key]['dtype']}", key


@torch.no_grad()
def test_strides_and_pools():
    """Sides of the maps inside, where a stride in another place would keep all tensor shapes."""
    sides = {}
    network = ResNet50(3, 8).eval()
    for name in ("conv1", "maxpool", "layer1", "layer2.0.conv1", "layer2.0.conv2", "layer2", "layer3", "layer4"):
        network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: sides.update({name: output.shape[-1]})
        )
    network(torch.rand(1, 3, 64, 64))
    assert list(sides.values()) == [32, 16, 16, 16, 8, 8, 4, 2]
    small, x = MobileNetV2(3, 0.25).eval(), torch.rand(1, 3, 64, 64)
    after = []
    for layer in small.features:
        x = layer(x)
        after.append(x.shape[-1])
    assert after == [32, 32, *[16] * 2, *[8] * 3, *[4] * 7, *[2] * 5]
    with torch.device("meta"):
        standard = MobileNetV2(3)
    assert [layer.adds for layer in standard.features[1:-1]] == [
        *[False, False, True, False, True, True, False, True, True, True],
        *[False, True, True, False, True, True, False],
    ]


@torch.no_grad()
def test_activations_and_normalisation():
    """One inverted residual by hand: clipped at six twice, linear at the end, added."""
    torch.manual_seed(0)
    block = MobileNetV2(3, 0.25).eval().features[3]
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.01, 0.2)
    x = torch.randn(2, 8, 8, 8) * 3
    expand, depthwise, project, last = block.conv

    def normalised(y, layer):
        shape = (1, -1, 1, 1)
        y = (y - layer.running_mean.view(shape)) / (layer.running_var.view(shape) + 1e-5).sqrt()
        return y * layer.weight.view(shape) + layer.bias.view(shape)

    y = normalised(torch.conv2d(x, expand[0].weight), expand[1]).clamp(0, 6)
    assert (y == 6).any()
    y = normalised(torch.conv2d(y, depthwise[0].weight, padding=1, groups=y.shape[1]), depthwise[1]).clamp(0, 6)
    y = normalised(torch.conv2d(y, project.weight), last)
    torch.testing.assert_close(block(x), x + y, atol=1e-4, rtol=1e-4)


def test_order_of_codes():
    values = torch.arange(59.0).repeat(2, 1)
    codes = split_frame_codes(values, RELEASED)
    assert codes.expression[0].tolist() == list(range(50))
    assert codes.pose[1].tolist() == list(range(50, 56))
    assert codes.camera[0].tolist() == [56, 57, 58]


@torch.no_grad()
def test_order_of_deca_codes():
    with torch.device("meta"):
        encoder = FlameEncoder(RELEASED)
    assert encoder.sizes == (100, 50, 50, 6, 3, 27)
    encoder = FlameEncoder(SMALL).eval()
    encoder.layers[2].weight.zero_()
    encoder.layers[2].bias.copy_(torch.arange(116.0))
    codes = encoder(torch.rand(2, 3, 64, 64))
    assert codes.shape[0].tolist() == list(range(20))
    assert codes.albedo[0, 0] == 20
    assert codes.expression[1].tolist() == list(range(70, 80))
    assert codes.pose[0].tolist() == list(range(80, 86))
    assert codes.camera[0].tolist() == [86, 87, 88]
    assert codes.light.shape == (2, 9, 3)
    assert codes.light[0, 1].tolist() == [92, 93, 94]


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("build", [lambda n: ResNet50(n, 8), lambda n: MobileNetV2(n, 0.25)])
def test_imagenet_weights_get_a_new_head(tmp_path, build, suffix):
    torch.manual_seed(0)
    trained, path = build(10), tmp_path / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(trained.state_dict(), path)
    network = build(6)
    own = network.state_dict()[f"{network.head}.weight"].clone()
    assert load_torchvision(network, path) is False
    for key, value in network.state_dict().items():
        assert torch.equal(value, own if key == f"{network.head}.weight" else trained.state_dict()[key]) or (
            key == f"{network.head}.bias"
        )
    same = build(10)
    assert load_torchvision(same, path) is True
    assert torch.equal(same.state_dict()[f"{same.head}.weight"], trained.state_dict()[f"{same.head}.weight"])


def test_old_files_do_not_count_batches(tmp_path):
    state = {k: v for k, v in ResNet50(4, 8).state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "w.pth")
    assert load_torchvision(ResNet50(4, 8), tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("layer2.0.conv2.weight"), "layer2.0.conv2.weight is missing.*not a ResNet50"),
        (lambda state: state.update({"conv1.weight": torch.zeros(8, 3, 3, 3)}), r"has shape \(8, 3, 3, 3\)"),
        (lambda state: state.update({"classifier.1.bias": torch.zeros(3)}), "1 tensors that no ResNet50.*classifier"),
    ],
)  # fmt: skip
def test_other_networks_are_refused(tmp_path, change, words):
    state = ResNet50(4, 8).state_dict()
    change(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(BadInput, match=words):
        load_torchvision(ResNet50(4, 8), tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"none\.pth"):
        load_torchvision(ResNet50(4, 8), tmp_path / "none.pth")
