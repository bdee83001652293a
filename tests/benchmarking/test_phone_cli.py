"""`mobile-avatar benchmark --on adb` as a user calls it, with a scripted phone behind a program called adb.

The device tools are scripts that print recordings of the real ones (see tests/benchmarking/tools): what is pushed,
typed on the phone, pulled and read is the real thing.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarking.scripted_phone import RECORDED, ScriptedPhone, write_tool
from tests.benchmarking.small_bundle import CASES, small_bundle
from tests.cli.runner import run

BENCHMARK_MODEL = """
unit=CPU
for word in "$@"; do
  case $word in
    --use_gpu=true) unit=GPU ;;
    --output_filepath=*) out=${word#*=} ;;
  esac
done
cat "$PHONE/said/$unit"
[ -z "$out" ] || cp "$PHONE/outputs/$unit/${out##*/}" "$out"
"""
SNPE_NET_RUN = """
unit=CPU
while [ $# -gt 0 ]; do
  case $1 in
    --use_gpu) unit=GPU ;;
    --use_dsp) echo error_code=201 "no DSP for shell programs"; exit 1 ;;
    --input_list) list=$2 ;;
    --output_dir) out=$2 ;;
  esac
  shift
done
mkdir -p "$out" && cp "$PHONE/said/$unit" "$out/SNPEDiag_0.log"
case $out in */cases) cp -r "$PHONE/outputs/$unit/." "$out/" ;; esac
[ "$(sort -u "$list" | wc -l)" -le 3 ]
"""


class Phone(ScriptedPhone):
    """With tools in a folder of the user and what they say."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.tools = root / "tools"
        for path in (self.tools, root / "said", root / "outputs"):
            path.mkdir()
        self.said: dict[str, str] = {}

    def says(self, unit: str, sample: str) -> None:
        (self.root / "said" / unit).write_text((RECORDED / sample).read_text())

    def computes(self, unit: str, golden: dict[str, np.ndarray], error: float) -> None:
        """Outputs as both tools write them: one file for each case, and a folder for each case."""
        folder = self.root / "outputs" / unit
        for case in range(CASES):
            arrays = {name: array[case] + np.float32(error) for name, array in golden.items()}
            (folder / f"Result_{case}").mkdir(parents=True)
            for name, array in arrays.items():
                array.tofile(folder / f"Result_{case}" / f"{name}.raw")
            (folder / f"case_{case}.raw").write_bytes(b"".join(array.tobytes() for array in arrays.values()))


@pytest.fixture
def phone(tmp_path, monkeypatch) -> Phone:
    phone = Phone(tmp_path / "phone")
    monkeypatch.setenv("PATH", f"{phone.path}:/usr/bin:/bin")
    for name in ("QAIRT_SDK_ROOT", "QNN_SDK_ROOT", "SNPE_ROOT", "ANDROID_SERIAL"):
        monkeypatch.delenv(name, raising=False)
    return phone


@pytest.fixture
def tflite(phone, tmp_path) -> Path:
    folder, _, golden = small_bundle(tmp_path / "tflite", "tflite")
    write_tool(phone.tools / "benchmark_model", BENCHMARK_MODEL)
    phone.says("CPU", "benchmark_model-cpu-2.4.txt")
    phone.says("GPU", "benchmark_model-gpu-percentiles.txt")
    phone.computes("CPU", golden, 0)
    phone.computes("GPU", golden, 0.001)
    return folder


@pytest.fixture
def quick(phone, monkeypatch) -> None:
    """The same phone without a process for every call of adb."""
    monkeypatch.setattr("mobile_avatar.benchmarking.phone.AdbProgram", lambda: phone)


def kept(folder: Path) -> list[dict]:
    """All rows on disk."""
    files = sorted((folder / "measurements").glob("*.json"))
    return [row for file in files for row in json.loads(file.read_text())["results"]]


def test_benchmark_model(phone, tflite, capfd):
    done = run(capfd, "benchmark", tflite, "--on", "adb", "--tools", phone.tools, "--threads", 2, "--json")
    assert done.code == 0, done.err
    rows = [row for row in json.loads(done.out)["results"] if row["place"] == "adb"]
    assert rows == kept(tflite)
    cpu, gpu = rows
    assert (cpu["delegate"], cpu["threads"], cpu["mean_ms"], cpu["p50_ms"]) == ("CPU", 2, 249.684, None)
    assert (gpu["delegate"], gpu["threads"], gpu["mean_ms"], gpu["p50_ms"]) == ("GPU", None, 309.35, 307.968)
    assert (gpu["device"], gpu["soc"], gpu["kind"]) == ("Pixel 4", "msmnile", "measured")
    assert [check["runner"] for check in gpu["parity"]] == ["litert-gpu on Pixel 4"] * 4
    assert all(check["passed"] for row in rows for check in row["parity"])
    assert gpu["parity"][0]["psnr_db"] < 70 < cpu["parity"][0]["psnr_db"]
    assert "--num_threads=2 --use_xnnpack=true" in cpu["command"]
    assert phone.left == []


def test_a_silent_fallback_is_found_twice(phone, quick, tflite, capfd):
    """By the log of a build without GPU support; and by the bits, where the log claims the GPU."""
    phone.says("GPU", "benchmark_model-gpu-missing-2021.txt")
    arguments = ("benchmark", tflite, "--on", "adb", "--tools", phone.tools)
    done = run(capfd, *arguments)
    assert done.code == 0, done.err
    assert "litert fp16, CPU (fallback)" in done.out
    assert "asked for GPU: no line of the log says that the GPU took the graph" in done.out
    phone.says("GPU", "benchmark_model-gpu-percentiles.txt")
    for case in range(CASES):
        same = (phone.root / "outputs" / "CPU" / f"case_{case}.raw").read_bytes()
        (phone.root / "outputs" / "GPU" / f"case_{case}.raw").write_bytes(same)
    assert "CPU (fallback suspected: outputs are bit-identical" in run(capfd, *arguments).out


