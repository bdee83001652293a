import numpy as np
import onnx
import onnxsim
import pytest
import torch
from onnx import TensorProto
from torch import nn

from mobile_avatar.errors import CheckFailed
from mobile_avatar.graphs.deployment import WARPS
from mobile_avatar.graphs.onnx_graph import OPSET, count, simplify, to_fp16, to_onnx
from mobile_avatar.graphs.onnx_runtime import load_onnxruntime
from mobile_avatar.graphs.spec import GraphSpec, TensorSpec, graph_spec
from mobile_avatar.models.bilayer.config import PRESETS, BilayerConfig
from mobile_avatar.models.bilayer.folded import FoldedGenerator
from mobile_avatar.models.bilayer.inference_generator import pixel_grid

SMALL = BilayerConfig(image_size=64, inf_channels=8, inf_max_channels=32, pose_channels=32, enh_bottleneck=32)


def make_graph(warp: str, layout: str = "NCHW", config: BilayerConfig = SMALL, heads: float = 6.0):
    torch.manual_seed(0)
    generator = FoldedGenerator(config).eval()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(("scale", "norm.bias")):
                parameter.uniform_(0.5, 1.5)  # identity layers would vanish in simplification
        for parameter in generator.heads.parameters():
            parameter.mul_(heads)
    size = config.image_size
    texture = torch.rand(1, 3, size, size) * 2 - 1
    return WARPS[warp](generator, texture, layout).eval(), graph_spec(warp, size, layout)


def run(model: onnx.ModelProto, keypoints: torch.Tensor) -> list[np.ndarray]:
    onnxruntime = load_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return session.run(None, {"keypoints": keypoints.numpy()})


@pytest.mark.parametrize(("warp", "layout"), [("split", "NCHW"), ("split", "NHWC"), ("native", "NHWC")])
def test_the_exported_graph_computes_what_torch_computes_and_says_nothing(warp, layout, capfd):
    module, spec = make_graph(warp, layout)
    model, note = simplify(to_onnx(module, spec))
    assert note is None
    assert capfd.readouterr() == ("", "")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert [v.name for v in model.graph.output] == [t.name for t in spec.outputs]
    keypoints = torch.rand(1, 136) * 2 - 1
    expected = module(keypoints)
    for tensor, got, want in zip(
        spec.outputs, run(model, keypoints), [*expected] if warp == "split" else [expected], strict=True
    ):
        assert got.shape == tensor.shape
        np.testing.assert_allclose(got, want.detach(), atol=2e-4)


def test_a_contract_with_other_shapes_is_refused():
    module, _ = make_graph("split", "NHWC")
    with pytest.raises(CheckFailed, match=r"output uv has shape \(1, 64, 64, 2\)"):
        to_onnx(module, graph_spec("split", 64, "NCHW"))


def test_simplification_that_fails_or_changes_the_result_is_undone(monkeypatch):
    model = to_onnx(*make_graph("split"))
    monkeypatch.setattr(onnxsim, "simplify", lambda _: 1 / 0)
    kept, note = simplify(model)
    assert kept is model
    assert "onnxsim failed" in note
    other = to_onnx(*make_graph("split", heads=-6.0))
    monkeypatch.setattr(onnxsim, "simplify", lambda _: (other, True))
    kept, note = simplify(model)
    assert kept is model
    assert "changed what the graph computes" in note


def test_count_of_the_official_medium_model():
    module, spec = make_graph("split", config=PRESETS["medium"])
    model = to_onnx(module, spec)
    parameters, macs = count(model)
    assert macs == pytest.approx(3.945e9 + 1.2e6, abs=0.5e6 + 0.05e6)
    assert parameters == sum(p.numel() for p in module.generator.parameters())
    assert count(simplify(model)[0]) == (parameters, macs)


@pytest.mark.parametrize("warp", ["split", "native"])
def test_texture_and_grid_are_not_parameters_and_half_precision_changes_no_count(warp):
    module, spec = make_graph(warp)
    model = to_onnx(module, spec)
    assert count(model)[0] == sum(p.numel() for p in module.generator.parameters())
    assert count(to_fp16(model)) == count(model)


class Layers(nn.Module):
    """One of every counted kind, with sizes that a swapped dimension would betray."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 2 * 6 * 4)
        self.grouped = nn.Conv2d(2, 6, (3, 1), stride=2, padding=(1, 0), groups=2)
        self.up = nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1, bias=False)
        self.mix = nn.Parameter(torch.rand(4, 7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grouped(self.linear(x).view(1, 2, 6, 4))  # (1, 6, 3, 2)
        return self.up(x) @ self.mix  # (1, 3, 6, 4) @ (4, 7)


def test_count_against_a_count_by_hand():
    tensors = (TensorSpec("x", (1, 5), "NC", (-1, 1)),), (TensorSpec("y", (1, 3, 6, 7), "NCHW", (-1, 1)),)
    parameters, macs = count(to_onnx(Layers().eval(), GraphSpec(*tensors)))
    assert macs == 5 * 48 + (6 * 3 * 2) * (1 * 3) + (6 * 3 * 2) * (3 * 4 * 4) + (3 * 6 * 7) * 4
    assert parameters == (5 * 48 + 48) + (6 * 1 * 3 + 6) + 6 * 3 * 16 + 28


@pytest.fixture(scope="module")
def compact() -> tuple[onnx.ModelProto, onnx.ModelProto, nn.Module]:
    module, spec = make_graph("split", "NHWC", PRESETS["compact"])
    model = simplify(to_onnx(module, spec))[0]
    return model, to_fp16(model), module


def test_half_precision_halves_the_file_and_keeps_float32_inputs_and_outputs(compact):
    model, half, _ = compact
    assert half.ByteSize() <= 0.6 * model.ByteSize()
    for value in (*half.graph.input, *half.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    read = {
        name for node in half.graph.node if node.op_type in ("Conv", "Gemm") for name in node.input if name in kinds
    }
    assert {kinds[name] for name in read} == {TensorProto.FLOAT16}


def test_half_precision_stays_close_to_torch(compact):
    _, half, module = compact
    keypoints = torch.rand(1, 136) * 2 - 1
    for got, want in zip(run(half, keypoints), module(keypoints), strict=True):
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, want.detach(), atol=5e-3)


def test_half_precision_rounds_no_coordinates():
    # With silent heads uv is the identity grid and the warp returns the texture itself: half-precision coordinates
    # would be off by up to 2.4e-4 and, at 64 px, mix neighbouring texels.
    keypoints = torch.zeros(1, 136)
    half = to_fp16(to_onnx(*make_graph("split", heads=0.0)))
    np.testing.assert_array_equal(run(half, keypoints)[0], pixel_grid(64).numpy())
    module, spec = make_graph("native", heads=0.0)
    image = run(to_fp16(to_onnx(module, spec)), keypoints)[0]
    np.testing.assert_allclose(image, module.texture.numpy() * 0.5 - 0.5, atol=1e-5)


def test_a_weight_beyond_half_precision_is_named():
    module, spec = make_graph("split")
    with torch.no_grad():
        module.generator.blocks[1].conv1.weight[0, 0, 0, 0] = 70_000
    with pytest.raises(CheckFailed, match=r"generator\.blocks\.1\.conv1\.weight holds values beyond 65504"):
        to_fp16(to_onnx(module, spec))
