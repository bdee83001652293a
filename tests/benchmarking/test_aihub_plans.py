"""What is asked of AI Hub per target, precision and device, and what is made of the outputs that come back."""

import inspect

import numpy as np
import pytest

from mobile_avatar.benchmarking.aihub import real_outputs
from mobile_avatar.benchmarking.aihub_plans import PLANS, compute_unit, job_options
from mobile_avatar.errors import CheckFailed
from mobile_avatar.exporters.registry import targets
from mobile_avatar.graphs.spec import TensorSpec, graph_spec

PIXEL = ["chipset:qualcomm-snapdragon-855", "framework:tflite"]
GALAXY = ["chipset:qualcomm-snapdragon-8gen3", "htp-supports-fp16:true"]


@pytest.mark.parametrize(
    ("target", "precision", "warp", "attributes", "options"),
    [
        ("tflite", "fp16", "split", PIXEL, "--compute_unit gpu"),
        ("tflite", "fp16", "split", GALAXY, "--compute_unit gpu"),
        ("tflite", "fp16", "gather", PIXEL, "--compute_unit cpu"),
        ("tflite", "fp32", "split", PIXEL, "--compute_unit gpu --tflite_options allow_fp32_as_fp16=false"),
        ("tflite", "w8a8", "split", PIXEL, "--compute_unit all"),
        ("onnx", "fp32", "native", GALAXY, "--compute_unit cpu"),
        ("onnx", "fp16", "native", PIXEL, "--compute_unit gpu"),
        ("snpe", "fp16", "split", PIXEL, "--compute_unit gpu --qnn_options default_graph_gpu_precision=FLOAT16"),
        ("snpe", "fp16", "native", GALAXY, "--compute_unit npu --qnn_options default_graph_htp_precision=FLOAT16"),
        ("snpe", "fp32", "split", GALAXY, "--compute_unit gpu"),
        ("snpe", "w8a16", "split", GALAXY, "--compute_unit all"),
        ("coreml", "fp16", "split", [], "--compute_unit all"),
    ],
)
def test_units_and_arithmetic_follow_the_bundle_and_the_device(target, precision, warp, attributes, options):
    plan = PLANS[target][0]
    assert job_options(plan, precision, compute_unit(plan, precision, warp, attributes)) == options


def test_a_unit_that_was_asked_for_brings_its_own_options():
    plan = PLANS["snpe"][0]
    assert job_options(plan, "fp16", "cpu") == "--compute_unit cpu"
    both = "default_graph_gpu_precision=FLOAT16;default_graph_htp_precision=FLOAT16"
    assert job_options(plan, "fp16", "all") == f"--compute_unit all --qnn_options {both}"


def test_every_target_has_a_plan_or_a_sentence():
    assert set(PLANS) | {"executorch"} == set(targets())
    assert [plan.own_file for plans in PLANS.values() for plan in plans].count(False) == 1


def test_the_library_takes_what_we_call_it_with():
    """The library's own checks of file types, and the arguments that `aihub.py` uses."""
    client = pytest.importorskip("qai_hub.client", reason="the extra `hub` is not installed")
    suffix = {"tflite": ".tflite", "onnx": ".onnx", "snpe": ".dlc", "coreml": ".mlpackage"}
    for target, plans in PLANS.items():
        kind = client.MODEL_TYPES_BY_EXTENSION[suffix[target]]
        assert not client.requires_compilation(kind), f"{plans[0]} is measured as it is"
    assert client.allows_compilation(client.SourceModelType.ONNX)
    submit = inspect.signature(client.Client.submit_inference_job)
    submit.bind(None, "model", "device", inputs=None, name="n", options="o", retry=False, profile=True)
    inspect.signature(client.Client.submit_compile_job).bind(None, "m", "d", name="n", options="o", retry=False)


SPEC = graph_spec("split", 8, "NHWC").outputs


def frames(tensor: TensorSpec, cases: int = 2) -> list[np.ndarray]:
    values = np.arange(cases * int(np.prod(tensor.shape)), dtype=np.float32)
    return list(values.reshape(cases, *tensor.shape))


def test_names_of_the_service_are_taken_in_order():
    outputs = {f"output_{n}": frames(tensor) for n, tensor in enumerate(SPEC)}
    found = real_outputs(outputs, SPEC, 2)
    assert {name: array.shape for name, array in found.items()} == {t.name: (2, *t.shape[1:]) for t in SPEC}


def test_channels_that_were_moved_are_moved_back():
    outputs = {t.name: [frame.transpose(0, 3, 1, 2) for frame in frames(t)] for t in SPEC}
    for tensor in SPEC:
        np.testing.assert_array_equal(real_outputs(outputs, SPEC, 2)[tensor.name], np.concatenate(frames(tensor)))


def test_half_precision_becomes_single():
    outputs = {t.name: [np.float16(frame) for frame in frames(t)] for t in SPEC}
    assert {array.dtype for array in real_outputs(outputs, SPEC, 2).values()} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        (None, "returned no outputs"),
        ({}, "returned no outputs"),
        ({"uv": []}, "returned uv instead of uv, lf, mask"),
        ({**{t.name: frames(t) for t in SPEC}, "lf": frames(SPEC[1], 1)}, "returned 1 cases of lf instead of 2"),
        ({**{t.name: frames(t) for t in SPEC}, "lf": [np.zeros(()), np.zeros(())]}, "cases of lf"),
        ({**{t.name: frames(t) for t in SPEC}, "lf": [np.array("a"), np.array("b")]}, "cases of lf"),
        ({**{t.name: frames(t) for t in SPEC}, "lf": [frames(SPEC[1])[0], frames(SPEC[0])[0]]}, "cases of lf"),
    ],
)
def test_outputs_that_are_not_ours_are_refused(outputs, sentence):
    with pytest.raises(CheckFailed, match=sentence):
        real_outputs(outputs, SPEC, 2)