def test_snpe_net_run(phone, quick, tmp_path, capfd):
    folder, _, golden = small_bundle(tmp_path / "snpe", "snpe")
    write_tool(phone.tools / "snpe-net-run", SNPE_NET_RUN)
    write_tool(phone.tools / "snpe-diagview", 'cat "$2"\n')
    for unit in ("CPU", "GPU"):
        phone.says(unit, "snpe-diagview-gpu-2.37.txt")
        phone.computes(unit, golden, {"CPU": 0, "GPU": 0.001}[unit])
    done = run(capfd, "benchmark", folder, "--on", "adb", "--tools", phone.tools, "--json", "--budget-ms", 1)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert "measured mean 0.77 ms" in result["budget"]["sentence"]
    rows = {row["command"].count("--use_gpu") and row["delegate"]: row for row in kept(folder)}
    gpu = rows["GPU (float16)"]
    assert (gpu["mean_ms"], gpu["load_ms"], gpu["runtime_version"]) == (0.768, 204.416, "2.37.0.250724175447_124859")
    assert gpu["operators"][0]["unit"] == "GPU"
    assert all(check["passed"] for check in gpu["parity"])
    failed = next(row for row in kept(folder) if row["error"])
    assert (failed["delegate"], "no DSP for shell programs" in failed["error"]) == ("DSP", True)


def test_a_budget_that_says_no(phone, quick, tflite, capfd):
    done = run(capfd, "benchmark", tflite, "--on", "adb", "--tools", phone.tools, "--budget-ms", 42)
    assert done.code == 1
    assert "budget: measured" in done.sentence
    assert "on Pixel 4, is over the budget of 42 ms" in done.sentence
    assert len(kept(tflite)) == 2


def test_a_phone_that_goes_away(phone, tflite, capfd):
    phone.fault({"at": "use_gpu=true", "gone": True, "code": 255})
    done = run(capfd, "benchmark", tflite, "--on", "adb", "--tools", phone.tools)
    assert done.code == 3
    assert "the phone 9B1AY1SCRIPT went away during `adb shell` (no answer, exit code 255)" in done.sentence
    assert "litert fp16, CPU, 4 threads" in done.out, "what was measured until then is shown"
    assert [bool(row["error"]) for row in kept(tflite)] == [False, True]


def test_nothing_that_runs(phone, quick, tflite, capfd):
    write_tool(phone.tools / "benchmark_model", 'echo "ERROR: Failed to load model model.tflite"; exit 1\n')
    done = run(capfd, "benchmark", tflite, "--on", "adb", "--tools", phone.tools)
    assert done.code == 1
    assert (
        "nothing could be measured on Pixel 4: benchmark_model ended with exit code 1 (ERROR: Failed" in done.sentence
    )


@pytest.mark.parametrize(
    ("devices", "arguments", "code", "words"),
    [
        ("", (), 3, "no phone is connected"),
        ("a\tunauthorized\n", (), 3, "the phone a has not allowed this computer"),
        ("a\toffline\n", (), 3, "the phone a is offline"),
        ("a\tdevice\nb\tdevice\n", (), 2, "choose one with --serial: a (device), b (device)"),
        ("a\tdevice\n", ("--serial", "c"), 2, "there is no phone 'c'; connected: a (device)"),
        ("", ("--runtime", "abacus"), 2, "no runtime 'abacus' on a phone"),
        ("", ("--runtime", "snpe"), 2, "snpe does not run tflite bundles"),
        ("", ("--tools", "/nowhere"), 2, "/nowhere is not a folder"),
        ("", ("--tools", "/etc/hostname"), 2, "/etc/hostname is not a folder"),
        ("a\tdevice\n", ("--tools", "/usr/share"), 3, "no device tool for arm64-v8a found: benchmark_model"),
    ],
)
def test_what_is_missing(phone, quick, tflite, capfd, devices, arguments, code, words):
    phone.devices(devices)
    done = run(capfd, "benchmark", tflite, "--on", "adb", *arguments)
    assert done.code == code
    assert words in done.sentence
    assert kept(tflite) == []


@pytest.mark.parametrize("target", ["coreml", "onnx", "executorch"])
def test_bundles_that_no_phone_tool_runs_need_no_phone(phone, quick, tmp_path, capfd, target):
    phone.devices("")
    folder, _, _ = small_bundle(tmp_path / "other", target)
    done = run(capfd, "benchmark", folder, "--on", "adb")
    assert done.code == 2
    assert f"{target} bundles are not run over adb; export for one of snpe, tflite" in done.sentence


def test_without_adb(tflite, capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run(capfd, "benchmark", tflite, "--on", "adb")
    assert done.code == 3
    assert "adb is not installed; install Android's platform tools" in done.sentence


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_benchmark_that_is_stopped_cleans_up_the_phone(phone, tflite, number):
    (phone.root / "said" / "GPU").unlink()
    os.mkfifo(phone.root / "said" / "GPU")  # the tool waits for ever
    command = [sys.executable, "-c", "from mobile_avatar.cli.main import main; main()", "benchmark", str(tflite)]
    with subprocess.Popen([*command, "--on", "adb", "--tools", str(phone.tools)], stderr=subprocess.PIPE) as process:
        while not any("use_gpu=true" in call[-1] for call in phone.calls("shell")):
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert b"Traceback" not in err
    assert phone.left == []
    assert [row["delegate"] for row in kept(tflite)] == ["CPU"]
