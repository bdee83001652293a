"""The TFLite file itself: numbers, names, operators, size, metadata; and how the converter behaves."""

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.errors import CheckFailed
from mobile_avatar.exporters.workshop import workshop
from mobile_avatar.verification.litert import dynamic_tensors, open_litert, operators
from tests.deployment_cases import FACTS, GATES, Made, export_apart

pytest.importorskip("litert_torch", reason="litert-torch is not installed")

VARIANTS = [(warp, precision) for warp in ("split", "gather") for precision in ("fp32", "fp16")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Made]:
    return export_apart("tflite", VARIANTS, tmp_path_factory.mktemp("tflite"))


@pytest.mark.parametrize(("warp", "precision"), VARIANTS)
def test_file_computes_what_torch_computes(made: dict, warp: str, precision: str) -> None:
    item = made[warp, precision]
    runner = open_litert(item.exported)
    psnr = item.case.psnr(runner.run)
    assert min(psnr.values()) >= GATES[precision], psnr
    assert all(check.passed for check in runner.checks)


@pytest.mark.parametrize("warp", ["split", "gather"])
def test_fp16_is_at_most_60_percent_of_fp32(made: dict, warp: str) -> None:
    assert made[warp, "fp16"].model.stat().st_size <= 0.6 * made[warp, "fp32"].model.stat().st_size


@pytest.mark.parametrize(("warp", "precision"), VARIANTS)
def test_names_order_shapes_and_types_are_those_of_the_spec(made: dict, warp: str, precision: str) -> None:
    from ai_edge_litert.interpreter import Interpreter

    item = made[warp, precision]
    interpreter = Interpreter(str(item.model))
    for found, expected in (
        (interpreter.get_input_details(), item.case.spec.inputs),
        (interpreter.get_output_details(), item.case.spec.outputs),
    ):
        assert [(row["name"], tuple(row["shape"]), row["dtype"]) for row in found] == [
            (tensor.name, tensor.shape, np.float32) for tensor in expected
        ]
    signature = interpreter.get_signature_list()["serving_default"]
    assert signature["inputs"] == ["keypoints"]
    assert sorted(signature["outputs"]) == sorted(tensor.name for tensor in item.case.spec.outputs)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_split_graph_suits_gpu_delegates(made: dict, precision: str) -> None:
    content = made["split", precision].model.read_bytes()
    found = operators(content)
    allowed = {
        *("ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "LEAKY_RELU", "LOGISTIC", "MUL", "RESHAPE"),
        *("RESIZE_NEAREST_NEIGHBOR", "SLICE", "TANH", "DEQUANTIZE", "DEPTH_TO_SPACE", "PAD"),
    }
    assert set(found) <= allowed, "no TRANSPOSE, GATHER or anything else"
    assert found["RESHAPE"] == 1, "only the step from the linear layers to the first feature map"
    assert dynamic_tensors(content) == []
    # Half-precision constants are widened once each, for what they feed: 16 convolutions, 4 linear layers, 1 norm.
    assert found["DEQUANTIZE"] == (21 if precision == "fp16" else 0)


def test_facts_are_inside_the_file(made: dict) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import encode, packer
    from flatbuffers.table import Table

    item = made["split", "fp16"]
    model = schema.Model.GetRootAs(item.model.read_bytes(), 0)
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    blobs = {entry.Name(): model.Buffers(entry.Buffer()).DataAsNumpy().tobytes() for entry in entries}
    document = json.loads(blobs[b"mobile_avatar"])
    assert {key: document[key] for key in FACTS} == FACTS
    assert document["outputs"] == [tensor.to_dict() for tensor in item.case.spec.outputs]
    standard = blobs[b"TFLITE_METADATA"]
    assert standard[4:8] == b"M001"
    root = encode.Get(packer.uoffset, standard, 0)
    table = Table(bytearray(standard), root)
    texts = [table.String(root + table.Offset(4 + 2 * slot)).decode() for slot in (0, 1, 2, 4, 5)]
    assert texts == [FACTS[key] for key in ("name", "description", "version", "author", "license")]
    assert model.Description().decode() == FACTS["description"]


def test_constants_are_inline_and_aligned(made: dict) -> None:
    from ai_edge_litert import schema_py_generated as schema

    content = made["split", "fp16"].model.read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    assert schema.Model.ModelBufferHasIdentifier(content, 0)
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        assert buffer.Offset() == 0, "constants behind the flatbuffer are unknown to older runtimes"
        if buffer.DataLength():
            assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0


def test_product_names_file_and_tools(made: dict) -> None:
    item = made["split", "fp16"]
    assert item.product.files == {"model": "render.tflite"}
    assert set(item.product.tools) == {"litert-torch", "ai-edge-litert", "ai-edge-quantizer"}
    assert [path.name for path in item.exported.folder.iterdir()] == ["render.tflite"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_corrupted_weight_fails_the_parity_gate(made: dict, precision: str, tmp_path: Path) -> None:
    item = made["split", precision]
    content = bytearray(item.model.read_bytes())
    # The strongest weight of the uv heads, in the file's order (O, H, W, I); flip the top bit of its exponent.
    weights = item.case.module.generator.heads.weight.detach().permute(0, 2, 3, 1).contiguous().numpy()
    weights = weights.astype(np.float16 if precision == "fp16" else np.float32)
    start = content.find(weights.tobytes())
    assert start > 0
    last_byte = start + (int(np.argmax(np.abs(weights[:2]))) + 1) * weights.itemsize - 1
    content[last_byte] ^= 0x40
    broken = tmp_path / "render.tflite"
    broken.write_bytes(content)
    exported = replace(item.exported, files={"model": broken})
    assert min(item.case.psnr(open_litert(exported).run).values()) < GATES[precision]


def test_workshop_is_silent_tidy_and_turns_failures_into_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    default = tempfile.gettempdir()

    def fail() -> None:
        with workshop(tmp_path, "tool"):
            os.write(1, b"said by C++")
            os.write(2, b"said by C++")
            os.environ["LEFT_BY_A_CONVERTER"] = "1"
            assert Path(tempfile.mkdtemp()).is_relative_to(tmp_path)
            raise RuntimeError("no such layer\nand a long story")

    with pytest.raises(CheckFailed, match=r"^tool could not convert this graph: no such layer$"):
        fail()
    assert capfd.readouterr() == ("", "")
    assert tempfile.gettempdir() == default
    assert "LEFT_BY_A_CONVERTER" not in os.environ
    assert list(tmp_path.iterdir()) == []
