"""CoreML in integers: what is int8, what the recipe keeps, how float operators are accounted for, and the numbers."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mobile_avatar.avatar import Avatar
from mobile_avatar.cli.common import shipped
from mobile_avatar.exporters.bundle import Plan, export_bundle
from mobile_avatar.exporters.registry import find_target
from mobile_avatar.graphs.deployment import WARPS
from mobile_avatar.graphs.rewrites import ALWAYS, rewrite
from mobile_avatar.quantization.coreml import affine, calibrate
from mobile_avatar.quantization.recipe import MixedRecipe
from mobile_avatar.verification.coreml import open_coreml
from mobile_avatar.verification.coreml_package import Operation, Program, read_package
from mobile_avatar.verification.parity import THRESHOLDS
from mobile_avatar.verification.runners import Exported
from tests import deployment_cases
from tests.deployment_cases import FACTS, SMALL, Case, make_case

ct = pytest.importorskip("coremltools", reason="coremltools is not installed")

PRECISIONS = ("w8a8", "w8a16", "mixed")
MISTAKEN = (("fp16", "w8a8"), ("fp16", "w8a16"), ("w8a16", "w8a8"), ("w8a8", "w8a16"))
EDGES = ((-1.0, 3.0), (0.0, 6.0), (-2.5, 0.0), (0.5, 4.0), (-3.0, -1.0), (0.0, 0.0), (0.0, 1e-9))
KEEP = ("mlp.1", "blocks.1.conv2", "blocks.2.norm", "blocks.2.skip", "heads")
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


class Made(deployment_cases.Made):
    """One export, in this process."""

    @property
    def program(self) -> Program:
        return read_package(self.exported.files["model"])

    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.exported.files["model"].rglob("*") if file.is_file())


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def export(case: Case, precision: str, folder: Path, keep: tuple[str, ...] = ()) -> Made:
    folder.mkdir()
    keypoints = np.random.default_rng(100).uniform(-1, 1, (16, 136)).astype(np.float32)
    request = replace(case.request(precision, folder), calibration=keypoints, keep=keep)
    product = find_target("coreml").convert(request)
    assert [path.name for path in folder.iterdir()] == ["render.mlpackage"]
    files = {"model": folder / "render.mlpackage"}
    return Made(case, Exported(folder, files, case.spec, precision, case.warp), product)


@pytest.fixture(scope="module")
def case() -> Case:
    """With the rewrites that CoreML gets, so that layers are wrapped as in a real export."""
    found = make_case("split", "NCHW", SMALL)
    generator = rewrite(found.module.generator, ALWAYS)
    return replace(found, module=WARPS["split"](generator, found.module.texture, "NCHW").eval())


@pytest.fixture(scope="module")
def made(case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    folder = tmp_path_factory.mktemp("coreml")
    keep = {"mixed": KEEP}
    return {p: export(case, p, folder / p, keep.get(p, ())) for p in ("fp16", *PRECISIONS)}


def producer(program: Program, name: str) -> Operation | None:
    return next((op for op in program.operations if op.outputs[0].name == name), None)


def layers(program: Program) -> dict[str, tuple[bool, bool]]:
    """Start of each layer's weight name -> (int8 weights, int8 input)."""
    found = {}
    for op in program.operations:
        if "weight" in op.inputs:
            name = op.inputs["weight"][0]
            kinds = [getattr(producer(program, op.inputs[key][0]), "type", "const") for key in ("weight", "x")]
            found[name.split("_weight")[0]] = (kinds[0] == "constexpr_affine_dequantize", kinds[1] == "dequantize")
    return found


def norms_in_float(program: Program) -> list[bool]:
    norms = [op for op in program.operations if op.type == "batch_norm"]
    return [producer(program, op.inputs["x"][0]).type != "dequantize" for op in norms]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_package_computes_what_torch_computes(made: dict[str, Made], precision: str) -> None:
    item = made[precision]
    runner = open_coreml(item.exported)
    psnr = item.case.psnr(runner.run)
    assert min(psnr.values()) >= THRESHOLDS[precision], psnr
    assert max(psnr.values()) < 90, "integers leave a trace"
    assert {check.name: check.passed for check in runner.checks} == {
        "saved program": True,
        "sampling grid in float32": True,
        "8-bit layers": True,
    }
    assert runner.name.startswith(f"mil-in-torch-{precision} (simulated: int8 weights")
    assert runner.name.endswith("fp16 arithmetic)")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_files_are_smaller_and_say_what_they_need(made: dict[str, Made], precision: str) -> None:
    item = made[precision]
    assert item.bytes() < 0.9 * made["fp16"].bytes()
    model = ct.utils.load_spec(str(item.exported.files["model"]))
    ios17 = precision != "w8a16"
    assert model.specificationVersion == (8 if ios17 else 7)
    (note,) = item.product.notes
    assert note == "needs iOS 17: 8-bit tensors" if ios17 else "no 16-bit integers" in note
    float32 = ct.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    interface = [*model.description.input, *model.description.output]
    assert {feature.type.multiArrayType.dataType for feature in interface} == {float32}
    assert FACTS.items() <= dict(model.description.metadata.userDefined).items()


def test_all_layers_are_integers_except_the_one_that_reads_keypoints(made: dict[str, Made]) -> None:
    found = layers(made["w8a8"].program)
    assert len(found) == 4 + 3 * len(made["w8a8"].case.module.generator.blocks) + 1
    assert found.pop("generator_mlp_0") == (True, False)
    assert set(found.values()) == {(True, True)}
    assert set(layers(made["w8a16"].program).values()) == {(True, False)}


