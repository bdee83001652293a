"""The whole table over a scripted phone: programs that print recordings and write golden outputs, row by row.

What the programs print is recorded (see the tests of each tool); that phone, adb and programs are scripts is not.
"""

from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.benchmarking.phone import measure
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import Result
from mobile_avatar.benchmarking.store import Journal
from mobile_avatar.benchmarking.subject import open_subject
from tests.benchmarking.scripted_phone import ScriptedPhone
from tests.benchmarking.small_bundle import CASES, small_bundle
from tests.benchmarking.tools.recorded_run import recorded, viewer

BENCHMARK_MODEL = """case "$*" in
*--output_filepath=*) file="${*##*--output_filepath=}"; case=${file%.raw}; case=${case##*_}
  cat $PHONE/golden/$UNIT/${case}_* > $file;;
*--enable_op_profiling=true*) cat $PHONE/said/operators.txt;;
*--use_gpu=true*) cat $PHONE/said/gpu.txt;;
*) cat $PHONE/said/cpu.txt;;
esac"""
NET_RUN = """while [ $# -gt 0 ]; do case $1 in --output_dir) dir=$2;; esac; shift; done
mkdir -p $dir
cp $PHONE/said/log.txt $dir/LOG
for case in CASES; do
  mkdir -p $dir/Result_$case
  for name in uv lf mask; do cp $PHONE/golden/$UNIT/${case}_*_$name $dir/Result_$case/$name.raw; done
done"""


class Bench:
    """A bundle, a phone and a folder of tools."""

    def __init__(self, root: Path, target: str) -> None:
        folder, spec, golden = small_bundle(root / "bundle", target)
        self.subject, self.phone, self.tools = open_subject(folder), ScriptedPhone(root / "phone"), root / "tools"
        self.tools.mkdir()
        # Bits that differ by unit, as roundings do; files sort in the order of the outputs.
        for unit, noise in (("CPU", 0), ("GPU", 2**-13), ("HTP", 2**-12)):
            place = self.phone.root / "golden" / unit
            place.mkdir(parents=True)
            for number, tensor in enumerate(spec.outputs):
                for case in range(CASES):
                    array = golden[tensor.name][case] + np.float32(noise)
                    array.tofile(place / f"{case}_{number}_{tensor.name}")
        (self.phone.root / "said").mkdir()

    def program(self, name: str, body: str) -> None:
        unit = 'case "$*" in *gpu*|*Gpu*) UNIT=GPU;; *Htp*) UNIT=HTP;; *) UNIT=CPU;; esac'
        path = self.tools / name
        path.write_text(f"#!/bin/sh\n{unit}\n{body}\n".replace("CASES", " ".join(map(str, range(CASES)))))
        path.chmod(0o755)

    def says(self, name: str, text: str) -> None:
        (self.phone.root / "said" / f"{name}.txt").write_text(text)

    def measure(self, **settings: object) -> dict[tuple[str, str], Result]:
        """(Tool, delegate) -> row."""
        journal = Journal(self.subject, "adb")
        measure(self.subject, Settings(tools=self.tools, say=lambda line: None, **settings), journal, self.phone)
        return {(row.method.partition(" ")[0], row.delegate): row for row in journal.results}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANDROID_SERIAL", "QAIRT_SDK_ROOT", "QNN_SDK_ROOT", "SNPE_ROOT"):
        monkeypatch.delenv(name, raising=False)


def passed(row: Result) -> bool:
    return len(row.parity) == 4 and all(check["passed"] for check in row.parity)


def test_tflite(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "tflite")
    bench.program("benchmark_model", BENCHMARK_MODEL)
    bench.says("gpu", recorded("benchmark_model-gpu-percentiles"))
    bench.says("cpu", recorded("benchmark_model-cpu-2.4"))
    bench.says("operators", recorded("benchmark_model-operators-2.8"))
    rows = bench.measure()
    gpu, cpu = rows["benchmark_model", "GPU"], rows["benchmark_model", "CPU"]
    assert (gpu.runtime, gpu.p50_ms, gpu.memory_mb, gpu.error) == ("litert", 307.968, 375.48, "")
    assert (cpu.mean_ms, cpu.threads) == (249.684, 4)
    assert len(gpu.operators) == len(cpu.operators) == 3
    assert passed(gpu)
    assert passed(cpu)
    assert "--use_gpu=true" in gpu.command
    bench.says("gpu", recorded("benchmark_model-gpu-missing-2021"))
    rows = bench.measure()
    (fallen,) = (row for (_, unit), row in rows.items() if "fallback" in unit)
    assert fallen.mean_ms == 74.4816
    assert any("GPU acceleration is unsupported on this platform" in note for note in fallen.notes)


def test_snpe_and_qnn(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "snpe")
    bench.program("snpe-net-run", NET_RUN.replace("LOG", "SNPEDiag_0.log"))
    bench.program("snpe-throughput-net-run", "cat $PHONE/said/rate.txt")
    viewer(bench.tools, "snpe-diagview")
    bench.says("log", recorded("snpe-diagview-gpu-2.9"))
    bench.says("rate", recorded("snpe-throughput-2.9"))
    rows = bench.measure(runtimes=("snpe",), runs=5)
    best = rows["snpe-net-run", "GPU (float16)"]
    assert (best.runtime, best.load_ms, best.mean_ms, best.runs) == ("snpe", 903.746, 11.676, 5)
    assert (best.runtime_version, best.error) == ("2.9.0.4462", "")
    assert passed(best)
    assert rows["snpe-throughput-net-run", "CPU"].runs == 437
    bench.program("qnn-net-run", NET_RUN.replace("LOG", "qnn-profiling-data_0.log"))
    bench.program("qnn-context-binary-generator", "mkdir -p output/context")
    bench.program("qnn-throughput-net-run", "cat $PHONE/said/rate.txt; exit 139")
    viewer(bench.tools, "qnn-profile-viewer")
    bench.says("log", recorded("qnn-profile-viewer-htp-2.13"))
    bench.says("rate", recorded("qnn-throughput-2.47"))
    rows = bench.measure(runtimes=("qnn",), runs=5)
    assert {name for name in rows if rows[name].error} == set()
    htp = rows["qnn-net-run", "HTP"]
    assert (htp.runtime, htp.mean_ms, htp.load_ms, htp.runs) == ("qnn", 2.952, 331.158, 5)
    assert passed(htp)
    assert (rows["qnn-throughput-net-run", "GPU"].mean_ms, rows["qnn-throughput-net-run", "GPU"].runs) == (2.229, 4480)


def test_without_the_viewer_the_row_says_what_to_set(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "snpe")
    bench.program("snpe-net-run", NET_RUN.replace("LOG", "SNPEDiag_0.log"))
    bench.program("snpe-throughput-net-run", "cat $PHONE/said/rate.txt")
    bench.says("log", recorded("snpe-diagview-gpu-2.9"))
    bench.says("rate", recorded("snpe-throughput-gpu-2.9"))
    rows = bench.measure(runs=5)
    errors = [row.error for (name, _), row in rows.items() if name == "snpe-net-run"]
    assert errors
    assert all("set QAIRT_SDK_ROOT to Qualcomm's SDK" in error for error in errors)
    assert rows["snpe-throughput-net-run", "GPU (float16 storage, float32 arithmetic)"].error == ""
