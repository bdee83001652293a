"""The CoreML package itself: numbers, names, types, size, metadata, and what a damaged package leads to."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mobile_avatar.errors import CheckFailed
from mobile_avatar.exporters.registry import find_target
from mobile_avatar.verification.coreml import open_coreml
from mobile_avatar.verification.coreml_package import read_package
from mobile_avatar.verification.runners import Exported
from tests.deployment_cases import FACTS, GATES, Made, export_apart

pytest.importorskip("coremltools", reason="coremltools is not installed")

VARIANTS = [(warp, precision) for warp in ("split", "native") for precision in ("fp32", "fp16")]
MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small layers gain nothing from a second thread, and waiting for it on a busy machine takes ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Made]:
    return export_apart("coreml", VARIANTS, tmp_path_factory.mktemp("coreml"))


@pytest.fixture
def copied(made: dict, tmp_path: Path) -> Exported:
    """A split fp16 package that a test may damage."""
    exported = made["split", "fp16"].exported
    package = tmp_path / "render.mlpackage"
    shutil.copytree(exported.files["model"], package)
    return replace(exported, files={"model": package})


@pytest.mark.parametrize(("warp", "precision"), VARIANTS)
def test_package_computes_what_torch_computes(made: dict, warp: str, precision: str) -> None:
    item = made[warp, precision]
    runner = open_coreml(item.exported)
    psnr = item.case.psnr(runner.run)
    assert min(psnr.values()) >= GATES[precision], psnr
    assert runner.checks
    assert all(check.passed for check in runner.checks)
    assert runner.name in (f"mil-in-torch-{precision} (simulated)", "coreml-macos")


@pytest.mark.parametrize("warp", ["split", "native"])
def test_fp16_is_at_most_60_percent_of_fp32(made: dict, warp: str) -> None:
    sizes = {p: sum(f.stat().st_size for f in made[warp, p].model.rglob("*") if f.is_file()) for p in GATES}
    assert sizes["fp16"] <= 0.6 * sizes["fp32"]


@pytest.mark.parametrize(("warp", "precision"), VARIANTS)
def test_interface_is_that_of_the_spec(made: dict, warp: str, precision: str) -> None:
    import coremltools as ct

    item = made[warp, precision]
    model = ct.utils.load_spec(str(item.model))
    assert model.specificationVersion == 7, "iOS 16"
    float32 = ct.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    for found, expected in (
        (model.description.input, item.case.spec.inputs),
        (model.description.output, item.case.spec.outputs),
    ):
        kinds = [(f.name, tuple(f.type.multiArrayType.shape), f.type.multiArrayType.dataType) for f in found]
        assert kinds == [(tensor.name, tensor.shape, float32) for tensor in expected]
        assert all(tensor.layout in f.shortDescription for f, tensor in zip(found, expected, strict=True))


def test_facts_are_inside_the_package(made: dict) -> None:
    import coremltools as ct

    metadata = ct.utils.load_spec(str(made["split", "fp16"].model)).description.metadata
    assert metadata.shortDescription == FACTS["description"]
    assert metadata.author == FACTS["author"]
    assert metadata.license == FACTS["license"]
    assert metadata.versionString == FACTS["version"]
    assert FACTS.items() <= dict(metadata.userDefined).items()


def test_product_names_package_and_tools(made: dict) -> None:
    item = made["split", "fp16"]
    assert item.product.files == {"model": "render.mlpackage"}
    assert set(item.product.tools) == {"coremltools"}
    assert [path.name for path in item.exported.folder.iterdir()] == ["render.mlpackage"]


def test_only_the_grid_is_computed_in_float32(made: dict) -> None:
    program = read_package(made["native", "fp16"].model)
    wide = [op.type for op in program.operations if str(op.outputs[0].dtype) == "torch.float32"]
    assert sorted(wide) == ["add", "cast", "cast", "resample", "tanh", "transpose"]
    program = read_package(made["split", "fp16"].model)
    wide = [op.type for op in program.operations if str(op.outputs[0].dtype) == "torch.float32"]
    assert sorted(wide) == ["add", "cast", "cast", "cast", "tanh"]


def test_half_precision_grid_is_noticed(made: dict, tmp_path: Path) -> None:
    import coremltools as ct

    item = made["split", "fp16"]
    traced = torch.jit.trace(item.case.module, torch.zeros(1, 136), check_trace=False)
    outputs = [ct.TensorType(name=tensor.name, dtype=np.float32) for tensor in item.case.spec.outputs]
    inputs = [ct.TensorType(name="keypoints", shape=(1, 136), dtype=np.float32)]
    target = ct.target.iOS16
    model = ct.convert(traced, minimum_deployment_target=target, inputs=inputs, outputs=outputs, skip_model_load=True)
    model.save(str(tmp_path / "render.mlpackage"))
    runner = open_coreml(replace(item.exported, files={"model": tmp_path / "render.mlpackage"}))
    assert {check.name: check.passed for check in runner.checks}["sampling grid in float32"] is False


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_corrupted_weight_fails_the_parity_gate(made: dict, precision: str, tmp_path: Path) -> None:
    item = made["split", precision]
    package = tmp_path / "render.mlpackage"
    shutil.copytree(item.model, package)
    content = bytearray((package / WEIGHTS).read_bytes())
    # The strongest weight of the uv heads; flip the top bit of its exponent.
    weights = item.case.module.generator.heads.weight.detach().numpy()
    weights = weights.astype(np.float16 if precision == "fp16" else np.float32)
    start = content.find(weights.tobytes())
    assert start > 0
    content[start + (int(np.argmax(np.abs(weights[:2]))) + 1) * weights.itemsize - 1] ^= 0x40
    (package / WEIGHTS).write_bytes(content)
    runner = open_coreml(replace(item.exported, files={"model": package}))
    assert min(item.case.psnr(runner.run).values()) < GATES[precision]


def _set(path: Path, start: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[start : start + len(data)] = data
    path.write_bytes(content)


def _manifest_path(package: Path, value: str) -> None:
    document = json.loads((package / "Manifest.json").read_text())
    document["itemInfoEntries"][document["rootModelIdentifier"]]["path"] = value
    (package / "Manifest.json").write_text(json.dumps(document))


DAMAGE = {
    "no package": shutil.rmtree,
    "no manifest": lambda package: (package / "Manifest.json").unlink(),
    "manifest is text": lambda package: (package / "Manifest.json").write_text("hello"),
    "manifest is a list": lambda package: (package / "Manifest.json").write_text("[]"),
    "manifest leads out": lambda package: _manifest_path(package, "../../../outside"),
    "no program": lambda package: (package / MODEL).unlink(),
    "program is text": lambda package: (package / MODEL).write_text("hello"),
    "half a program": lambda package: (package / MODEL).write_bytes((package / MODEL).read_bytes()[:5000]),
    "no weights": lambda package: (package / WEIGHTS).unlink(),
    "half the weights": lambda package: (package / WEIGHTS).write_bytes((package / WEIGHTS).read_bytes()[:100_000]),
    "empty weights": lambda package: (package / WEIGHTS).write_bytes(b""),
    "storage version": lambda package: _set(package / WEIGHTS, 4, b"\x09"),
    "blob sentinel": lambda package: _set(package / WEIGHTS, 64, b"\x00"),
    "blob type": lambda package: _set(package / WEIGHTS, 68, b"\x03"),
    "blob size": lambda package: _set(package / WEIGHTS, 72, b"\xff\xff\xff\xff\xff\xff\xff\x7f"),
    "blob start": lambda package: _set(package / WEIGHTS, 80, b"\xc0\xff\xff\xff\xff\xff\xff\x7f"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_package_is_refused_in_one_sentence(copied: Exported, damage: str) -> None:
    DAMAGE[damage](copied.files["model"])
    with pytest.raises(CheckFailed, match="export the avatar again") as caught:
        open_coreml(copied)
    assert "\n" not in str(caught.value)


def test_package_that_is_not_the_one_of_the_manifest_is_refused(made: dict) -> None:
    with pytest.raises(CheckFailed, match="has other inputs and outputs"):
        open_coreml(replace(made["split", "fp16"].exported, spec=made["native", "fp16"].case.spec))


def test_target_is_in_the_table() -> None:
    target = find_target("coreml")
    assert (target.layout, target.recipe, target.warps) == ("NCHW", "iphone", ("split", "native"))