def test_kept_layers_have_float_weights_and_inputs(made: dict[str, Made]) -> None:
    program = made["mixed"].program
    starts = tuple("generator_" + path.replace(".", "_") for path in KEEP)
    found = layers(program)
    kept = {name: kinds for name, kinds in found.items() if name.startswith(starts)}
    assert len(kept) == len(KEEP) - 1, "all but the norm"
    assert set(kept.values()) == {(False, False)}
    others = {kinds for name, kinds in found.items() if name not in kept and name != "generator_mlp_0"}
    assert others == {(True, True)}
    changed = [a != b for a, b in zip(norms_in_float(program), norms_in_float(made["w8a8"].program), strict=True)]
    assert sum(changed) == 1, "the norm of block 2 reads float16, those of other blocks int8"
    assert made["mixed"].product.notes == made["w8a8"].product.notes, "no layer of the recipe is missing"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_float_operator_is_without_a_reason(made: dict[str, Made], precision: str) -> None:
    item = made[precision]
    facts = item.product.quantization
    computing = [op for op in item.program.operations if not op.type.startswith("constexpr")]
    computing = Counter(op.type for op in computing if op.type not in ("quantize", "dequantize", "cast"))
    assert facts["operators"] == computing.total()
    explained = Counter()
    for sentence in facts["float_reasons"]:
        listed, why = sentence.split(": ", 1)
        assert len(why) > 20
        explained.update({name: int(number) for number, name in re.findall(r"(\d+) (\w+)", listed)})
    assert dict(explained) == facts["float_operators"]
    assert all(explained[name] <= computing[name] for name in explained)
    if precision == "w8a16":
        assert explained == computing
    else:
        integers = computing - explained
        assert set(integers) == {"conv", "linear", "add"}


@pytest.mark.slow
def test_layer_that_the_converter_merged_is_noted(case: Case, tmp_path: Path) -> None:
    with torch.no_grad():
        norm = case.module.generator.blocks[1].norm
        before = norm.scale.clone(), norm.bias.clone()
        norm.scale.fill_(1), norm.bias.zero_()
    item = export(case, "w8a16", tmp_path / "merged", ("blocks.1.norm", "heads"))
    with torch.no_grad():
        norm.scale.copy_(before[0]), norm.bias.copy_(before[1])
    assert item.product.notes[-1] == "blocks.1.norm is part of another layer in this file"
    assert not any("heads" in note for note in item.product.notes)


def test_corrupted_integers_fail_the_parity_gate(made: dict[str, Made], tmp_path: Path) -> None:
    item = made["w8a8"]
    package = tmp_path / "render.mlpackage"
    shutil.copytree(item.exported.files["model"], package)
    head = next(op for op in item.program.operations if op.name.startswith("generator_heads_weight"))
    data = head.inputs["quantized_data"][0].numpy()
    content = bytearray((package / WEIGHTS).read_bytes())
    start = content.find(data.tobytes())
    assert start > 0
    content[start : start + data[0].size] = b"\x7f" * data[0].size  # all weights of one coordinate at their largest
    (package / WEIGHTS).write_bytes(content)
    runner = open_coreml(replace(item.exported, files={"model": package}))
    assert min(item.case.psnr(runner.run).values()) < THRESHOLDS["w8a8"]


@pytest.mark.parametrize(("file", "claimed"), MISTAKEN)
def test_file_of_another_precision_is_noticed(made: dict[str, Made], file: str, claimed: str) -> None:
    runner = open_coreml(replace(made[file].exported, precision=claimed))
    assert {check.name: check.passed for check in runner.checks}["8-bit layers"] is False


def test_ranges_are_those_of_the_program(made: dict[str, Made]) -> None:
    item = made["fp16"]
    found = calibrate(item.program, np.concatenate(item.case.vectors))
    for name in ("uv", "lf", "mask"):
        answers = np.stack([answer[name] for answer in item.case.answers])
        assert found[name] == pytest.approx((answers.min(), answers.max()), abs=0.01)


@pytest.mark.parametrize("edges", EDGES)
def test_scale_covers_the_range_and_zero(edges: tuple[float, float]) -> None:
    scale, zero = affine(*edges)
    assert (scale.dtype, zero.dtype) == (np.float16, np.int8)
    assert scale > 0
    low, high = ((end - int(zero)) * float(scale) for end in (-128, 127))
    assert low <= min(edges[0], 0) + float(scale)
    assert high >= max(edges[1], 0) - float(scale)
    assert low <= 0 <= high


@pytest.mark.slow
def test_native_warp_keeps_its_grid_in_float32(tmp_path: Path) -> None:
    item = export(make_case("native", "NCHW", SMALL), "w8a8", tmp_path / "native")
    runner = open_coreml(item.exported)
    assert all(check.passed for check in runner.checks)
    psnr = item.case.psnr(runner.run)
    assert psnr["image"] >= THRESHOLDS["w8a8"], psnr
    assert any(
        "sampling grid" in reason and "resample" in reason for reason in item.product.quantization["float_reasons"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_shipped_avatar_passes_its_gates_with_its_own_warp(precision: str, tmp_path: Path) -> None:
    """The split warp is judged in tests/cli/test_precisions.py."""
    recipe = tmp_path / "recipe.json" if precision == "mixed" else None
    if recipe:
        MixedRecipe(KEEP).save(recipe)
    plan = Plan("coreml", precision, "native", "iphone", recipe=recipe)
    manifest = export_bundle(Avatar.load(shipped("default.avatar")), plan, tmp_path / "bundle", say=lambda line: None)
    print(manifest["parity"])
    assert [(row["output"], row["passed"]) for row in manifest["parity"]] == [("image", True)], manifest["parity"]
    assert {row["passed"] for row in manifest["checks"]} == {True}, manifest["checks"]
