"""Whatever a tool prints instead of its results becomes one sentence: never another error, never a wrong number."""

from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.benchmarking.tools import TOOLS
from mobile_avatar.benchmarking.tools.litert_operators import read_operators
from mobile_avatar.benchmarking.tools.pulled import MOST_LOG, read_log
from mobile_avatar.benchmarking.tools.qnn import read_profile
from mobile_avatar.benchmarking.tools.snpe import read_diagnosis
from mobile_avatar.errors import CheckFailed
from tests.benchmarking.tools.recorded_run import device_run, pulled, recorded

ROUNDS = 60
FAILURES = {
    "": "printed nothing at all; start it by hand",
    "\n \n": "printed nothing at all; start it by hand",
    "/system/bin/sh: ./tool: inaccessible or not found": "not found); see that the folder of device tools holds it",
    'CANNOT LINK EXECUTABLE "./tool": library "libSNPE.so" not found: needed by main executable': (
        "); put that library beside the program"
    ),
    "./tool: error while loading shared libraries: libQnnGpu.so: cannot open shared object file: No such file": (
        "); put that library beside the program"
    ),
    "./tool: not executable: 64-bit ELF file": "); take the build for this phone's processor",
    "/system/bin/sh: ./tool: can't execute: Permission denied": "); see that the phone lets its shell do this",
    "STARTING!\nERROR: Failed to load model model.tflite\nERROR: Benchmarking failed.": (
        "(ERROR: Failed to load model model.tflite); export the bundle again"
    ),
    "x; error_code=309; error_message=Model parsing has failed.; error_component=Dl Container": (
        "(error_code=309; error_message=Model parsing has failed.); export the bundle again"
    ),
    "Unrecognized option: --gpu_mode": "); take a newer version of the tool",
    "ERROR: Failed to apply GPU delegate.": "); this compute unit may not be there for shell programs",
    "STARTING!\nSegmentation fault": "(Segmentation fault); start the tool by hand",
    "STARTING!\nLoaded \x1b[31mmodel.tflite": "its output ends with `Loaded [31mmodel.tflite`; measure again",
    "x" * 100_000: "; measure again",
}


@pytest.mark.parametrize("text", FAILURES, ids=range(len(FAILURES)))
@pytest.mark.parametrize("tool", TOOLS.values(), ids=list(TOOLS))
def test_the_tools_own_message_and_a_remedy(tool, text: str, tmp_path: Path) -> None:
    for delegate in tool.delegates:
        with pytest.raises(CheckFailed) as caught:
            tool.parse(device_run(delegate), text, tmp_path, None)
        sentence = str(caught.value)
        assert sentence.startswith(tool.name)
        assert FAILURES[text] in sentence
        assert sentence.isprintable()
        assert len(sentence) < 400


FIGURES = [
    ("benchmark_model", "GPU", "benchmark_model-gpu-percentiles", "Inference (avg): ", "309350"),
    ("benchmark_model", "GPU", "benchmark_model-gpu-percentiles", "median=", "307968"),
    ("benchmark_model", "CPU", "benchmark_model-cpu-2.4", "Init: ", "16242"),
    ("benchmark_model", "CPU", "benchmark_model-cpu-2.4", "overall=", "138.809"),
    ("benchmark_model", "CPU", "benchmark_model-litert-2", "Model initialization: ", "4.48"),
    ("snpe-throughput-net-run", "CPU", "snpe-throughput-2.9", "Total throughput: ", "43.6138"),
    ("snpe-throughput-net-run", "CPU", "snpe-throughput-2.9", "Build time: ", "48593"),
    ("qnn-throughput-net-run", "HTP", "qnn-throughput-2.47", "4480        ", "2229"),
]
OPTIONAL = ("median=", "overall=", "Model initialization: ")


@pytest.mark.parametrize("wrong", ["", "nan", "inf", "-3", "soon", "1e999", "0x12", "9" * 5000])
@pytest.mark.parametrize(("tool", "delegate", "name", "label", "figure"), FIGURES, ids=range(len(FIGURES)))
def test_figures_that_are_none(tool, delegate, name, label: str, figure: str, wrong: str, tmp_path: Path) -> None:
    text = recorded(name).replace(f"{label}{figure}", f"{label}{wrong}")
    assert text != recorded(name)
    if wrong == "" and label in OPTIONAL:
        TOOLS[tool].parse(device_run(delegate), text, tmp_path, None)
        return
    with pytest.raises(CheckFailed, match=f"^{tool} "):
        TOOLS[tool].parse(device_run(delegate), text, tmp_path, None)


