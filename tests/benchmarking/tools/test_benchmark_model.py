"""TFLite's and LiteRT's benchmark_model, read from recordings.

Outputs come from published logs, with the file's name and size adapted and operators renamed: `cpu-2.4` from TFLite
2.4.0 on a Xiaomi Mi 11, `gpu-percentiles` from a later TFLite on an Android phone (the form with p5, median and p95),
`gpu-missing-2021` from a build of 2021 without GPU support (its ignored flag is renamed), `litert-2` from LiteRT 2's
program of the same name on an Arm phone, `operators-2.8` from TFLite 2.8 and `operators-xnnpack` from a later one, both
shortened to a few rows and their count of nodes with them.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.benchmarking.result import OperatorTime
from mobile_avatar.benchmarking.tools.litert import BENCHMARK_MODEL
from mobile_avatar.benchmarking.tools.litert_operators import read_operators
from mobile_avatar.errors import CheckFailed
from tests.benchmarking.tools.recorded_run import INTEGERS, SHELLS, SPEC, device_run, outputs, pulled, recorded

GPU_LINE = "VERBOSE: Replacing 49 out of 49 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions"
XNNPACK_LINE = (
    "VERBOSE: Replacing 456 out of 506 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 3 partitions"
)
APPLIED = "INFO: Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate."


def read(text: str, folder: Path, delegate: str = "GPU", **changes: object):
    return BENCHMARK_MODEL.parse(device_run(delegate, **changes), text, folder, None)


def test_the_oldest_form(tmp_path: Path) -> None:
    reading = read(recorded("benchmark_model-cpu-2.4"), tmp_path, "CPU")
    assert (reading.load_ms, reading.first_ms, reading.warmup_ms) == (16.242, 360.262, 304.586)
    assert (reading.mean_ms, reading.p50_ms) == (249.684, None)
    assert (reading.runs, reading.warmup_runs) == (50, 2)
    assert (reading.memory_mb, reading.memory_what) == (138.809, "growth of the tool's resident memory")
    assert (reading.delegate, reading.fallback) == ("CPU", "")


def test_the_form_with_percentiles_on_a_gpu(tmp_path: Path) -> None:
    reading = read(recorded("benchmark_model-gpu-percentiles"), tmp_path)
    assert (reading.load_ms, reading.first_ms, reading.warmup_ms) == (5664.363, 328.14, 319.036)
    assert (reading.mean_ms, reading.p50_ms, reading.memory_mb) == (309.35, 307.968, 375.48)
    assert (reading.delegate, reading.fallback) == ("GPU", "")
    assert "the GPU was allowed to compute in FP16" in reading.notes


def test_litert_2_has_another_form(tmp_path: Path) -> None:
    text = recorded("benchmark_model-litert-2")
    reading = read(text, pulled(tmp_path, {"operators.txt": text}), "CPU")
    assert (reading.load_ms, reading.first_ms, reading.warmup_ms) == (4.48, 1.03, 0.47)
    # The summary is rounded to 0.46 ms; the line of the runs has more digits.
    assert (reading.mean_ms, reading.p50_ms, reading.runs) == (0.464545, 0.462, 2112)
    assert (reading.memory_mb, reading.delegate) == (11.51, "XNNPACK")
    assert [(o.name, o.unit, o.ms) for o in reading.operators] == [
        ("LiteRT::Run[buffer registration]", "CPU", 0.014),
        ("LiteRT::Run[Buffer sync]", "CPU", 0.012),
        ("Delegate/Static Reshape (NC)", "CPU", 0.003),
        ("Delegate/Fully Connected (NC, PF32) GEMM", "CPU", 0.382),
    ]


def test_a_build_without_gpu_support_is_a_fallback(tmp_path: Path) -> None:
    reading = read(recorded("benchmark_model-gpu-missing-2021"), tmp_path)
    assert (reading.mean_ms, reading.delegate) == (74.4816, "XNNPACK")
    assert reading.fallback == (
        "no line of the log says that the GPU took the graph, so the CPU ran all of it "
        "(it logs: GPU acceleration is unsupported on this platform.)"
    )
    assert "this version of benchmark_model ignored --gpu_precision_loss_allowed=true" in reading.notes


PARTLY = """ERROR: Following operations are not supported by GPU delegate:
RELU_0_TO_1: Not supported op RELU_0_TO_1
TRANSPOSE_CONV: Max version supported: 3. Requested version 4.
130 operations will run on the GPU, and the remaining 114 operations will run on the CPU.
"""


@pytest.mark.parametrize(
    ("lines", "delegate", "fallback"),
    [
        (
            # As LiteRT 2.1 logs it.
            PARTLY
            + "VERBOSE: Replacing 130 out of 244 node(s) with delegate (LITERT_OPENGL) node, yielding 2 partitions",
            "GPU + CPU",
            "only 130 of 244 operators, in 2 partitions, ran on the GPU, the rest on the CPU "
            "(not supported: RELU_0_TO_1, TRANSPOSE_CONV)",
        ),
        (
            # As TFLite of 2019 logs it.
            "MEAN: Operation is not supported.\n"
            "First 160 operations will run on the GPU, and the remaining 7 on the CPU.",
            "GPU + CPU",
            "only 160 of 167 operators ran on the GPU, the rest on the CPU",
        ),
        (
            "VERBOSE: Replacing 54 out of 559 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions\n"
            + XNNPACK_LINE,
            "GPU + XNNPACK",
            "only 54 of 559 operators, in 3 partitions, ran on the GPU, the rest on the CPU",
        ),
        (
            "Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate w/ 2 "
            "delegate kernels.",
            "GPU + CPU",
            "only a part of the graph ran on the GPU, the rest on the CPU",
        ),
        (
            "Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.",
            "CPU",
            "no line of the log says that the GPU took the graph, so the CPU ran all of it "
            "(it logs: Though GPU delegate is explicitly applied, the model graph will not be executed "
            "by the delegate.)",
        ),
        (
            # A delegate that took operators and failed: TFLite goes on without it.
            "INFO: Replacing 5 node(s) with delegate (TfLiteGpuDelegate) node, yielding 1 partitions.\n"
            "ERROR: Node number 5 (TfLiteGpuDelegate) failed to prepare.\n"
            "ERROR: Restored original execution plan after delegate application failure.",
            "CPU",
            "no line of the log says that the GPU took the graph, so the CPU ran all of it "
            "(it logs: ERROR: Restored original execution plan after delegate application failure.)",
        ),
        ("", "CPU", "no line of the log says that the GPU took the graph, so the CPU ran all of it"),
        ("VERBOSE: Replacing 9 out of 9 node(s) with delegate (LITERT_CL) node, yielding 1 partitions", "GPU", ""),
        (
            "INFO: Replacing 60 node(s) with delegate (TfLiteGpuDelegate) node, yielding 2 partitions.",
            "GPU + CPU",
            "only 60 operators, in 2 partitions, ran on the GPU, the rest on the CPU",
        ),
        ("INFO: Replacing 5 node(s) with delegate (TfLiteGpuDelegate) node, yielding 1 partitions.", "GPU", ""),
    ],
)
def test_what_the_gpu_took(lines: str, delegate: str, fallback: str, tmp_path: Path) -> None:
    text = recorded("benchmark_model-gpu-percentiles")
    plain = "\n".join(
        line for line in text.splitlines() if GPU_LINE not in line and line != APPLIED and "OpenCL" not in line
    )
    reading = read(f"{lines}\n{plain}\n", tmp_path)
    assert (reading.delegate, reading.fallback) == (delegate, fallback)


def test_parts_that_xnnpack_leaves_are_a_note(tmp_path: Path) -> None:
    reading = read(f"{XNNPACK_LINE}\n{recorded('benchmark_model-cpu-2.4')}", tmp_path, "CPU")
    assert (reading.delegate, reading.fallback) == ("XNNPACK", "")
    assert "XNNPACK took 456 of 506 operators, the others ran in TFLite's own kernels" in reading.notes


def test_operators_of_the_older_form() -> None:
    operators, remark = read_operators(recorded("benchmark_model-operators-2.8"), "CPU")
    assert remark == ""
    assert operators == (
        OperatorTime("render/down/0/conv", "CONV_2D", "CPU", 60.957),
        OperatorTime("render/down/1/conv", "DEPTHWISE_CONV_2D", "CPU", 49.87),
        OperatorTime("render/mask", "SOFTMAX", "CPU", 0.233),
    )


def test_operators_inside_a_delegate_and_their_calls() -> None:
    operators, _ = read_operators(recorded("benchmark_model-operators-xnnpack"), "XNNPACK")
    assert {o.type: o.ms for o in operators} == {
        "QUANTIZE": 0.203,
        "RESIZE_NEAREST_NEIGHBOR": 0.002,
        "Convolution (NHWC, QC8) IGEMM": 0.407,
        # 13 calls per run: 4.317 % of 15.3 ms, as the table says itself.
        "Convolution (NHWC, QC8) DWConv": pytest.approx(13 * 0.051),
    }


def test_a_delegate_that_lists_nothing_is_one_operator() -> None:
    # The row as TFLite 2.4 prints it for a whole graph on an Adreno.
    cells = ("TfLiteGpuDelegateV2", "0.000", "8.317", "8.671", "100.000%", "100.000%", "0.000", "1", "[uv]:77")
    row = "".join(f"\t     {cell}" for cell in cells) + "\n"
    head, table = recorded("benchmark_model-operators-2.8").split("Operator-wise", 1)
    title, header, *_ = table.splitlines(keepends=True)[1:]
    text = f"{head}Operator-wise{table.splitlines()[0]}\n{title}{header}{row}\nNumber of nodes executed: 1\n"
    assert read_operators(text, "GPU")[0] == (OperatorTime("uv", "TfLiteGpuDelegateV2", "GPU", 8.671),)


def test_a_table_that_was_cut_is_left_out() -> None:
    text = recorded("benchmark_model-operators-2.8")
    assert read_operators(text[: text.rindex("Number of nodes")], "CPU")[0] == ()
    assert read_operators(text.replace("[render/mask]:30", ""), "CPU")[0] == ()
    assert read_operators(text.replace("49.870", "nan"), "CPU")[0] == ()
    assert read_operators("", "CPU") == ((), "no operator times: this version of benchmark_model prints none")


@pytest.mark.parametrize("spec", [SPEC, INTEGERS])
def test_outputs_lie_one_behind_the_other(spec, tmp_path: Path) -> None:
    frames = outputs(spec)
    files = {f"case_{i}.raw": b"".join(a.tobytes() for a in frame.values()) for i, frame in enumerate(frames)}
    results = BENCHMARK_MODEL.read_outputs(device_run("GPU", spec=spec), pulled(tmp_path, files))
    for frame, result in zip(frames, results, strict=True):
        assert list(result) == ["uv", "lf", "mask"]
        for name, array in frame.items():
            assert result[name].dtype == array.dtype
            np.testing.assert_array_equal(result[name], array)


def test_outputs_are_only_taken_as_they_must_be(tmp_path: Path) -> None:
    run, size = device_run("GPU"), 8 * 8 * 6 * 4
    assert BENCHMARK_MODEL.read_outputs(run, tmp_path) == []
    pulled(tmp_path, {"case_0.raw": bytes(size)})
    pulled(tmp_path, {"case_1.txt": "ERROR: Failed to invoke"})
    with pytest.raises(CheckFailed, match=r"wrote no outputs for golden case 1 \(ERROR: Failed to invoke\); "):
        BENCHMARK_MODEL.read_outputs(run, tmp_path)
    (tmp_path / "case_1.raw").symlink_to("/dev/zero")
    with pytest.raises(CheckFailed, match="golden case 1"):
        BENCHMARK_MODEL.read_outputs(run, tmp_path)
    (tmp_path / "case_1.raw").unlink()
    pulled(tmp_path, {"case_1.raw": bytes(size - 1)})
    with pytest.raises(CheckFailed, match=f"wrote {size - 1} bytes into .*case_1.raw, where uv, lf, mask .* {size};"):
        BENCHMARK_MODEL.read_outputs(run, tmp_path)


def test_random_inputs_are_not_taken_for_golden_ones(tmp_path: Path) -> None:
    log = "WARN: Unconsumed cmdline flags: --input_layer=keypoints --output_filepath=output/case_0.raw"
    pulled(tmp_path, {"case_0.txt": log, "case_0.raw": bytes(8 * 8 * 6 * 4)})
    assert BENCHMARK_MODEL.read_outputs(device_run("GPU"), tmp_path) == []
    notes = read(recorded("benchmark_model-gpu-percentiles"), tmp_path).notes
    assert "this version of benchmark_model takes no golden inputs or writes no outputs" in notes


PROGRAM = """#!/bin/sh
for word in "$@"; do case $word in
--graph=*) [ -f "${word#*=}" ] || exit 1;;
--input_layer_value_files=keypoints:*) [ -f "${word#*:}" ] || exit 1;;
--output_filepath=*) head -c 1536 /dev/zero > "${word#*=}";;
--enable_op_profiling=true) exit 3;;
esac; done
echo "$@"
"""


@pytest.mark.parametrize("shell", SHELLS)
def test_the_lines_run_in_a_shell_and_detail_never_fails_them(shell: str, tmp_path: Path) -> None:
    pulled(tmp_path, {"benchmark_model": PROGRAM, "model.bin": "", "input_0.raw": "", "input_1.raw": ""})
    (tmp_path / "benchmark_model").chmod(0o755)
    (tmp_path / "output").mkdir()
    run = device_run("GPU")
    script = "\n".join(["set -e", *BENCHMARK_MODEL.commands(run)])
    done = subprocess.run([shell, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == (
        "--graph=model.bin --num_threads=4 --use_gpu=true --gpu_precision_loss_allowed=true --num_runs=50\n"
    )
    assert sorted(os.listdir(tmp_path / "output")) == [
        *("case_0.raw", "case_0.txt", "case_1.raw", "case_1.txt", "operators.txt"),
    ]
    assert len(BENCHMARK_MODEL.read_outputs(run, tmp_path / "output")) == 2
    assert BENCHMARK_MODEL.commands(device_run("CPU", details=False)) == (
        "./benchmark_model --graph=model.bin --num_threads=4 --use_xnnpack=true --num_runs=50",
    )
