"""The phone's rendering network: its size, its folding, its operators."""

import pytest
import torch
from torch import nn

from mobile_avatar.errors import BadInput
from mobile_avatar.graphs.onnx_graph import count, to_onnx
from mobile_avatar.graphs.spec import GraphSpec, TensorSpec
from mobile_avatar.models.rome.compact_renderer import FEATURES, CompactConfig, CompactRenderer

TINY = CompactConfig(image_size=16, width=4, middle=1)


def lively(config: CompactConfig = TINY) -> CompactRenderer:
    """Random weights and running statistics: no batch norm is an identity."""
    torch.manual_seed(0)
    network = CompactRenderer(config).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network


def test_folding_changes_nothing_and_leaves_no_norm() -> None:
    network, features = lively(), torch.randn(2, FEATURES, 16, 16)
    folded = network.fold()
    with torch.no_grad():
        expected = network(features)
    assert expected.std(dim=(2, 3)).min() > 0.01
    torch.testing.assert_close(folded(features), expected, atol=5e-5, rtol=0)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules()), "the original was changed"


def test_folded_weights_load_into_the_folded_structure() -> None:
    features, stored = torch.randn(1, FEATURES, 16, 16), lively().fold()
    again = CompactRenderer.folded(TINY)
    assert not torch.equal(again(features), stored(features))
    again.load_state_dict(stored.state_dict())
    assert torch.equal(again(features), stored(features))


def test_default_fits_the_budget_in_operators_of_every_runtime() -> None:
    config = CompactConfig()
    spec = GraphSpec(
        (TensorSpec("features", (1, FEATURES, 256, 256), "NCHW", (-1.0, 1.0)),),
        (TensorSpec("rgba", (1, 4, 256, 256), "NCHW", (0.0, 1.0)),),
    )
    model = to_onnx(CompactRenderer.folded(config), spec)
    parameters, macs = count(model)
    assert macs == 2_570_059_776 <= 3e9
    assert parameters < 1e6
    kinds = {node.op_type for node in model.graph.node} - {"Constant", "Identity"}
    assert kinds == {"Conv", "Relu", "Add", "Resize", "Sigmoid"}


def test_a_fresh_renderer_shows_the_textured_mesh() -> None:
    torch.manual_seed(0)
    colours, covered = torch.rand(1, 3, 16, 16), (torch.rand(1, 1, 16, 16) > 0.5).float()
    person = (2 * (torch.rand(1, 1, 16, 16) > 0.3).float() - 1) * covered
    rest = torch.randn(1, FEATURES - 5, 16, 16) * covered
    features = torch.cat((colours * covered, person, rest, covered), dim=1)
    image, mask = CompactRenderer(TINY).eval()(features).split((3, 1), dim=1)
    error = ((image - colours).abs() * covered).sum() / (3 * covered.sum())
    assert error < 0.1
    assert ((mask > 0.5) == ((covered > 0.5) & (person > 0))).all()


def test_all_weights_learn() -> None:
    network = lively().train()
    out = network(torch.randn(2, FEATURES, 16, 16))
    assert out.shape == (2, 4, 16, 16)
    assert 0 <= out.min() < out.max() <= 1
    out.pow(2).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"image_size": 100}, "image_size"),
        ({"width": 0}, "width"),
        ({"middle": 0}, "middle"),
        ({"width": 1000}, "width"),
    ],
)
def test_impossible_sizes_are_refused(values: dict, word: str) -> None:
    with pytest.raises(BadInput, match=word):
        CompactConfig(**values)


@pytest.mark.parametrize("values", [{}, [], {"width": 16}, CompactConfig().to_dict() | {"width": "16"}])
def test_config_of_a_file_is_checked(values: object) -> None:
    assert CompactConfig.from_dict(TINY.to_dict(), "x") == TINY
    with pytest.raises(BadInput, match="the file"):
        CompactConfig.from_dict(values, "the file")
