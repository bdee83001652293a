"""The LiteRT runner on good, damaged and foreign files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.errors import CheckFailed
from mobile_avatar.exporters.registry import find_target
from mobile_avatar.graphs.spec import GraphSpec
from mobile_avatar.verification.litert import open_litert
from mobile_avatar.verification.runners import Exported, open_runner
from tests.deployment_cases import SMALL, Case, make_case

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case("gather", "NHWC", SMALL)


@pytest.fixture(scope="module")
def exported(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    pytest.importorskip("litert_torch", reason="litert-torch is not installed")
    folder = tmp_path_factory.mktemp("litert")
    product = find_target("tflite").convert(case.request("fp16", folder))
    return Exported(folder, {"model": folder / product.files["model"]}, case.spec, "fp16", "gather")


def test_runner_is_found_through_the_table_and_says_how_it_computes(exported: Exported) -> None:
    runner = open_runner(find_target("tflite").runner, exported)
    assert runner.name == "litert-cpu (fp16 weights, fp32 arithmetic)"
    assert open_litert(replace(exported, precision="fp32")).name == "litert-cpu"
    assert open_litert(replace(exported, precision="w8a16")).name == "litert-cpu (int16 activations)"


def test_results_belong_to_the_caller(exported: Exported, case: Case) -> None:
    runner = open_litert(exported)
    first = runner.run(case.vectors[0])["image"]
    kept = first.copy()
    second = runner.run(case.vectors[1])["image"]
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(runner.run(case.vectors[0])["image"], kept)


def test_opening_and_running_print_nothing(exported: Exported, case: Case, capfd: pytest.CaptureFixture) -> None:
    open_litert(exported).run(case.vectors[0])
    assert capfd.readouterr() == ("", "")


def test_gathers_do_not_pass_as_a_graph_for_gpus(exported: Exported) -> None:
    checks = open_litert(replace(exported, warp="split")).checks
    assert [check.passed for check in checks] == [False]
    assert "GATHER" in checks[0].detail or "EMBEDDING_LOOKUP" in checks[0].detail


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "half", "tail", "table"])
def test_damaged_file_is_refused_in_one_sentence(exported: Exported, tmp_path: Path, damage: str) -> None:
    content = exported.files["model"].read_bytes()
    damaged = {
        "empty": b"",
        "text": b"this is no model\n" * 100,
        "half": content[: len(content) // 2],
        "tail": content[:-64],
        # The offset of the root table leads out of the file; the identifier is still right.
        "table": (2**31 - 1).to_bytes(4, "little") + content[4:],
    }
    path = tmp_path / "render.tflite"
    if damage in damaged:
        path.write_bytes(damaged[damage])
    with pytest.raises(CheckFailed, match=r"render\.tflite is damaged.*export the avatar again") as caught:
        open_litert(replace(exported, files={"model": path}))
    assert "\n" not in str(caught.value)


def test_file_that_is_not_the_one_of_the_manifest_is_refused(exported: Exported, case: Case) -> None:
    (image,) = case.spec.outputs
    for output in (replace(image, name="picture"), replace(image, shape=(1, 3, 64, 64)), replace(image, dtype="uint8")):
        spec = GraphSpec(case.spec.inputs, (output,))
        with pytest.raises(CheckFailed, match="has other inputs or outputs"):
            open_litert(replace(exported, spec=spec))
