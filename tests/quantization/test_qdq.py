"""QDQ graphs: which operators get how many bits, that none stays float, and the numbers on ONNX Runtime's CPU."""

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mobile_avatar.graphs.onnx_graph import simplify, to_onnx
from mobile_avatar.graphs.onnx_runtime import load_onnxruntime
from mobile_avatar.quantization.qdq import float_operators, layer_nodes, quantize_model, wide_nodes
from tests.deployment_cases import SMALL, Case, make_case

CALIBRATION = np.random.default_rng(99).uniform(-1, 1, (16, 136)).astype(np.float32)


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case("split", "NHWC", SMALL)


@pytest.fixture(scope="module")
def plain(case) -> onnx.ModelProto:
    return simplify(to_onnx(case.module, case.spec))[0]


@pytest.fixture(scope="module")
def quantise(case, plain):
    """Returns a function that quantises the plain graph."""
    logging.disable(logging.WARNING)  # ONNX Runtime's quantiser talks
    yield lambda precision, **options: quantize_model(plain, case.spec, CALIBRATION, precision, **options)
    logging.disable(logging.NOTSET)


def run(model: onnx.ModelProto, feed: np.ndarray) -> dict[str, np.ndarray]:
    """On the CPU without optimisations, which take integer graphs for what they are not."""
    onnxruntime = load_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"keypoints": feed}), strict=True))


def test_a_layer_is_found_by_scope_and_by_its_parameters(plain):
    assert layer_nodes(plain.graph, "blocks.2.conv1") == {"/generator/blocks.2/conv1/Conv"}
    assert layer_nodes(plain.graph, "blocks.2.conv") == set()  # no layer, only the start of two names
    assert layer_nodes(plain.graph, "mlp.1") == {"/generator/mlp.1/Gemm"}
    renamed = onnx.ModelProto.FromString(plain.SerializeToString())
    for node in renamed.graph.node:
        node.name = f"fused_{node.name}" if node.op_type == "Conv" else node.name
    assert layer_nodes(renamed.graph, "blocks.2.conv1") == {"fused_/generator/blocks.2/conv1/Conv"}


def test_wide_are_the_ends_of_the_graph_and_what_is_kept(plain):
    wide = wide_nodes(plain.graph, set())
    gemms = {node.name for node in plain.graph.node if node.op_type == "Gemm"}
    ends = {node.name for node in plain.graph.node if node.op_type in ("Tanh", "Sigmoid", "Slice")}
    assert gemms | ends | {"/Add", "/generator/heads/Conv", "/generator/norm/Mul", "/generator/blocks.3/Add"} <= wide
    convolutions = {node.name for node in plain.graph.node if node.op_type in ("Conv", "Resize")}
    assert wide & convolutions == {"/generator/heads/Conv"}
    more = wide_nodes(plain.graph, {"/generator/blocks.2/conv1/Conv"}) - wide
    assert {"/generator/blocks.2/conv1/Conv", "/generator/blocks.2/norm/Mul"} <= more
    assert not any("blocks.3" in name for name in more)


def test_no_operator_stays_float_and_the_numbers_agree(case, quantise):
    result = quantise("w8a8")
    assert float_operators(result.model.graph) == (result.operators, {})
    psnr = case.psnr(lambda keypoints: run(result.model, keypoints))
    assert min(psnr.values()) >= 30, psnr


def test_w8a16_is_closer_than_w8a8(case, quantise):
    errors = {}
    for precision in ("w8a8", "w8a16"):
        got = run(quantise(precision).model, case.vectors[0])
        errors[precision] = [np.square(got[t.name] - case.answers[0][t.name]).mean() for t in case.spec.outputs]
    assert all(b < a for a, b in zip(errors["w8a8"], errors["w8a16"], strict=True)), errors


def test_integer_inputs_and_outputs_carry_the_same_numbers(case, quantise):
    result, plain = quantise("w8a8", quantize_io=True), quantise("w8a8")
    spec = case.spec.with_integers(result.integers)
    (keypoints,), uv = spec.inputs, spec.outputs[0]
    assert (keypoints.dtype, uv.dtype) == ("uint16", "uint16")
    assert uv.quantization[0] * 65535 == pytest.approx(4, rel=1e-3)  # -2 .. 2, whatever the calibration saw
    assert keypoints.quantization[0] * 65535 == pytest.approx(2, rel=1e-3)
    stored = run(result.model, keypoints.store(case.vectors[0]))
    real = run(plain.model, case.vectors[0])
    for tensor in spec.outputs:
        assert stored[tensor.name].dtype == np.uint16
        np.testing.assert_allclose(tensor.load(stored[tensor.name]), real[tensor.name], atol=1e-6)


def test_operators_outside_of_quantised_regions_are_counted():
    """x -> DQ -> Add -> Q -> DQ -> Relu -> y: the addition is an integer one, the activation is not."""
    names = iter("abcdefgh")
    nodes, value = [], "x"
    for kind in ("QuantizeLinear", "DequantizeLinear", "Add", "QuantizeLinear", "DequantizeLinear", "Relu"):
        made = "y" if kind == "Relu" else next(names)
        extra = {"Add": [value], "Relu": []}.get(kind, ["scale", "zero"])
        nodes.append(helper.make_node(kind, [value, *extra], [made], name=f"{kind}_{made}"))
        value = made
    constants = [
        numpy_helper.from_array(np.float32(0.1), "scale"),
        numpy_helper.from_array(np.uint8(128), "zero"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], constants)
    assert float_operators(graph) == (2, {"Relu": 1})
