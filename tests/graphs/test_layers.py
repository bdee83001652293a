import json

import pytest
import torch
from torch import nn

from mobile_avatar.benchmarking.network import network_layers
from mobile_avatar.benchmarking.reference_models import reference_layers
from mobile_avatar.errors import BadInput
from mobile_avatar.graphs.deployment import WARPS
from mobile_avatar.graphs.layers import Layer, layer_table, load_layers, save_layers
from mobile_avatar.graphs.onnx_graph import count, to_onnx
from mobile_avatar.graphs.rewrites import rewrite
from mobile_avatar.graphs.rewrites.choice import CHOICES
from mobile_avatar.graphs.spec import GraphSpec, TensorSpec, graph_spec
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.models.bilayer.folded import FoldedGenerator
from tests.deployment_cases import SMALL


def table(module: nn.Module, inputs: dict[str, tuple], outputs: dict[str, tuple]) -> tuple[Layer, ...]:
    tensors = (
        [TensorSpec(name, shape, "NCHW", (-1, 1)) for name, shape in group.items()] for group in (inputs, outputs)
    )
    return layer_table(to_onnx(module.eval(), GraphSpec(*map(tuple, tensors))))


def work(layer: Layer) -> tuple:
    return layer.type, layer.macs, layer.weights, layer.read, layer.written


def test_exact_work_of_known_layers():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), nn.ConvTranspose2d(8, 4, 2, 2)
    )
    found = table(module, {"x": (1, 3, 16, 16)}, {"y": (1, 4, 16, 16)})
    assert [work(layer) for layer in found] == [
        ("Conv", 16 * 16 * 8 * 27, 8 * 27 + 8, 3 * 256, 8 * 256),
        ("Conv", 8 * 8 * 8 * 9, 8 * 9 + 8, 8 * 256, 8 * 64),
        ("ConvTranspose", 8 * 8 * 8 * 4 * 4, 8 * 4 * 4 + 4, 8 * 64, 4 * 256),
    ]
    linear = table(nn.Linear(10, 6), {"x": (1, 10)}, {"y": (1, 6)})
    assert [work(layer) for layer in linear] == [("Gemm", 60, 66, 10, 6)]


class Residual(nn.Module):
    """A scale, a convolution with an activation, and the input added again."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, 4, 1, 1), 2.0))
        self.conv = nn.Conv2d(4, 4, 1, bias=False)

    def forward(self, x):
        y = x * self.scale
        return torch.relu(self.conv(y)).reshape(1, 4, 8, 8) + y


def test_element_wise_operators_belong_to_the_layer_before_them_where_nobody_else_reads_it():
    first, second = table(Residual(), {"x": (1, 4, 8, 8)}, {"y": (1, 4, 8, 8)})
    # The scaled input is read twice, so it has to be written; the view between ReLU and addition costs nothing.
    assert work(first) == ("Mul", 0, 4, 256, 256)
    assert work(second) == ("Conv+Relu+Add", 4 * 4 * 64, 16, 256 + 256, 256)


def test_movements_of_data_in_a_row_are_one_and_slices_read_what_they_give():
    class Moves(nn.Module):
        def forward(self, x):
            return x[:, :, 1:, 1:].permute(0, 2, 3, 1).permute(0, 3, 2, 1) * 2

    found = table(Moves(), {"x": (1, 2, 9, 9)}, {"y": (1, 2, 8, 8)})
    assert [work(layer) for layer in found] == [("Slice", 0, 0, 128, 128), ("Transpose+Mul", 0, 1, 128, 128)]


@pytest.mark.parametrize(("target", "warp"), [("snpe", "native"), ("tflite", "gather"), ("coreml", "split")])
def test_multiply_accumulates_sum_up_to_those_of_the_manifest(target, warp):
    generator = rewrite(FoldedGenerator(SMALL).eval(), CHOICES[target].rewrites)
    module = WARPS[warp](generator, torch.zeros(1, 3, 64, 64), "NCHW").eval()
    model = to_onnx(module, graph_spec(warp, 64, "NCHW"))
    found = layer_table(model)
    assert sum(layer.macs for layer in found) == count(model)[1]
    assert found == network_layers(SMALL, CHOICES[target].rewrites, warp), "weights do not matter"
    assert all(layer.written > 0 and layer.read > 0 for layer in found)
    assert len(found) < len(model.graph.node) / 2


def test_the_written_down_official_medium_model_is_the_traced_one():
    traced = network_layers(PRESETS["medium"], (), "split")
    assert sum(layer.macs for layer in traced) == 4_314_007_552
    written = reference_layers("bi-layer medium as released")
    plain = [(layer.type.partition("+")[0], *work(layer)[1:]) for layer in traced]
    assert sorted(plain) == sorted(work(layer) for layer in written)


def test_a_table_survives_the_file_and_a_damaged_file_is_told(tmp_path):
    found = table(Residual(), {"x": (1, 4, 8, 8)}, {"y": (1, 4, 8, 8)})
    path = tmp_path / "layers.json"
    save_layers(found, path)
    assert load_layers(path) == found
    content = json.loads(path.read_text())
    for damage in ({"macs": -1}, {"macs": 1.5}, {"read": None}, {"name": 3}):
        path.write_text(json.dumps(content | {"layers": [content["layers"][0] | damage]}))
        with pytest.raises(BadInput, match=r"layers\.json is not a table of layers.*export the bundle again"):
            load_layers(path)
    for text in ("", "{}", "[]", json.dumps(content | {"format": 9}), json.dumps(content | {"layers": []})):
        path.write_text(text)
        with pytest.raises(BadInput, match="not a table of layers"):
            load_layers(path)
