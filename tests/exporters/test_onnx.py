"""The ONNX file itself: numbers, size, metadata, and damage."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mobile_avatar.errors import CheckFailed
from mobile_avatar.exporters.registry import find_target
from mobile_avatar.verification.runners import open_runner
from tests.deployment_cases import FACTS, GATES, Made, export_apart

VARIANTS = [("native", "fp32"), ("split", "fp32"), ("split", "fp16"), ("native", "fp16")]
RUNNER = find_target("onnx").runner


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[tuple[str, str], Made]:
    return export_apart("onnx", VARIANTS, tmp_path_factory.mktemp("onnx"))


def with_content(made: Made, folder, content: bytes):
    """The same export with another file in place of the model."""
    path = folder / "render.onnx"
    path.write_bytes(content)
    return replace(made.exported, folder=folder, files={"model": path})


@pytest.mark.parametrize("variant", VARIANTS)
def test_onnx_runtime_agrees_with_torch(made, variant):
    export = made[variant]
    runner = open_runner(RUNNER, export.exported)
    psnr = export.case.psnr(runner.run)
    assert set(psnr) == {tensor.name for tensor in export.case.spec.outputs}
    assert min(psnr.values()) >= GATES[variant[1]], psnr
    # x86 computes FP16 files in FP32, and the name has to say so.
    assert runner.name == "onnxruntime-cpu" + (" (fp16 weights, fp32 arithmetic)" if variant[1] == "fp16" else "")


def test_the_file_carries_its_metadata_and_nothing_of_its_tools(made):
    model = onnx.load(made["native", "fp32"].model)
    assert {entry.key: entry.value for entry in model.metadata_props} == FACTS
    assert model.producer_name == "mobile-avatar"
    assert set(made["native", "fp32"].product.tools) == {"onnx", "onnxsim", "onnxruntime"}
    assert not made["native", "fp32"].product.notes  # onnxsim's result was taken


@pytest.mark.parametrize("warp", ["split", "native"])
def test_fp16_files_have_at_most_60_percent_of_fp32(made, warp):
    sizes = {precision: made[warp, precision].model.stat().st_size for precision in ("fp16", "fp32")}
    assert sizes["fp16"] <= 0.6 * sizes["fp32"]


def test_one_corrupted_weight_fails_parity(made, tmp_path):
    export = made["split", "fp32"]
    model = onnx.load(export.model)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "generator.blocks.3.conv2.weight")
    values = numpy_helper.to_array(weight).copy()
    values.view(np.uint32).flat[7] ^= 0x4000_0000  # one bit of an exponent
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    damaged = with_content(export, tmp_path, model.SerializeToString())
    psnr = export.case.psnr(open_runner(RUNNER, damaged).run)
    assert min(psnr.values()) < GATES["fp32"]


def test_a_truncated_file_is_one_sentence(made, tmp_path):
    export = made["split", "fp32"]
    damaged = with_content(export, tmp_path, export.model.read_bytes()[:-1000])
    with pytest.raises(CheckFailed, match=r"render\.onnx is damaged"):
        open_runner(RUNNER, damaged)


def test_a_file_of_another_graph_is_refused(made, tmp_path):
    other = with_content(made["split", "fp32"], tmp_path, made["native", "fp32"].model.read_bytes())
    with pytest.raises(CheckFailed, match="other inputs or outputs"):
        open_runner(RUNNER, other)


def test_weights_outside_the_file_are_refused(made, tmp_path):
    export = made["split", "fp32"]
    model = onnx.load(export.model)
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights.bin", size_threshold=1024)
    onnx.save(model, tmp_path / "outside.onnx")
    outside = with_content(export, tmp_path, (tmp_path / "outside.onnx").read_bytes())
    with pytest.raises(CheckFailed, match="damaged"):
        open_runner(RUNNER, outside)
