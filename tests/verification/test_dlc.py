"""The DLC reader and the structural check: what is in a file, and every way in which it can be wrong."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from mobile_avatar.errors import BadInput, CheckFailed
from mobile_avatar.exporters.qnn_process import Worker
from mobile_avatar.exporters.workshop import workshop
from mobile_avatar.graphs.onnx_graph import simplify, to_fp16, to_onnx
from mobile_avatar.graphs.spec import GraphSpec, TensorSpec
from mobile_avatar.quantization.qdq import quantize_model
from mobile_avatar.verification.dlc import METADATA_RECORD, add_metadata, check_dlc, check_integers, read_dlc

pytest.importorskip("onnxruntime_qnn", reason="Qualcomm's libraries exist for Linux x86-64 only")

WEIGHTS = "DLC weights equal the source ONNX"
LAYOUT = "DLC operations, channels last"
INTERFACE = "DLC inputs and outputs"


class Net(nn.Module):
    """Every kind of constant whose layout QNN changes, and the slope of an activation."""

    def __init__(self, channels_last: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 5 * 4 * 4)
        self.conv = nn.Conv2d(5, 7, 3, padding=1)
        self.up = nn.ConvTranspose2d(7, 3, 4, stride=4)
        self.scale = nn.Parameter(torch.rand(1, 3, 1, 1) + 1)
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.conv(self.linear(x).view(1, 5, 4, 4)), 0.2)
        x = self.up(x) * self.scale
        return x.permute(0, 2, 3, 1) if self.channels_last else x


def spec_of(channels_last: bool) -> GraphSpec:
    shape, layout = ((1, 16, 16, 3), "NHWC") if channels_last else ((1, 3, 16, 16), "NCHW")
    return GraphSpec((TensorSpec("x", (1, 6), "NC", (-1, 1)),), (TensorSpec("y", shape, layout, (-1, 1)),))


SPEC = spec_of(True)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, tuple[Path, onnx.ModelProto]]:
    """DLC and source by precision, and one whose output is not channels last."""
    folder = tmp_path_factory.mktemp("dlc")
    torch.manual_seed(0)
    float_model, _ = simplify(to_onnx(Net().eval(), SPEC))
    models = {"fp32": float_model, "fp16": to_fp16(float_model)}
    vectors = np.random.default_rng(0).uniform(-1, 1, (8, 6)).astype(np.float32)
    with workshop(folder, "quantiser"):
        models["w8a8"] = quantize_model(float_model, SPEC, vectors, "w8a8").model
    models["nchw"] = to_onnx(Net(False).eval(), spec_of(False))
    with Worker() as worker:
        for name, model in models.items():
            onnx.save(model, folder / f"{name}.onnx")
            worker.ask("convert", str(folder / f"{name}.onnx"), str(folder / f"{name}.dlc"))
    return {name: (folder / f"{name}.dlc", model) for name, model in models.items()}


def results(path: Path, model: onnx.ModelProto, spec: GraphSpec = SPEC) -> dict[str, bool | None]:
    return {check.name: check.passed for check in check_dlc(read_dlc(path), model, spec)}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_dlc_equals_its_source_in_names_shapes_and_every_constant(made, precision):
    path, model = made[precision]
    assert results(path, model) == {INTERFACE: True, LAYOUT: True, WEIGHTS: True}
    dlc = read_dlc(path)
    suffix = "" if precision == "fp32" else "_fp16"
    conv, up = dlc.tensors[f"conv.weight{suffix}"], dlc.tensors[f"up.weight{suffix}"]
    assert (conv.shape, conv.kind) == ((3, 3, 5, 7), "constant")  # HWIO
    assert sorted(up.shape) == [3, 4, 4, 7]
    assert conv.dtype == ("float32" if precision == "fp32" else "float16")
    assert len(conv.data) == 3 * 3 * 5 * 7 * (4 if precision == "fp32" else 2)
    assert {op.type for op in dlc.operations} >= {"FullyConnected", "Conv2d", "Prelu"}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_single_corrupted_byte_of_a_constant_is_found(made, precision, tmp_path):
    path, model = made[precision]
    content = path.read_bytes()
    constants = [t.data for t in read_dlc(path).tensors.values() if t.data and t.dtype.startswith("float")]
    assert len(constants) == 8  # three weights, three biases, scale, slope
    rng = random.Random(0)
    copy = tmp_path / "copy.dlc"
    for data in constants:
        start = content.index(data)
        for offset in {0, len(data) - 1, rng.randrange(len(data))}:
            damaged = bytearray(content)
            damaged[start + offset] ^= 1 << rng.randrange(8)
            copy.write_bytes(damaged)
            assert results(copy, model)[WEIGHTS] is False


def test_integer_constants_are_held_against_their_source_with_their_scales(made, tmp_path):
    path, model = made["w8a8"]
    assert results(path, model) == {INTERFACE: True, LAYOUT: True, WEIGHTS: True}
    dlc = read_dlc(path)
    assert check_integers(dlc).passed is True
    conv, up = dlc.tensors["conv.weight_quantized"], dlc.tensors["up.weight_quantized"]
    assert (conv.dtype, conv.shape, len(conv.scales)) == ("int8", (3, 3, 5, 7), 7)
    assert (up.dtype, len(up.scales)) == ("int8", 3)
    constants = [t for t in dlc.tensors.values() if t.data and t.scales]
    assert len(constants) == 8  # three weights, three biases, scale, slope
    content, copy = path.read_bytes(), tmp_path / "copy.dlc"
    rng = random.Random(0)
    for tensor in constants:
        damaged = bytearray(content)
        place = content.index(tensor.data) if len(tensor.data) > 3 else None
        if place is not None:  # one byte of a slope occurs everywhere
            damaged[place + rng.randrange(len(tensor.data))] ^= 1 << rng.randrange(8)
            copy.write_bytes(damaged)
            assert results(copy, model)[WEIGHTS] is False
        scaled = {**dlc.tensors, tensor.name: replace(tensor, scales=tuple(1.01 * scale for scale in tensor.scales))}
        checks = {check.name: check.passed for check in check_dlc(replace(dlc, tensors=scaled), model, SPEC)}
        assert checks[WEIGHTS] is False


def test_a_float_operation_of_an_integer_dlc_is_named(made):
    check = check_integers(read_dlc(made["fp16"][0]))
    assert check.passed is False
    assert "1 Conv2d" in check.detail


def test_one_corrupted_weight_of_the_source_is_found(made):
    path, model = made["fp16"]
    source = onnx.ModelProto()
    source.CopyFrom(model)
    (weight,) = (tensor for tensor in source.graph.initializer if tensor.name == "conv.weight_fp16")
    weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]
    assert results(path, source)[WEIGHTS] is False


def test_another_contract_is_found(made):
    path, model = made["fp16"]
    renamed = replace(SPEC, outputs=(replace(SPEC.outputs[0], name="z"),))
    reshaped = replace(SPEC, outputs=(replace(SPEC.outputs[0], shape=(1, 3, 16, 16)),))
    for spec in (renamed, reshaped):
        assert results(path, model, spec)[INTERFACE] is False


def test_a_transpose_at_full_resolution_is_found(made):
    path, model = made["nchw"]
    assert results(path, model, spec_of(False)) == {INTERFACE: True, LAYOUT: False, WEIGHTS: True}


def test_metadata_is_added_behind_the_untouched_records(made, tmp_path):
    path, model = made["fp16"]
    copy = tmp_path / "copy.dlc"
    copy.write_bytes(path.read_bytes())
    add_metadata(copy, {"license": "CC0", "name": "Zoë"})
    before, after = read_dlc(path), read_dlc(copy)
    assert after.metadata.pop(METADATA_RECORD) == {"license": "CC0", "name": "Zoë"}
    assert replace(after, path=path) == before
    assert results(copy, model)[WEIGHTS] is True


def test_a_dlc_of_another_converter_is_not_judged_by_its_bytes(made):
    path, model = made["fp16"]
    other = replace(read_dlc(path), metadata={"dlc.metadata": {"tool": "qairt-converter"}})
    assert {check.name: check.passed for check in check_dlc(other, model, SPEC)}[WEIGHTS] is None


def test_files_that_are_no_dlc(tmp_path):
    path = tmp_path / "render.dlc"
    with pytest.raises(BadInput, match="cannot be read"):
        read_dlc(path)
    for content in (b"", b"PK", b"not a DLC at all"):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"render\.dlc is not a DLC"):
            read_dlc(path)


def test_truncated_at_any_length(made, tmp_path):
    content = made["fp16"][0].read_bytes()
    path = tmp_path / "render.dlc"
    for size in range(4, len(content), 97):
        path.write_bytes(content[:size])
        with pytest.raises(CheckFailed, match=r"render\.dlc is damaged"):
            read_dlc(path)


def test_corrupted_structure_never_leads_outside_the_file(made, tmp_path):
    """Whatever the offsets say, the reader answers with a result or a sentence, never with another exception."""
    content = made["fp16"][0].read_bytes()
    rng = random.Random(0)
    path = tmp_path / "render.dlc"
    refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        position = rng.randrange(4, len(content))
        damaged[position : position + 4] = rng.randbytes(4)
        path.write_bytes(damaged[: len(content)])
        try:
            read_dlc(path)
        except CheckFailed:
            refused += 1
    assert refused > 100
