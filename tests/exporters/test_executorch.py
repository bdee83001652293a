"""The .pte file itself: numbers, names, delegation, integers; and what its runtime does with damaged files."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from mobile_avatar.avatar import Avatar
from mobile_avatar.cli.common import shipped
from mobile_avatar.errors import BadInput, CheckFailed, MissingTool
from mobile_avatar.exporters.bundle import Plan, export_bundle
from mobile_avatar.exporters.registry import find_target
from mobile_avatar.graphs.rewrites.choice import default_rewrites
from mobile_avatar.quantization.executorch import quantize
from mobile_avatar.verification.executorch import open_executorch
from mobile_avatar.verification.executorch_process import Worker
from mobile_avatar.verification.parity import THRESHOLDS
from mobile_avatar.verification.runners import Exported, Runner
from tests.deployment_cases import FACTS, SMALL, Made, export_apart, make_case

pytest.importorskip("executorch", reason="ExecuTorch is not installed")

TARGET = find_target("executorch")
PROGRAM = 120_000
"""Bytes of a file without its weights, at most: much beside so small a network."""
KEPT = ("blocks.1.conv2", "blocks.2.conv1")
# Integers of random graphs have a guard against regressions below the gate: a random network spreads every rounding
# error over all that follows. The gate itself is for trained avatars, and the shipped one passes it below.
LOWEST = THRESHOLDS | {"w8a8": 26.0, "mixed": 26.0}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """Returns a function that exports a small graph; every variant is made once."""

    @cache
    def make(precision: str, warp: str = "split") -> Made:
        folder = tmp_path_factory.mktemp(precision)
        case = make_case(warp, TARGET.layout, SMALL, rewrites=default_rewrites("executorch"))
        request = case.request(precision, folder)
        if precision in ("w8a8", "mixed"):
            # As unlike faces as the vectors that the case is judged on, but other ones.
            vectors = np.random.default_rng(99).uniform(-1, 1, (32, 136)).astype(np.float32)
            request = replace(request, calibration=vectors, keep=KEPT if precision == "mixed" else ())
        product = TARGET.convert(request)
        assert [path.name for path in folder.iterdir()] == [product.files["model"]]
        files = {role: folder / path for role, path in product.files.items()}
        return Made(case, Exported(folder, files, case.spec, precision, warp), product)

    return make


@pytest.fixture(scope="module")
def integer(export: Callable[..., Made]) -> Made:
    return export("w8a8")


def check_numbers(item: Made) -> Runner:
    runner = open_executorch(item.exported)
    psnr = item.case.psnr(runner.run)
    assert min(psnr.values()) >= LOWEST[item.exported.precision], psnr
    if item.exported.precision != "fp32":
        assert max(psnr.values()) < 110, "half precision and integers leave a trace"
    return runner


def bytes_of(layers: list[torch.nn.Module]) -> int:
    return 4 * sum(parameter.numel() for layer in layers for parameter in layer.parameters())


def stored(layer: torch.nn.Conv2d | torch.nn.ConvTranspose2d) -> bytes:
    """Float weights as XNNPACK's part of the file holds them, input channels last."""
    order = (1, 2, 3, 0) if isinstance(layer, torch.nn.ConvTranspose2d) else (0, 2, 3, 1)
    return layer.weight.detach().permute(order).contiguous().numpy().tobytes()


def test_int8_agrees_with_torch_and_accounts_for_every_float_operator(integer: Made) -> None:
    runner = check_numbers(integer)
    assert runner.name == "executorch-xnnpack-cpu (int8, float islands)"
    assert [(check.passed, check.detail) for check in runner.checks] == [(True, "uv, lf, mask")]
    account = integer.product.quantization
    floats = account["float_operators"]
    assert set(floats) == {"upsample_nearest2d", "leaky_relu", "convolution", "slice_copy", "tanh", "sigmoid", "add"}
    assert floats["convolution"] == 1, "the heads: uv, low-frequency image and mask would share one scale"
    assert floats["add"] == 1, "the sampling grid alone; additions of the network are int8"
    assert account["operators"] - sum(floats.values()) > 0
    listed = sum(int(word) for reason in account["float_reasons"] for word in reason.split() if word.isdigit())
    assert listed == sum(floats.values())
    assert any("8-bit coordinates" in reason for reason in account["float_reasons"])
    assert account["not_in_xnnpack"] == {"upsample_nearest2d": 4}, "one skip per block"
    (note,) = integer.product.notes
    assert "portable kernels run 4 of" in note
    assert set(integer.product.tools) == {"executorch", "torchao"}


