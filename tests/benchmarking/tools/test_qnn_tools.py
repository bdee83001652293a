"""qnn-net-run and qnn-throughput-net-run, read from recordings.

`qnn-profile-viewer-htp-2.13` comes from a published log of QNN 2.13 on an HTP (rules of dashes, lost in print, put
back), `qnn-net-run` from published logs of 2.37 and 2.48 put together, `qnn-throughput-2.47` and its refusal from a
published log of QAIRT 2.47 on a OnePlus 12, where the program crashed at its end. `qnn-profile-viewer-operators` is put
together from published descriptions of the detailed level. Names of graphs and operators are ours.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.benchmarking.result import OperatorTime
from mobile_avatar.benchmarking.tools.qnn import QNN_NET_RUN, read_profile
from mobile_avatar.benchmarking.tools.qnn_throughput import QNN_THROUGHPUT
from mobile_avatar.errors import CheckFailed, MissingTool
from tests.benchmarking.tools.recorded_run import INTEGERS, SHELLS, device_run, outputs, pulled, recorded, viewer


def test_times_and_operators(tmp_path: Path) -> None:
    steady = recorded("qnn-profile-viewer-htp-2.13")
    texts = {
        "first": steady.replace("2952", "9120"),
        "steady": steady,
        "operators": recorded("qnn-profile-viewer-operators"),
    }
    folder = pulled(tmp_path / "out", {f"{name}/qnn-profiling-data_0.log": text for name, text in texts.items()})
    host = viewer(tmp_path / "host", "qnn-profile-viewer")
    reading = QNN_NET_RUN.parse(device_run("HTP"), recorded("qnn-net-run"), folder, host)
    assert (reading.load_ms, reading.first_ms, reading.mean_ms, reading.runs) == (331.158, 9.12, 2.952, 50)
    assert (reading.delegate, reading.fallback, reading.version) == ("HTP", "", "v2.48.0.260626120635")
    assert reading.operators == (
        OperatorTime("Input OpId_2", "", "HTP", None),
        OperatorTime("/down/0/Conv:OpId_27", "", "HTP", None),
        OperatorTime("/mask/Sigmoid:OpId_42", "", "HTP", None),
    )
    assert "operators are counted in cycles, which do not tell a time" in reading.notes
    timed = read_profile(texts["operators"].replace("(cycles): 2152 cycles", ": 12 us"), "GPU")
    assert timed.operators[2].ms == 0.012


def test_what_keeps_times_from_being_read(tmp_path: Path) -> None:
    run, text = device_run("GPU"), recorded("qnn-profile-viewer-htp-2.13")
    with pytest.raises(CheckFailed, match=r"qnn-net-run wrote no profile \(Unable to load backend.*\); this compute"):
        QNN_NET_RUN.parse(run, "Unable to load backend. dlerror(): libQnnGpu.so", tmp_path / "none", None)
    folder = pulled(tmp_path / "out", {"steady/qnn-profiling-data_0.log": text})
    with pytest.raises(MissingTool, match="qnn-profile-viewer, which reads it, was not found on this computer"):
        QNN_NET_RUN.parse(run, "", folder, None)
    host = viewer(tmp_path / "host", "qnn-profile-viewer")
    assert QNN_NET_RUN.parse(run, "", folder, host).first_ms is None
    pulled(folder, {"steady/qnn-profiling-data_0.log": text[: text.index("Execute Stats")]})
    with pytest.raises(CheckFailed, match=r"qnn-profile-viewer showed no `Execute Stats \(Average\)`"):
        QNN_NET_RUN.parse(run, "", folder, host)


def test_outputs_are_those_of_the_first_steady_runs(tmp_path: Path) -> None:
    run, frames = device_run("GPU", spec=INTEGERS), outputs(INTEGERS)
    files = {f"steady/Result_{i}/{name}_native.raw": a.tobytes() for i, f in enumerate(frames) for name, a in f.items()}
    for frame, result in zip(frames, QNN_NET_RUN.read_outputs(run, pulled(tmp_path, files)), strict=True):
        for name, array in frame.items():
            np.testing.assert_array_equal(result[name], array)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_lines_run_in_a_shell(shell: str, tmp_path: Path) -> None:
    program = '#!/bin/sh\necho "$@"\ncase "$@" in *detailed*) exit 4;; esac\n'
    pulled(tmp_path, {"qnn-net-run": program})
    (tmp_path / "qnn-net-run").chmod(0o755)
    (tmp_path / "output").mkdir()
    script = "\n".join(["set -e", *QNN_NET_RUN.commands(device_run("GPU", cases=8, runs=3))])
    done = subprocess.run([shell, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == (
        "--backend libQnnGpu.so --model libQnnModelDlc.so --dlc_path model.bin --input_list output/cases.txt "
        "--perf_profile burst --profiling_level basic --num_inferences 8 --keep_num_outputs 8 "
        "--output_dir output/steady"
    )
    assert len(done.stdout.splitlines()) == 3
    assert (tmp_path / "output/cases.txt").read_text().splitlines()[7] == "keypoints:=input_7.raw"
    alone = QNN_NET_RUN.commands(device_run("HTP", spec=INTEGERS, details=False))
    assert sum("qnn-net-run" in line for line in alone) == 1
    assert " --use_native_input_files --use_native_output_files " in alone[1]


def test_throughput(tmp_path: Path) -> None:
    reading = QNN_THROUGHPUT.parse(device_run("HTP"), recorded("qnn-throughput-2.47"), tmp_path, None)
    assert (reading.mean_ms, reading.runs, reading.delegate) == (2.229, 4480, "HTP")
    assert reading.notes == (
        "the shortest run took 1.905 ms, the longest 3.315 ms",
        "it crashed at its end, after all runs",
    )
    with pytest.raises(
        CheckFailed, match=r"no `graphExecute` times \(Could not create context from binary\); this comp"
    ):
        QNN_THROUGHPUT.parse(device_run("GPU"), recorded("qnn-throughput-refused-2.47"), tmp_path, None)
    assert QNN_THROUGHPUT.read_outputs(device_run("GPU"), tmp_path) == []


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("extended", [False, True])
def test_throughput_compiles_and_configures_in_a_shell(shell: str, extended: bool, tmp_path: Path) -> None:
    compiler = "#!/bin/sh\nmkdir -p output/context\n: > output/context/context.bin\n"
    program = '#!/bin/sh\n[ -f output/context/context.bin ] || exit 9\ncat "$2"\nexit 139\n'
    pulled(tmp_path, {"qnn-context-binary-generator": compiler, "qnn-throughput-net-run": program, "output/x": ""})
    if extended:
        pulled(tmp_path, {"libQnnGpuNetRunExtensions.so": ""})
    for path in tmp_path.glob("qnn-*"):
        path.chmod(0o755)
    script = "\n".join(["set -e", *QNN_THROUGHPUT.commands(device_run("GPU", runs=30))])
    done = subprocess.run([shell, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    said, _, code = done.stdout.rpartition("exit code ")
    assert code == "139\n"
    configuration = json.loads(said)
    backend = configuration["backends"][0]
    assert backend["backendPath"] == "libQnnGpu.so"
    assert ("backendExtensions" in backend) == ("perfProfile" in backend) == extended
    thread = configuration["testCase"]["threads"][0]
    assert (thread["loopUnit"], thread["loop"]) == ("count", 30)
    assert configuration["models"][0]["inputDataType"] == "FLOAT"
    assert not (tmp_path / "output/context").exists()