def _cut(text: str, rng: np.random.Generator) -> str:
    return text[: rng.integers(len(text))]


def _garbled(text: str, rng: np.random.Generator) -> str:
    """Some characters replaced, a piece taken out, and a piece put in twice."""
    letters = list(text)
    for place in rng.integers(len(letters), size=rng.integers(1, 12)):
        letters[place] = rng.choice(list("0123456789.-eE :=()[]\n\t\0\x1b\ufffd\u0663nan"))
    start, end = sorted(rng.integers(len(letters), size=2))
    return "".join(letters[:start] + letters[end:] if rng.random() < 0.3 else letters + letters[start:end])


PRINTED = [
    ("benchmark_model", "CPU", "benchmark_model-cpu-2.4"),
    ("benchmark_model", "GPU", "benchmark_model-gpu-percentiles"),
    ("benchmark_model", "GPU", "benchmark_model-gpu-missing-2021"),
    ("benchmark_model", "CPU", "benchmark_model-litert-2"),
    ("snpe-throughput-net-run", "GPU", "snpe-throughput-gpu-2.9"),
    ("qnn-throughput-net-run", "HTP", "qnn-throughput-2.47"),
]


@pytest.mark.parametrize(("tool", "delegate", "name"), PRINTED)
def test_cut_output_gives_the_right_number_or_none(tool: str, delegate: str, name: str, tmp_path: Path) -> None:
    rng, text = np.random.default_rng(11), recorded(name)
    whole = TOOLS[tool].parse(device_run(delegate), text, tmp_path, None)
    read = 0
    for _ in range(ROUNDS):
        try:
            reading = TOOLS[tool].parse(device_run(delegate), _cut(text, rng), tmp_path, None)
        except CheckFailed:
            continue
        read += 1
        assert (reading.mean_ms, reading.p50_ms, reading.runs) == (whole.mean_ms, whole.p50_ms, whole.runs)
        assert reading.delegate == whole.delegate
    assert read < ROUNDS


@pytest.mark.parametrize(("tool", "delegate", "name"), PRINTED)
def test_garbled_output_is_read_or_refused(tool: str, delegate: str, name: str, tmp_path: Path) -> None:
    rng, text = np.random.default_rng(12), recorded(name)
    for _ in range(ROUNDS):
        garbled = _garbled(text, rng)
        pulled(tmp_path, {"operators.txt": garbled})
        try:
            reading = TOOLS[tool].parse(device_run(delegate), garbled, tmp_path, None)
        except CheckFailed:
            continue
        assert reading.mean_ms >= 0


VIEWED = [
    (read_diagnosis, "snpe-diagview-gpu-2.9"),
    (read_diagnosis, "snpe-diagview-gpu-2.37"),
    (read_diagnosis, "snpe-diagview-dsp-2.37"),
    (lambda text: read_diagnosis("", f"0,A,B\n1,avg_total_inference_time,us,{text}"), "snpe-diagview-gpu-2.9"),
    (lambda text: read_profile(text, "HTP"), "qnn-profile-viewer-htp-2.13"),
    (lambda text: read_profile(text, "HTP"), "qnn-profile-viewer-operators"),
    (lambda text: read_operators(text, "GPU"), "benchmark_model-operators-2.8"),
    (lambda text: read_operators(text, "XNNPACK"), "benchmark_model-operators-xnnpack"),
]


@pytest.mark.parametrize("damage", [_cut, _garbled])
@pytest.mark.parametrize(("reader", "name"), VIEWED, ids=range(len(VIEWED)))
def test_logs_that_are_damaged_are_read_or_refused(reader, name: str, damage, tmp_path: Path) -> None:
    rng, text, refused = np.random.default_rng(13), recorded(name), 0
    for _ in range(ROUNDS):
        try:
            result = reader(damage(text, rng))
        except CheckFailed:
            refused += 1
        else:
            assert result is not None
    assert refused > 0 or reader(text)


def test_no_more_of_a_log_is_read_than_bounds_allow(tmp_path: Path) -> None:
    pulled(tmp_path, {"operators.txt": b"\xff" * (MOST_LOG + 5)})
    assert len(read_log(tmp_path, "operators.txt")) == MOST_LOG
    (tmp_path / "link.txt").symlink_to(tmp_path / "operators.txt")
    assert read_log(tmp_path, "link.txt") == read_log(tmp_path, "none.txt") == ""
