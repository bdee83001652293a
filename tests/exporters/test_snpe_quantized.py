"""Integer DLCs: what runs on the simulator in 8 and 16 bits, which layers have how many, and damage."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from mobile_avatar.avatar import Avatar
from mobile_avatar.cli.common import shipped
from mobile_avatar.exporters.bundle import Plan, export_bundle
from mobile_avatar.exporters.registry import Product, find_target
from mobile_avatar.verification.dlc import check_dlc, read_dlc
from mobile_avatar.verification.parity import THRESHOLDS
from mobile_avatar.verification.runners import Exported, open_runner
from tests.deployment_cases import SMALL, Case, make_case

pytest.importorskip("onnxruntime_qnn", reason="Qualcomm's libraries exist for Linux x86-64 only")

SNPE = find_target("snpe")
SOC = "snapdragon-8-elite"
CHECKS = {
    "DLC inputs and outputs": True,
    "DLC operations, channels last": True,
    "DLC weights equal the source ONNX": True,
    "DLC operations in integers": True,
    "the DLC itself was executed": True,
}
KEEP = ("blocks.2.conv1", "blocks.2.conv2")


def export(case: Case, folder: Path, precision: str, **changes: object) -> tuple[Product, Exported]:
    # The vectors of a case are noise, so its ranges come from noise, too: other vectors than it is judged on.
    calibration = np.random.default_rng(99).uniform(-1, 1, (32, 136)).astype(np.float32)
    product = SNPE.convert(replace(case.request(precision, folder), calibration=calibration, **changes))
    files = {role: folder / path for role, path in product.files.items()}
    return product, Exported(folder, files, case.spec.with_integers(product.integers), precision, case.warp)


def few(case: Case) -> Case:
    """Two of the eight vectors: the simulator is slow."""
    return replace(case, vectors=case.vectors[:2], answers=case.answers[:2])


@pytest.fixture(scope="module")
def split() -> Case:
    return few(make_case("split", SNPE.layout, SMALL))


@pytest.fixture(scope="module")
def w8a8(split, tmp_path_factory) -> tuple[Product, Exported]:
    return export(split, tmp_path_factory.mktemp("w8a8"), "w8a8")


def types_of(exported: Exported) -> dict[str, str]:
    """Name in the source -> data type of its first output, in the DLC."""
    dlc = read_dlc(exported.files["model"])
    return {op.name.split("_token_")[0]: dlc.tensors[op.outputs[0]].dtype for op in dlc.operations}


def checks_of(runner) -> dict[str, bool | None]:
    return {check.name: check.passed for check in runner.checks}


def test_w8a8_runs_on_the_simulator_in_integers_and_agrees_with_torch(split, w8a8):
    product, exported = w8a8
    runner = open_runner(SNPE.runner, exported)
    assert runner.name == "qnn-htp-simulator-w8a8"
    assert checks_of(runner) == CHECKS
    psnr = split.psnr(runner.run)
    assert min(psnr.values()) >= THRESHOLDS["w8a8"], psnr
    assert max(psnr.values()) < 60, "eight bits cannot be this close: something computed in float"
    assert any("Snapdragon 855" in note for note in product.notes)
    assert product.integers == {}


def test_w8a8_has_16_bits_where_coordinates_and_keypoints_need_them(w8a8):
    product, exported = w8a8
    types = types_of(exported)
    assert {types[f"/generator/{name}"] for name in ("mlp.0/Gemm", "heads/Conv", "Tanh")} == {"uint16"}
    assert types["/Add"] == "uint16"  # offsets + grid
    assert {types[f"/generator/blocks.{i}/conv1/Conv"] for i in range(4)} == {"uint8"}
    facts = product.quantization
    assert (facts["float_operators"], facts["float_reasons"]) == ({}, [])
    assert 0 < facts["operators_with_16_bit_activations"] < facts["operators"] / 2


def test_mixed_keeps_layers_at_16_bits(split, w8a8, tmp_path):
    product, exported = export(split, tmp_path, "mixed", keep=(*KEEP, "gone"))
    types = types_of(exported)
    assert types["/generator/blocks.2/conv1/Conv"] == types["/generator/blocks.2/conv2/Conv"] == "uint16"
    assert types["/generator/blocks.1/conv1/Conv"] == "uint8"
    wide = "operators_with_16_bit_activations"
    assert product.quantization[wide] > w8a8[0].quantization[wide]
    assert any("not kept: gone" in note for note in product.notes)
    runner = open_runner(SNPE.runner, exported)
    assert checks_of(runner) == CHECKS
    psnr = split.psnr(runner.run)
    assert min(psnr.values()) >= THRESHOLDS["mixed"], psnr


def test_the_native_warp_with_integer_inputs_and_outputs_and_a_context_binary(tmp_path):
    case = few(make_case("native", SNPE.layout, SMALL))
    product, exported = export(case, tmp_path, "w8a16", quantize_io=True, options={"socs": [SOC]})
    assert {name: kind for name, (kind, _, _) in product.integers.items()} == {"keypoints": "uint16", "image": "uint16"}
    runner = open_runner(SNPE.runner, exported)
    assert checks_of(runner) == {**CHECKS, "context binary for Snapdragon 8 Elite": True}
    psnr = case.psnr(runner.run)
    assert min(psnr.values()) >= THRESHOLDS["w8a16"], psnr
    assert "GridSample" in {op.type for op in read_dlc(exported.files["model"]).operations}
    kind, scale, zero = product.integers["image"]
    dlc, source = read_dlc(exported.files["model"]), onnx.load(exported.files["source"])
    for other in ((kind, scale * 1.01, zero), (kind, scale, zero + 1), ("uint8", scale, zero)):
        interface = check_dlc(dlc, source, exported.spec.with_integers({"image": other}))[0]
        assert (interface.name, interface.passed) == ("DLC inputs and outputs", False)


def test_corrupted_integer_weights_fail_both_checks(split, w8a8, tmp_path):
    exported = w8a8[1]
    path = tmp_path / "render.dlc"
    content = bytearray(exported.files["model"].read_bytes())
    weight = read_dlc(exported.files["model"]).tensors["generator.heads.weight_quantized"].data
    start = content.index(weight)
    content[start : start + 40] = bytes(value ^ 0x7F for value in weight[:40])
    path.write_bytes(content)
    runner = open_runner(SNPE.runner, replace(exported, files={**exported.files, "model": path}))
    assert checks_of(runner)["DLC weights equal the source ONNX"] is False
    assert min(split.psnr(runner.run).values()) < THRESHOLDS["w8a8"]


def test_nothing_but_the_files_of_the_product_is_left(w8a8):
    exported = w8a8[1]
    found = {path.relative_to(exported.folder).as_posix() for path in exported.folder.rglob("*") if path.is_file()}
    assert found == set(w8a8[0].files.values())
    source = onnx.load(exported.files["source"])
    assert source.producer_name == "mobile-avatar"
    assert {entry.key for entry in source.metadata_props} == {"name", "description", "version", "author", "license"}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["w8a8", "w8a16"])
def test_the_shipped_avatar_passes_its_gates_with_the_native_warp(precision, tmp_path):
    """The split warp is judged in tests/cli/test_precisions.py."""
    plan = Plan("snpe", precision, "native", "snapdragon-8-elite")
    manifest = export_bundle(Avatar.load(shipped("default.avatar")), plan, tmp_path / "bundle", say=lambda line: None)
    print(manifest["parity"])
    assert {row["passed"] for row in manifest["parity"]} == {True}, manifest["parity"]
    assert {row["passed"] for row in manifest["checks"]} == {True}, manifest["checks"]
    size = next(f["bytes"] for f in manifest["files"] if f["path"] == "render.dlc")
    assert size < 2 * manifest["parameters"], "an FP16 file has two bytes per weight"