def test_int8_weights_take_a_quarter(integer: Made) -> None:
    assert integer.model.stat().st_size < 0.3 * bytes_of([integer.case.module.generator]) + PROGRAM


def test_mixed_quantises_all_weights_but_those_of_kept_layers() -> None:
    """In the graph that is lowered; lowering it takes most of an export, and the slow test below looks at the file."""
    module = make_case("split", TARGET.layout, SMALL, rewrites=default_rewrites("executorch")).module
    vectors = torch.rand(4, 136) * 2 - 1
    graph = quantize(module, (vectors[:1],), vectors, KEPT).graph
    found = {}
    for node in graph.nodes:
        if node.op == "call_function" and "conv" in str(node.target):
            path = list(node.meta["nn_module_stack"].values())[-1][0].removeprefix("generator.")
            found[path] = tuple(source.op if source.op != "call_function" else "int8" for source in node.args[:2])
    assert len(found) == 3 * SMALL.inf_blocks + 1
    floats = {path for path, (_, weight) in found.items() if weight == "get_attr"}
    assert floats == {*KEPT, "heads"}
    assert {weight for path, (_, weight) in found.items() if path not in floats} == {"int8"}


@pytest.mark.slow
def test_mixed_file_has_the_float_weights_of_kept_layers(export: Callable[..., Made]) -> None:
    mixed, integer = export("mixed"), export("w8a8")
    generator, content = mixed.case.module.generator, mixed.model.read_bytes()
    found = {
        name for name, layer in generator.named_modules() if hasattr(layer, "kernel_size") and stored(layer) in content
    }
    assert found == {*KEPT, "heads"}, "the heads are float in every precision"
    assert not any(stored(generator.get_submodule(path)) in integer.model.read_bytes() for path in KEPT)
    check_numbers(mixed)
    account = mixed.product.quantization
    assert account["float_operators"]["convolution"] == 1 + len(KEPT)
    assert f"{len(KEPT)} convolution: kept by the recipe" in account["float_reasons"]
    assert account["operators"] == integer.product.quantization["operators"]


@pytest.mark.slow
def test_one_corrupted_weight_fails_the_parity_gate(integer: Made, tmp_path: Path) -> None:
    content = bytearray(integer.model.read_bytes())
    heads = integer.case.module.generator.heads
    start = content.find(stored(heads))
    assert start > 0
    first = np.frombuffer(stored(heads), np.float32)[: 2 * heads.weight[0].numel()]
    content[start + 4 * int(np.argmax(np.abs(first))) + 3] ^= 0x40  # the top bit of its exponent
    broken = tmp_path / "render.pte"
    broken.write_bytes(content)
    exported = replace(integer.exported, files={"model": broken})
    assert min(integer.case.psnr(open_executorch(exported).run).values()) < LOWEST["w8a8"]


