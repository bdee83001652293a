"""Integer .tflite files: what is integer in them, what stays float and why, kept layers, integer inputs and outputs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.avatar import Avatar
from mobile_avatar.cli.common import shipped
from mobile_avatar.exporters.bundle import Plan, export_bundle
from mobile_avatar.exporters.registry import Product, find_target
from mobile_avatar.graphs.rewrites.choice import default_rewrites
from mobile_avatar.graphs.tflite_graph import kind_of, kinds
from mobile_avatar.quantization.tflite import Calibrated, Quantized, calibrate, layers, quantize
from mobile_avatar.quantization.tflite_plan import CONVERSIONS, GRID, _layer
from mobile_avatar.verification.litert import open_litert, operators
from mobile_avatar.verification.parity import THRESHOLDS
from mobile_avatar.verification.runners import Exported
from tests.deployment_cases import SMALL, Case, make_case

pytest.importorskip("litert_torch", reason="litert-torch is not installed")

KEPT = "blocks.1.conv1"
# Below the gates of a trained avatar for 8 bits: a random network spreads every rounding error over all that follows.
# The shipped avatar passes the gates themselves, below.
LOWEST = {"w8a8": 26.0, "mixed": 26.0, "w8a16": 35.0}


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case("split", "NHWC", SMALL, default_rewrites("tflite"))


@pytest.fixture(scope="module")
def calibration() -> np.ndarray:
    return np.random.default_rng(99).uniform(-1, 1, (32, 136)).astype(np.float32)


@pytest.fixture(scope="module")
def plain(case: Case, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The float file, converted once: it takes longer than everything that is then made of it."""
    find_target("tflite")  # fills the table of targets before one of them is imported by itself
    from mobile_avatar.exporters.targets.tflite import float_model
    from mobile_avatar.exporters.workshop import workshop

    folder = tmp_path_factory.mktemp("float")
    with workshop(folder, "litert-torch"):
        return float_model(case.request("fp32", folder))


@pytest.fixture(scope="module")
def calibrated(plain: bytes, calibration: np.ndarray) -> Calibrated:
    return calibrate(plain, calibration)


