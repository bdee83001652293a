"""The DLC itself: executed on the simulator, held against its source, damaged, and made by an SDK's converter."""

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mobile_avatar.errors import BadInput, CheckFailed, MissingTool
from mobile_avatar.exporters.qnn_process import SOCS, Worker
from mobile_avatar.exporters.registry import Product, find_target
from mobile_avatar.exporters.targets.snpe import SDK_VARIABLES
from mobile_avatar.verification import qnn
from mobile_avatar.verification.dlc import METADATA_RECORD, read_dlc
from mobile_avatar.verification.runners import Exported, open_runner
from tests.deployment_cases import FACTS, GATES, SMALL, Case, Made, export_apart, make_case

pytest.importorskip("onnxruntime_qnn", reason="Qualcomm's libraries exist for Linux x86-64 only")

SNPE = find_target("snpe")
SOC = "snapdragon-8-elite"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[tuple[str, str], Made]:
    """The shipped size, exported by a process that may print nothing and leave nothing behind."""
    return export_apart("snpe", [("split", "fp16"), ("split", "fp32")], tmp_path_factory.mktemp("snpe"))


def export(case: Case, folder: Path, precision: str = "fp16", **options: object) -> tuple[Product, Exported]:
    product = SNPE.convert(replace(case.request(precision, folder), options=options))
    files = {role: folder / path for role, path in product.files.items()}
    return product, Exported(folder, files, case.spec, precision, case.warp)


@pytest.fixture(scope="module")
def small() -> Case:
    return make_case("native", SNPE.layout, SMALL)


@pytest.fixture(scope="module")
def native(small, tmp_path_factory) -> tuple[Product, Exported]:
    """A 64-pixel graph with the warp inside and a context binary."""
    return export(small, tmp_path_factory.mktemp("native"), socs=[SOC])


@pytest.fixture
def copied(native, tmp_path) -> Exported:
    """The native export in a folder that a test may damage."""
    exported = native[1]
    folder = tmp_path / "bundle"
    shutil.copytree(exported.folder, folder)
    files = {role: folder / path.relative_to(exported.folder) for role, path in exported.files.items()}
    return replace(exported, folder=folder, files=files)


def checks_of(runner) -> dict[str, bool | None]:
    return {check.name: check.passed for check in runner.checks}


def worst(case: Case, run) -> float:
    return min(case.psnr(run).values())


def test_the_dlc_itself_runs_on_the_simulator_and_agrees_with_torch(made):
    export = made["split", "fp16"]
    runner = open_runner(SNPE.runner, export.exported)
    assert runner.name == "qnn-htp-simulator-fp16"
    assert checks_of(runner) == {
        "DLC inputs and outputs": True,
        "DLC operations, channels last": True,
        "DLC weights equal the source ONNX": True,
        "the DLC itself was executed": True,
    }
    # Two of the eight vectors: the simulator needs most of a second per frame.
    case = replace(export.case, vectors=export.case.vectors[:2], answers=export.case.answers[:2])
    psnr = case.psnr(runner.run)
    assert min(psnr.values()) >= GATES["fp16"], psnr
    assert max(psnr.values()) < 110, "half precision cannot be this close: something computed in float32"


def test_fp16_files_have_at_most_60_percent_of_fp32(made):
    assert made["split", "fp16"].model.stat().st_size <= 0.6 * made["split", "fp32"].model.stat().st_size


def test_an_fp32_dlc_is_judged_in_fp32_through_its_source(made):
    export = made["split", "fp32"]
    runner = open_runner(SNPE.runner, export.exported)
    assert runner.name == "onnxruntime-cpu (source ONNX of the DLC)"
    checks = checks_of(runner)
    assert checks["DLC weights equal the source ONNX"] is True
    assert checks["the DLC on the simulator (FP16)"] is True
    assert worst(export.case, runner.run) >= GATES["fp32"]


def test_metadata_is_inside_the_dlc_and_its_source(made):
    export = made["split", "fp16"]
    assert read_dlc(export.model).metadata[METADATA_RECORD] == FACTS
    source = onnx.load(export.exported.files["source"])
    assert {entry.key: entry.value for entry in source.metadata_props} == FACTS
    assert export.product.files == {"model": "render.dlc", "source": "source/render.onnx"}
    assert export.product.tools["onnxruntime-qnn"]


def test_only_the_first_feature_map_is_transposed(made):
    dlc = read_dlc(made["split", "fp16"].model)
    moved = [dlc.tensors[op.outputs[0]].shape for op in dlc.operations if op.type == "Transpose"]
    assert set(moved) <= {(1, 4, 4, 128)}


