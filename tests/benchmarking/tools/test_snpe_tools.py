"""snpe-net-run and snpe-throughput-net-run, read from recordings.

`snpe-diagview-gpu-2.9` and the throughput lines come from published logs of SNPE 2.9.0 on a Xiaomi 13 Pro, the forms of
2.37 from a published report of its GPU (FP16) and its DSP; layers are renamed and fewer. The rate and the number of
images of the GPU's throughput line disagree in the published log. No recorded CSV of snpe-diagview was found: the rows
below hold the columns that programs which read it rely on (message second, value in us fourth).
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.benchmarking.result import OperatorTime
from mobile_avatar.benchmarking.tools.snpe import SNPE_NET_RUN, placement, read_diagnosis
from mobile_avatar.benchmarking.tools.snpe_throughput import SNPE_THROUGHPUT
from mobile_avatar.errors import CheckFailed, MissingTool
from tests.benchmarking.tools.recorded_run import INTEGERS, SHELLS, SPEC, device_run, outputs, pulled, recorded, viewer

CSV = "\n".join(
    [
        "Message Number,Message Name,Message Type,Message Value",
        "0,SOFTWARE_VERSION,Info,2.37.0",
        "1,INIT,Time,204416",
        "2,AVG_TOTAL_INFERENCE_TIME,Time,768",
    ]
)


def logs(folder: Path, first: str, steady: str, cases: str) -> Path:
    names = {"first": first, "steady": steady, "cases": cases}
    return pulled(folder, {f"{name}/SNPEDiag_0.log": text for name, text in names.items()})


def test_times_and_layers_of_a_gpu(tmp_path: Path) -> None:
    steady, cases = recorded("snpe-diagview-gpu-2.9"), recorded("snpe-diagview-gpu-2.37")
    folder = logs(tmp_path / "out", steady.replace("11676", "15034"), steady, cases)
    host = viewer(tmp_path / "host", "snpe-diagview")
    reading = SNPE_NET_RUN.parse(device_run("GPU_FP16"), "", folder, host)
    assert (reading.load_ms, reading.first_ms, reading.mean_ms) == (903.746, 15.034, 11.676)
    assert (reading.runs, reading.version, reading.p50_ms) == (50, "2.9.0.4462", None)
    assert (reading.delegate, reading.fallback) == ("GPU (float16)", "")
    assert reading.operators == (
        OperatorTime("/down/0/Conv", "", "GPU", 0.008),
        OperatorTime("/down/1/Conv", "", "GPU", 0.004),
        OperatorTime("/up/0/Conv", "", "GPU", 0.004),
        OperatorTime("/mask/Sigmoid", "", "GPU", 0.008),
    )
    assert reading.notes[0].startswith("average of 50 runs in one process, its first included")


def test_layers_without_names_and_layers_in_cycles(tmp_path: Path) -> None:
    assert read_diagnosis(recorded("snpe-diagview-gpu-2.9")).layers[0] == OperatorTime("layer 0", "", "GPU", 0.144)
    dsp = recorded("snpe-diagview-dsp-2.37")
    diagnosis = read_diagnosis(dsp)
    assert (diagnosis.init_ms, diagnosis.total_ms) == (158.658, 1.328)
    assert diagnosis.layers[1] == OperatorTime("/down/0/Conv:OpId_18 (cycles)", "", "DSP", None)
    host = viewer(tmp_path / "host", "snpe-diagview")
    reading = SNPE_NET_RUN.parse(device_run("DSP"), "", logs(tmp_path / "out", dsp, dsp, dsp), host)
    assert "layers are counted in cycles, which do not tell a time" in reading.notes
    assert (reading.delegate, reading.fallback) == ("DSP", "")


def test_layers_on_the_cpu_are_a_fallback() -> None:
    text = recorded("snpe-diagview-gpu-2.37").replace("/mask/Sigmoid : 8 us : GPU", "/mask/Sigmoid : 31 us : CPU")
    layers = read_diagnosis(text).layers
    assert placement("GPU", layers) == (
        "GPU + CPU",
        "1 of 4 layers ran on the CPU instead of the GPU (/mask/Sigmoid)",
    )
    delegate, sentence = placement("GPU_FP16", read_diagnosis(text.replace(": GPU", ": CPU")).layers)
    assert delegate == "CPU"
    assert sentence.startswith("4 of 4 layers ran on the CPU instead of the GPU (/down/0/Conv, /down/1/Conv, ")
    assert placement("CPU", ()) == ("", "")


def test_the_table_helps_where_the_text_has_another_wording(tmp_path: Path) -> None:
    text = recorded("snpe-diagview-gpu-2.37").replace("Total Inference Time", "Whole").replace("Init:", "Begin:")
    diagnosis = read_diagnosis(text, CSV)
    assert (diagnosis.total_ms, diagnosis.init_ms, len(diagnosis.layers)) == (0.768, 204.416, 4)
    with pytest.raises(CheckFailed, match="showed no `Total"):
        read_diagnosis(text, "x," * 2 + "y" * 200_000)
    folder = logs(tmp_path / "out", text, text, text)
    pulled(folder, {f"{name}/SNPEDiag_0.log.csv": CSV for name in ("first", "steady", "cases")})
    reading = SNPE_NET_RUN.parse(device_run("GPU"), "", folder, viewer(tmp_path / "host", "snpe-diagview"))
    assert (reading.mean_ms, reading.load_ms) == (0.768, 204.416)


def test_what_keeps_times_from_being_read(tmp_path: Path) -> None:
    run, text = device_run("GPU"), recorded("snpe-diagview-gpu-2.9")
    with pytest.raises(
        CheckFailed, match=r"no SNPEDiag_0.log \(error_code=402; error_message=Network partition has failed.\); this"
    ):
        SNPE_NET_RUN.parse(run, recorded("snpe-throughput-refused"), tmp_path / "none", None)
    folder = logs(tmp_path / "out", text, text, text)
    with pytest.raises(MissingTool, match="snpe-diagview, which reads it, was not found on this computer; set QAIRT_"):
        SNPE_NET_RUN.parse(run, "", folder, None)
    with pytest.raises(CheckFailed, match=r"snpe-diagview cannot be started \(No such file or directory\); take the S"):
        SNPE_NET_RUN.parse(run, "", folder, tmp_path)
    host = viewer(tmp_path / "host", "snpe-diagview")
    message = "./snpe-diagview: error while loading shared libraries: libSNPE.so: cannot open shared object file"
    pulled(host, {"snpe-diagview": f"#!/bin/sh\necho '{message}' >&2\nexit 127\n"})
    with pytest.raises(CheckFailed, match=r"showed no `Total Inference Time` \(.*libSNPE.so.*\); put that libr"):
        SNPE_NET_RUN.parse(run, "", folder, host)
    pulled(folder, {"steady/SNPEDiag_0.log": text.replace("11676", "many")})
    with pytest.raises(CheckFailed, match="gives `many` as `Total Inference Time`"):
        SNPE_NET_RUN.parse(run, "", folder, viewer(tmp_path / "host", "snpe-diagview"))


@pytest.mark.parametrize(("spec", "ending"), [(SPEC, ".raw"), (SPEC, ":0.raw"), (INTEGERS, "_native.raw")])
def test_outputs_by_any_of_their_names(spec, ending: str, tmp_path: Path) -> None:
    run, frames = device_run("GPU", spec=spec), outputs(spec)
    assert SNPE_NET_RUN.read_outputs(run, tmp_path) == []
    files = {f"cases/Result_{i}/{name}{ending}": a.tobytes() for i, f in enumerate(frames) for name, a in f.items()}
    results = SNPE_NET_RUN.read_outputs(run, pulled(tmp_path, files))
    for frame, result in zip(frames, results, strict=True):
        for name, array in frame.items():
            assert result[name].dtype == array.dtype
            np.testing.assert_array_equal(result[name], array)
    pulled(tmp_path, {f"cases/Result_1/mask{ending}": b"123"})
    with pytest.raises(CheckFailed, match=r"snpe-net-run wrote 3 bytes into Result_1/mask.* where mask of the man"):
        SNPE_NET_RUN.read_outputs(run, tmp_path)
    (tmp_path / f"cases/Result_1/mask{ending}").unlink()
    with pytest.raises(CheckFailed, match="snpe-net-run left out mask of golden case 1; "):
        SNPE_NET_RUN.read_outputs(run, tmp_path)


PROGRAM = """#!/bin/sh
echo "$@" >> calls.txt
while [ $# -gt 0 ]; do case $1 in
--input_list) list=$2;;
--output_dir) dir=$2;;
--profiling_level) [ $2 = detailed ] && [ -f refuse ] && exit 5;;
esac; shift; done
i=0; while read -r line; do mkdir -p $dir/Result_$i; echo "$line" > $dir/Result_$i/line; i=$((i+1)); done < $list
wc -l < $list
"""


@pytest.mark.parametrize("shell", SHELLS)
def test_the_lines_run_in_a_shell(shell: str, tmp_path: Path) -> None:
    pulled(tmp_path, {"snpe-net-run": PROGRAM, "refuse": ""})
    (tmp_path / "snpe-net-run").chmod(0o755)
    (tmp_path / "output").mkdir()
    script = "\n".join(["set -e", *SNPE_NET_RUN.commands(device_run("GPU_FP16", cases=8, runs=11))])
    done = subprocess.run([shell, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    # 11 steady runs and the first one; the listing of layers was refused, which does not fail the run.
    assert done.stdout.split() == ["11", "1"]
    assert (tmp_path / "output/steady.txt").read_text().splitlines()[8:10] == [
        *("keypoints:=input_0.raw", "keypoints:=input_1.raw"),
    ]
    assert not list(tmp_path.glob("output/steady/Result_*"))
    calls = (tmp_path / "calls.txt").read_text()
    assert "--container model.bin --use_gpu --gpu_mode float16 --perf_profile burst --profiling_level basic" in calls
    alone = SNPE_NET_RUN.commands(device_run("GPU", spec=INTEGERS, details=False, runs=10_000))
    assert sum("snpe-net-run" in line for line in alone) == 1
    assert "--userbuffer_auto --use_native_input_files --use_native_output_files" in alone[3]
    # Every run writes its outputs to the phone's storage.
    assert "head -n 100 " in alone[2]


def test_throughput(tmp_path: Path) -> None:
    reading = SNPE_THROUGHPUT.parse(device_run("CPU"), recorded("snpe-throughput-2.9"), tmp_path, None)
    assert (reading.load_ms, reading.runs) == (48.593, 437)
    assert reading.mean_ms == pytest.approx(1000 / 43.6138, abs=1e-6)
    assert (reading.delegate, reading.fallback, len(reading.notes)) == ("CPU", "", 1)
    gpu = SNPE_THROUGHPUT.parse(device_run("GPU"), recorded("snpe-throughput-gpu-2.9"), tmp_path, None)
    assert (gpu.delegate, gpu.load_ms) == ("GPU (float16 storage, float32 arithmetic)", 875.167)
    assert "its rate (8.323 ms a run) and its own count of runs (9.284 ms) disagree" in gpu.notes
    other = SNPE_THROUGHPUT.parse(device_run("GPU_FP16"), recorded("snpe-throughput-2.9"), tmp_path, None)
    assert (other.delegate, other.fallback) == ("CPU", "gpu_float16 was asked for and cpu_float32 ran")
    (line,) = SNPE_THROUGHPUT.commands(device_run("GPU_FP16"))
    assert line.endswith("--container model.bin --duration 10 --perf_profile burst --runtime_order gpu_float16")
    assert SNPE_THROUGHPUT.read_outputs(device_run("GPU"), tmp_path) == []