@pytest.mark.parametrize("damage", ["crash", pytest.param("cut", marks=pytest.mark.slow)])
def test_damaged_file_is_one_sentence(integer: Made, damage: str, tmp_path: Path) -> None:
    content = integer.model.read_bytes()
    inside = content.index(b"XH00")  # the header of XNNPACK's own part: without it the runtime ends its process
    damaged = {
        "cut": content[: len(content) // 2],
        "crash": content[: inside + 8] + bytes(64) + content[inside + 72 :],
    }
    path = tmp_path / "bad.pte"
    path.write_bytes(damaged[damage])
    with pytest.raises(CheckFailed, match=r"bad\.pte is damaged, ExecuTorch does not run it \(.*export the"):
        open_executorch(replace(integer.exported, files={"model": path}))


def test_16_bit_activations_are_refused_in_one_sentence() -> None:
    with pytest.raises(BadInput, match="target executorch has no precision 'w8a16'; choose one of fp32, fp16, w8a8"):
        Plan("executorch", "w8a16", "split", "android-executorch")


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobile_avatar.exporters.targets.executorch.find_spec", lambda name: None)
    monkeypatch.setattr("mobile_avatar.verification.executorch.find_spec", lambda name: None)
    case = make_case("split", TARGET.layout, SMALL)
    with pytest.raises(MissingTool, match=r"mobile-avatar\[executorch\]"):
        TARGET.convert(case.request("fp32", tmp_path))
    with pytest.raises(MissingTool, match=r"mobile-avatar\[executorch\]"):
        open_executorch(Exported(tmp_path, {"model": tmp_path / "render.pte"}, case.spec, "fp32", "split"))


@pytest.mark.slow
def test_a_process_that_exports_prints_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    item = export_apart("executorch", [("split", "fp32")], tmp_path)["split", "fp32"]
    assert item.product.files == {"model": "render.pte"}
    assert set(item.product.tools) == {"executorch"}
    assert [path.name for path in item.exported.folder.iterdir()] == ["render.pte"]
    (note,) = item.product.notes
    assert "portable kernels run 5 of" in note
    assert note.endswith("not XNNPACK: 5 upsample_nearest2d"), "one skip per block"
    assert check_numbers(item).name == "executorch-xnnpack-cpu"


@pytest.mark.slow
def test_fp16_halves_linear_weights_and_says_that_convolutions_are_not(export: Callable[..., Made]) -> None:
    item = export("fp16")
    assert check_numbers(item).name == "executorch-xnnpack-cpu (fp16)"
    generator = item.case.module.generator
    linear = bytes_of([generator.mlp, generator.base])
    convolutions = bytes_of([generator]) - linear
    size = item.model.stat().st_size
    assert convolutions + 0.5 * linear < size < convolutions + 0.5 * linear + PROGRAM
    assert "convolution weights of half-precision graphs as float32" in item.product.notes[-1]


@pytest.mark.slow
def test_facts_and_interface_are_inside_the_file(integer: Made) -> None:
    worker = Worker()
    found = worker.ask("load", integer.model.read_bytes(), "mobile_avatar")
    worker.close()
    facts = json.loads(found["facts"])
    assert {key: facts[key] for key in FACTS} == FACTS
    assert facts["outputs"] == [tensor.to_dict() for tensor in integer.case.spec.outputs]
    assert found["outputs"] == [(tensor.shape, "float32") for tensor in integer.case.spec.outputs]
    assert found["threads"] == 1


@pytest.mark.slow
def test_a_file_with_another_interface_is_refused(integer: Made) -> None:
    other = make_case("gather", TARGET.layout, SMALL)
    with pytest.raises(CheckFailed, match="other inputs or outputs"):
        open_executorch(replace(integer.exported, spec=other.spec))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8a8"])
def test_gather_agrees_with_torch(export: Callable[..., Made], precision: str) -> None:
    item = export(precision, "gather")
    check_numbers(item)
    assert "embedding" in item.product.notes[0]


@pytest.mark.slow
def test_the_shipped_avatar_passes_its_gate_with_gather(tmp_path: Path) -> None:
    """The split warp is judged in tests/cli/test_precisions.py, in every precision."""
    plan = Plan("executorch", "w8a8", "gather", "android-executorch")
    manifest = export_bundle(Avatar.load(shipped("default.avatar")), plan, tmp_path / "bundle", say=lambda line: None)
    (row,) = manifest["parity"]
    print(row)
    assert (row["output"], row["threshold_db"], row["passed"]) == ("image", THRESHOLDS["w8a8"], True), row