def test_the_native_warp_and_its_context_binary_run_on_the_simulator(small, native):
    product, exported = native
    runner = open_runner(SNPE.runner, exported)
    assert checks_of(runner)["context binary for Snapdragon 8 Elite"] is True
    assert worst(small, runner.run) >= GATES["fp16"]
    assert product.files[f"context-{SOC}"] == f"render.{SOC}.bin"
    assert exported.files[f"context-{SOC}"].stat().st_size > 10_000
    wrapper = onnx.load(exported.files[f"context-wrapper-{SOC}"])
    assert [node.op_type for node in wrapper.graph.node] == ["EPContext"]
    assert sorted(p.name for p in exported.folder.iterdir()) == sorted(
        ["render.dlc", "source", f"render.{SOC}.bin", f"render.{SOC}.onnx"]
    )


def test_the_source_onnx_stands_in_where_the_api_is_unknown(small, native, monkeypatch):
    real = qnn.Simulator

    def unknown_api(command: str, *arguments: object):
        if command == "load_dlc":
            raise MissingTool("DLCs are executed through QNN API 2.40, but onnxruntime-qnn has 2.99")
        return real(command, *arguments)

    direct = open_runner(SNPE.runner, native[1]).run(small.vectors[0])["image"]
    monkeypatch.setattr(qnn, "Simulator", unknown_api)
    runner = open_runner(SNPE.runner, native[1])
    (check,) = (check for check in runner.checks if check.name == "the DLC itself was executed")
    assert check.passed is None
    assert "2.99" in check.detail
    np.testing.assert_array_equal(runner.run(small.vectors[0])["image"], direct)


def test_frames_from_two_threads_get_two_simulators_and_the_same_numbers(small, native):
    runner = open_runner(SNPE.runner, native[1])
    vectors = small.vectors[:4]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(runner.run, vectors))
    for frame, vector in zip(together, vectors, strict=True):
        np.testing.assert_array_equal(frame["image"], runner.run(vector)["image"])


def test_one_corrupted_weight_in_the_dlc_fails_both_checks(small, copied):
    path = copied.files["model"]
    weight = read_dlc(path).tensors["generator.blocks.2.conv1.weight_fp16"].data
    content = bytearray(path.read_bytes())
    content[content.index(weight) + 101] ^= 0x40  # the highest bit of one exponent
    path.write_bytes(content)
    runner = open_runner(SNPE.runner, copied)
    assert checks_of(runner)["DLC weights equal the source ONNX"] is False
    # The DLC is what runs: its pictures change although the source is intact.
    assert worst(small, runner.run) < GATES["fp16"]


def test_one_corrupted_weight_in_the_source_fails(copied):
    path = copied.files["source"]
    model = onnx.load(path)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "generator.mlp.1.weight_fp16")
    values = numpy_helper.to_array(weight).copy()
    values.view(np.uint16).flat[5] ^= 1  # the lowest bit
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    path.write_bytes(model.SerializeToString())
    assert checks_of(open_runner(SNPE.runner, copied))["DLC weights equal the source ONNX"] is False


@pytest.mark.parametrize("role", ["model", "source", f"context-{SOC}"])
def test_a_truncated_file_is_one_sentence(copied, role):
    path = copied.files[role]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckFailed) as caught:
        open_runner(SNPE.runner, copied)
    assert "\n" not in str(caught.value)


def test_unknown_options_are_refused_before_anything_is_written(small, tmp_path):
    with pytest.raises(BadInput, match="unknown converter 'magic'"):
        export(small, tmp_path, converter="magic")
    with pytest.raises(BadInput, match="snapdragon-8-elite"):
        export(small, tmp_path, socs=["snapdragon-1"])
    assert list(tmp_path.iterdir()) == []