@pytest.fixture(scope="module")
def made(
    case: Case, plain: bytes, calibration: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Product, Exported]:
    """A file with integer inputs and outputs, as `export` makes it from the float file."""
    folder = tmp_path_factory.mktemp("quantized")
    request = replace(case.request("w8a8", folder), calibration=calibration, quantize_io=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mobile_avatar.exporters.targets.tflite.float_model", lambda request: plain)
        product = find_target("tflite").convert(request)
    spec = case.spec.with_integers(product.integers)
    return product, Exported(folder, {"model": folder / product.files["model"]}, spec, "w8a8", "split")


@pytest.fixture(scope="module")
def variants(calibrated: Calibrated) -> dict[str, Quantized]:
    keep = {"mixed": (KEPT,)}
    return {precision: quantize(calibrated, precision, keep.get(precision, ())) for precision in LOWEST}


def types_by_layer(model: bytes) -> dict[str, set[str]]:
    """Layer -> types of the activations that its operators with weights write."""
    from ai_edge_litert import schema_py_generated as schema

    content = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    graph, names = content.subgraphs[0], kinds()
    weighted = ("CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D")
    tensors = [graph.tensors[op.outputs[0]] for op in graph.operators if kind_of(content, op, names) in weighted]
    types = {number: name for name, number in vars(schema.TensorType).items() if name.isupper()}
    found: dict[str, set[str]] = {}
    for tensor in tensors:
        found.setdefault(_layer(tensor.name.decode()), set()).add(types[tensor.type])
    return found


def run_of(model: bytes, case: Case, folder: Path, precision: str) -> dict[str, float]:
    path = folder / "render.tflite"
    path.write_bytes(model)
    return case.psnr(open_litert(Exported(folder, {"model": path}, case.spec, precision, "gather")).run)


@pytest.mark.parametrize("precision", list(LOWEST))
def test_numbers_are_those_of_torch(variants: dict, case: Case, precision: str, tmp_path: Path) -> None:
    psnr = run_of(variants[precision].model, case, tmp_path, precision)
    assert min(psnr.values()) >= LOWEST[precision], psnr


@pytest.mark.parametrize("precision", list(LOWEST))
def test_every_float_operator_has_a_reason(variants: dict, precision: str) -> None:
    facts = variants[precision].facts
    assert facts["operators"] == sum(operators(variants[precision].model).values())
    reasons = [int(reason.split(" x ")[0]) for reason in facts["float_reasons"]]
    assert sum(facts["float_operators"].values()) == sum(reasons)
    assert not CONVERSIONS & set(facts["float_operators"])


def test_only_the_grid_is_added_in_float(variants: dict) -> None:
    assert variants["w8a8"].facts["float_operators"] == {"ADD": 1}
    assert variants["w8a8"].facts["float_reasons"] == [f"1 x {GRID}"]
    # The runtime has no 16-bit depth to space; everything else is integer, the grid included.
    assert variants["w8a16"].facts["float_operators"] == {"DEPTH_TO_SPACE": SMALL.inf_blocks}


def test_layers_have_the_paths_of_the_generator(calibrated: Calibrated, case: Case) -> None:
    known = [name for name, _ in case.module.generator.named_modules()]
    found = layers(calibrated.model)
    assert set(found) <= set(known)
    for layer in ("mlp.0", "mlp.2", "base", *(f"blocks.{i}.{part}" for i in range(4) for part in ("conv1", "skip"))):
        assert layer in found
    assert found[-1] == "heads"


def test_kept_layer_is_float_in_the_file_and_the_others_are_not(variants: dict) -> None:
    types = types_by_layer(variants["mixed"].model)
    assert types.pop(KEPT) == {"FLOAT32"}
    assert len(types) > 15
    assert set.union(*types.values()) == {"INT8"}


def test_kept_weights_are_the_layers_own_in_half_precision(variants: dict, case: Case) -> None:
    half = case.module.generator.blocks[1].conv1.weight.detach().permute(0, 2, 3, 1).numpy().astype(np.float16)
    assert half.tobytes() in variants["mixed"].model
    assert half.tobytes() not in variants["w8a8"].model


def test_one_layer_alone_is_integer(calibrated: Calibrated) -> None:
    types = types_by_layer(quantize(calibrated, "w8a8", only=["blocks.2.skip"]).model)
    assert types.pop("blocks.2.skip") == {"INT8"}
    assert set.union(*types.values()) == {"FLOAT32"}


def test_outputs_have_scales_of_their_own(made: tuple) -> None:
    product, _ = made
    assert set(product.integers) == {"keypoints", "uv", "lf", "mask"}
    assert len({scale for _, scale, _ in product.integers.values()}) == 4


def test_integer_inputs_and_outputs_run_and_are_named(made: tuple, case: Case) -> None:
    _, exported = made
    assert {tensor.dtype for tensor in (*exported.spec.inputs, *exported.spec.outputs)} == {"int8"}
    runner = open_litert(exported)
    assert runner.name == "litert-cpu (int8)"
    assert min(case.psnr(runner.run).values()) >= LOWEST["w8a8"]


def test_weights_are_a_quarter(variants: dict, calibrated: Calibrated) -> None:
    weights = sum(tensor.numel() for tensor in make_case("split", "NHWC", SMALL).module.generator.parameters())
    assert len(calibrated.model) - len(variants["w8a8"].model) > 2.5 * weights


def test_damaged_integer_weights_fail_the_guard(variants: dict, case: Case, tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = bytearray(variants["w8a8"].model)
    content = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytes(model), 0))
    graph, names = content.subgraphs[0], kinds()
    convolutions = [op for op in graph.operators if kind_of(content, op, names) == "CONV_2D"]
    weights = bytes(content.buffers[graph.tensors[convolutions[1].inputs[1]].buffer].data)
    start = model.index(weights)
    model[start : start + len(weights)] = bytes(value ^ 0x7F for value in weights)
    assert min(run_of(bytes(model), case, tmp_path, "w8a8").values()) < LOWEST["w8a8"]


@pytest.mark.slow
def test_gather_keeps_the_warp_in_float(calibration: np.ndarray, tmp_path: Path) -> None:
    gather = make_case("gather", "NHWC", SMALL, default_rewrites("tflite"))
    product = find_target("tflite").convert(replace(gather.request("w8a8", tmp_path), calibration=calibration))
    facts = product.quantization
    assert facts["float_operators"]["EMBEDDING_LOOKUP"] == 1
    assert not {"CONV_2D", "FULLY_CONNECTED", "TANH", "LOGISTIC"} & set(facts["float_operators"])
    assert sum(int(reason.split(" x ")[0]) for reason in facts["float_reasons"]) == sum(
        facts["float_operators"].values()
    )
    exported = Exported(tmp_path, {"model": tmp_path / "render.tflite"}, gather.spec, "w8a8", "gather")
    psnr = gather.psnr(open_litert(exported).run)
    assert psnr["image"] >= LOWEST["w8a8"], psnr


@pytest.mark.slow
def test_the_shipped_avatar_passes_its_gate_with_gather(tmp_path: Path) -> None:
    """The split warp is judged in tests/cli/test_precisions.py, in every precision."""
    plan = Plan("tflite", "w8a8", "gather", "android-cpu")
    manifest = export_bundle(Avatar.load(shipped("default.avatar")), plan, tmp_path / "bundle", say=lambda line: None)
    (row,) = manifest["parity"]
    print(row)
    assert (row["output"], row["threshold_db"], row["passed"]) == ("image", THRESHOLDS["w8a8"], True), row