def test_the_worker_answers_with_sentences_and_dies_with_its_parent(tmp_path):
    with Worker() as worker:
        with pytest.raises(CheckFailed, match="refused to load_onnx"):
            worker.ask("load_onnx", str(tmp_path / "nothing.onnx"), next(iter(SOCS)))
        worker._process.kill()
        with pytest.raises(CheckFailed, match="stopped during 'run'"):
            worker.ask("run", {})
    program = (
        "from mobile_avatar.exporters.qnn_process import Worker; import time; w = Worker()\n"
        "print(w._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    child = Path("/proc", parent.stdout.readline().strip())
    assert child.is_dir()
    parent.kill()
    parent.wait()
    for _ in range(100):
        # A zombie without a parent to collect it is as dead.
        if not child.is_dir() or " Z " in (child / "stat").read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker outlived its parent")


# ---- the SDK's converter ----

FAKE_CONVERTER = """#!{python}
import json, os, pathlib, shutil, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
names = ("PYTHONPATH", "LD_LIBRARY_PATH", "PATH")
record = {{"options": options, "cwd": os.getcwd(), **{{name: os.environ[name] for name in names}}}}
pathlib.Path({record!r}).write_text(json.dumps(record))
if set(options) != {{"--input_network", "--output_path"}} or not options["--input_network"].endswith(".onnx"):
    sys.exit("error: unrecognized arguments")
if {fails}:
    print("2026 - ERROR - Node Foo: unsupported", file=sys.stderr)
    sys.exit(1)
shutil.copyfile({dlc!r}, options["--output_path"])
"""


@pytest.fixture
def sdk(tmp_path, monkeypatch):
    """Returns a function that puts a stand-in for `qairt-converter` where the SDK keeps it."""
    for name in SDK_VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def install(dlc: Path, variable: str = "QAIRT_SDK_ROOT", fails: bool = False, name: str = "qairt-converter"):
        root = tmp_path / "sdk"
        tool = root / "bin" / "x86_64-linux-clang" / name
        tool.parent.mkdir(parents=True)
        record = tmp_path / "record.json"
        script = FAKE_CONVERTER.format(python=sys.executable, record=str(record), dlc=str(dlc), fails=fails)
        tool.write_text(script)
        tool.chmod(0o755)
        monkeypatch.setenv(variable, str(root))
        return root, record

    return install


@pytest.mark.parametrize(
    ("variable", "name"), [("QAIRT_SDK_ROOT", "qairt-converter"), ("SNPE_ROOT", "snpe-onnx-to-dlc")]
)
def test_a_recorded_fake_sdk_converter_gets_its_arguments_and_environment(small, native, tmp_path, sdk, variable, name):
    root, record = sdk(native[1].files["model"], variable, name=name)
    folder = tmp_path / "bundle"
    folder.mkdir()
    product, _ = export(small, folder, converter="sdk")
    seen = json.loads(record.read_text())
    assert seen["options"] == {
        "--input_network": str(folder / "source" / "render.onnx"),
        "--output_path": str(folder / "render.dlc"),
    }
    assert seen["PYTHONPATH"].split(os.pathsep)[0] == str(root / "lib" / "python")
    assert seen["LD_LIBRARY_PATH"].split(os.pathsep)[0] == str(root / "lib" / "x86_64-linux-clang")
    assert seen["PATH"].split(os.pathsep)[0] == str(root / "bin" / "x86_64-linux-clang")
    assert Path(seen["cwd"]) not in (Path.cwd(), folder)
    assert name in product.tools
    assert "onnxruntime-qnn" not in product.tools


def test_a_recorded_fake_sdk_converter_gets_the_quantised_graph(small, native, tmp_path, sdk):
    _, record = sdk(native[1].files["model"])
    calibration = np.concatenate(small.vectors)
    request = replace(small.request("w8a8", tmp_path), calibration=calibration, options={"converter": "sdk"})
    product = SNPE.convert(request)
    source = Path(json.loads(record.read_text())["options"]["--input_network"])
    assert {node.op_type for node in onnx.load(source).graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    assert product.quantization["float_operators"] == {}  # counted in that graph
    assert "onnxruntime-qnn" not in product.tools


def test_a_recorded_fake_sdk_converter_that_fails_is_one_sentence(small, native, tmp_path, sdk):
    sdk(native[1].files["model"], fails=True)
    with pytest.raises(CheckFailed, match="exit code 1: 2026 - ERROR - Node Foo: unsupported"):
        export(small, tmp_path, converter="sdk")


def test_without_an_sdk_the_sentence_says_how_to_name_one(small, tmp_path, sdk, monkeypatch):
    with pytest.raises(MissingTool, match="set QAIRT_SDK_ROOT"):
        export(small, tmp_path, converter="sdk")
    monkeypatch.setenv("SNPE_ROOT", str(tmp_path))
    with pytest.raises(MissingTool, match=f"no qairt-converter or snpe-onnx-to-dlc .* SNPE_ROOT={tmp_path}"):
        export(small, tmp_path, converter="sdk")
