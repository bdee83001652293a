"""`mobile-avatar export` and `verify`: the default avatar, every target, the real converters and runtimes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.exporters.recipes import recipes
from mobile_avatar.exporters.registry import targets
from mobile_avatar.files import sha256
from mobile_avatar.verification.manifest import read_manifest
from tests.cli.runner import run

COMMAND = [sys.executable, "-c", "from mobile_avatar.cli.main import main; main()"]
OUTPUTS = {"split": ["uv", "lf", "mask", "image"], "native": ["image"], "gather": ["image"]}
RUNNERS = {
    "coreml": "coreml-macos" if sys.platform == "darwin" else "mil-in-torch-fp16 (simulated)",
    "executorch": "executorch-xnnpack-cpu",
    "onnx": "onnxruntime-cpu",
    "snpe": "qnn-htp-simulator-fp16",
    "tflite": "litert-cpu (fp16 weights, fp32 arithmetic)",
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, Path]:
    """One bundle per target, made once by the real command in a process of its own, `--json`, nothing else given."""
    folder = tmp_path_factory.mktemp("bundles")
    made = {}
    for target in RUNNERS:
        made[target] = folder / target
        arguments = ["export", "--target", target, "--json", "--output", str(made[target])]
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stderr
        manifest = json.loads(done.stdout)  # one JSON object and nothing else
        assert manifest == json.loads((made[target] / "manifest.json").read_text())
    assert sorted(os.listdir(folder)) == sorted(RUNNERS), "nothing beside the bundles"
    return made


def test_every_target_is_covered():
    assert set(RUNNERS) == set(targets())


@pytest.mark.parametrize("target", RUNNERS)
def test_a_bundle_is_complete_and_proven(bundles, target):
    folder = bundles[target]
    manifest = read_manifest(folder)
    recipe = recipes()[targets()[target].recipe]
    assert (manifest["target"], manifest["device"], manifest["warp"]) == (target, recipe.name, recipe.warp)
    assert [row["output"] for row in manifest["parity"]] == OUTPUTS[recipe.warp]
    for row in manifest["parity"]:
        assert row["passed"] is True
        assert row["runner"] == RUNNERS[target]
        assert row["cases"] >= 8
        assert row["psnr_db"] >= row["threshold_db"] >= 35
    assert all(check["passed"] is True for check in manifest["checks"])
    assert manifest["synthetic_media"] is True
    assert manifest["license"] == "Apache-2.0"
    assert manifest["budget"]["kind"] == "estimate"
    assert "not measured" in manifest["budget"]["method"]
    assert 1e6 < manifest["parameters"] < 2e6
    listed = {entry["path"] for entry in manifest["files"]}
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert present - listed == {"manifest.json"}
    assert listed <= present
    assert {"texture.f16", "texture.png", "golden/keypoints.npy", "golden/image.npy"} <= listed
    assert ("composite.frag" in listed) == (recipe.warp == "split")


@pytest.mark.parametrize("target", RUNNERS)
def test_golden_inputs_are_varied(bundles, target):
    keypoints = np.load(bundles[target] / "golden" / "keypoints.npy")
    images = np.load(bundles[target] / "golden" / "image.npy")
    assert keypoints.shape == (8, 136)
    assert keypoints.dtype == np.float32
    for i in range(8):
        for j in range(i):
            assert np.abs(keypoints[i] - keypoints[j]).max() > 0.02
            assert np.abs(images[i] - images[j]).max() > 0.1


@pytest.mark.parametrize(
    "target", [pytest.param(name, marks=pytest.mark.slow) if name == "executorch" else name for name in RUNNERS]
)
def test_corrupted_weights_fail_verification(bundles, target, capfd, tmp_path):
    """Damage behind the manifest's back: the hash is made to agree, so only executing the file can tell."""
    folder = tmp_path / "bundle"
    subprocess.run(["cp", "-r", bundles[target], folder], check=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert run(capfd, "verify", folder).code == 0
    model = manifest["roles"]["model"]
    entry = max((e for e in manifest["files"] if e["path"].startswith(model)), key=lambda e: e["bytes"])
    path = folder / entry["path"]
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 & ~3
    content[middle : middle + 64] = b"\x7b" * 64  # 61,280 in FP16 and 1e36 in FP32, however the weights are aligned
    path.write_bytes(content)
    done = run(capfd, "verify", folder)
    assert done.code == 1
    assert f"{entry['path']} differs from what was exported, so it was not executed" in done.sentence
    entry["sha256"] = sha256(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    done = run(capfd, "verify", folder)
    assert done.code == 1
    assert "check failed" in done.sentence
    assert "file hashes" not in done.sentence


def test_a_changed_file_is_noticed_by_its_hash(bundles, capfd, tmp_path):
    folder = tmp_path / "bundle"
    subprocess.run(["cp", "-r", bundles["onnx"], folder], check=True)
    (folder / "texture.png").write_bytes(b"other")
    done = run(capfd, "verify", folder, "--json")
    assert done.code == 1
    assert "texture.png differs" in done.sentence
    assert all(row["passed"] for row in json.loads(done.out)["parity"])


def test_budget(bundles, capfd, tmp_path):
    common = ("export", "--target", "onnx", "--output")
    assert run(capfd, *common, tmp_path / "a", "--budget-ms", 42).code == 0
    done = run(capfd, *common, tmp_path / "b", "--budget-ms", 0.1)
    assert done.code == 1
    assert "for a budget of 0.1 ms on snapdragon-855" in done.sentence
    assert (tmp_path / "b" / "manifest.json").exists(), "the bundle is kept for examination"


@pytest.mark.slow
def test_the_elite_recipe_brings_a_context_binary(capfd, tmp_path):
    done = run(capfd, "export", "--device", "snapdragon-8-elite", "--json", "-o", tmp_path / "b")
    assert done.code == 0, done.err
    manifest = json.loads(done.out)
    assert manifest["warp"] == "native"
    assert any(role.startswith("context-") for role in manifest["roles"])
    assert all(row["passed"] for row in manifest["parity"])


def test_gather(capfd, tmp_path):
    done = run(capfd, "export", "--device", "android-cpu", "-o", tmp_path / "b")
    assert done.code == 0, done.err
    assert "ESTIMATE, not measured" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "abacus"], "unknown target 'abacus'; choose one of coreml, executorch, onnx, snpe, tflite"),
        (["--device", "abacus"], "unknown device 'abacus'"),
        (["--device", "iphone", "--target", "onnx"], "iphone is for target coreml"),
        (["--target", "onnx", "--precision", "w2a2"], "no precision 'w2a2'"),
        (["--target", "onnx", "--warp", "gather"], "no warp 'gather'"),
        (["--target", "onnx", "--budget-ms", "-1"], "budget-ms"),
        (["none.avatar", "--target", "onnx"], "none.avatar does not exist"),
        ([], "pass --target or --device"),
        (["--target", "onnx", "--output", "/proc/nowhere/x"], "/proc/nowhere/x cannot be written"),
        (["--target", "snpe", "--soc", "abacus"], "abacus"),
        (["--target", "tflite", "--soc", "snapdragon-8-elite"], "no option 'socs'"),
    ],
)
def test_wrong_usage(capfd, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    done = run(capfd, "export", *arguments)
    assert done.code == 2
    assert words in done.sentence
    assert done.out == ""
    assert os.listdir(tmp_path) == []


def test_a_missing_sdk_is_exit_code_three(capfd, tmp_path, monkeypatch):
    for name in ("QAIRT_SDK_ROOT", "QNN_SDK_ROOT", "SNPE_ROOT"):
        monkeypatch.delenv(name, raising=False)
    done = run(capfd, "export", "--target", "snpe", "--converter", "sdk", "-o", tmp_path / "b")
    assert done.code == 3
    assert "QAIRT_SDK_ROOT" in done.sentence
    assert os.listdir(tmp_path) == []


def test_existing_output_asks_for_force(bundles, capfd):
    before = (bundles["onnx"] / "manifest.json").read_bytes()
    done = run(capfd, "export", "--target", "onnx", "-o", bundles["onnx"])
    assert done.code == 2
    assert "--force" in done.sentence
    assert (bundles["onnx"] / "manifest.json").read_bytes() == before


SLOW_SECONDS = [pytest.param(seconds, marks=pytest.mark.slow) for seconds in (2.0, 4.0, 5.0)]


@pytest.mark.parametrize("seconds", [0.5, 3.0, *SLOW_SECONDS])
def test_a_killed_export_leaves_the_old_bundle(bundles, capfd, tmp_path, seconds):
    folder = tmp_path / "bundle"
    subprocess.run(["cp", "-r", bundles["onnx"], folder], check=True)
    process = subprocess.Popen(
        [*COMMAND, "export", "--target", "onnx", "--warp", "split", "--force", "-o", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Whole, whether the kill came before the exchange (native) or after it (split).
    assert read_manifest(folder)["warp"] in ("native", "split")
    assert run(capfd, "verify", folder).code == 0


def test_a_manifest_cannot_point_outside_of_its_folder(bundles, capfd, tmp_path):
    folder = tmp_path / "bundle"
    subprocess.run(["cp", "-r", bundles["onnx"], folder], check=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    for change in ({"files": [{"path": "../../x", "sha256": "", "bytes": 0}]}, {"roles": {"model": "/etc/passwd"}}):
        (folder / "manifest.json").write_text(json.dumps(manifest | change))
        done = run(capfd, "verify", folder)
        assert done.code == 2
        assert "points outside the folder" in done.sentence


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 99}', "null"])
def test_damaged_manifests(capfd, tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    done = run(capfd, "verify", tmp_path)
    assert done.code == 2
    assert "manifest.json" in done.sentence


DAMAGE = {
    "precision": lambda m: m.update(precision="w1"),
    "inputs": lambda m: m.update(inputs=[{}]),
    "outputs": lambda m: m["outputs"][0].update(shape=[1, 4, 4, 3]),
    "roles": lambda m: m.update(roles={}),
    "files": lambda m: m.update(files=[{"x": 1}]),
    "avatar": lambda m: m.update(avatar={}),
}


@pytest.mark.parametrize("field", DAMAGE)
def test_every_field_of_a_manifest_is_checked(bundles, capfd, tmp_path, field):
    manifest = json.loads((bundles["tflite"] / "manifest.json").read_text())
    DAMAGE[field](manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    done = run(capfd, "verify", tmp_path)
    assert done.code == 2
    assert "manifest.json is damaged" in done.sentence


@pytest.mark.parametrize("name", ["golden/keypoints.npy", "golden/uv.npy", "texture.f16"])
@pytest.mark.parametrize("content", [b"", b"other", None])
def test_damaged_golden_files(bundles, capfd, tmp_path, name, content):
    folder = tmp_path / "bundle"
    subprocess.run(["cp", "-r", bundles["tflite"], folder], check=True)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    done = run(capfd, "verify", folder)
    assert done.code == 1
    assert name in done.sentence


def test_other_folders_are_never_replaced(capfd, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("x")
    for output, words in (("work", "holds other things"), ("file", "is a file")):
        done = run(capfd, "export", "--target", "onnx", "-o", tmp_path / output, "--force")
        assert done.code == 2
        assert words in done.sentence
    assert (tmp_path / "work" / "thesis.tex").read_text() == "years"


def test_a_terminated_export_cleans_up(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "export", "--target", "snpe", "-o", str(tmp_path / "b")], stderr=subprocess.PIPE
    )
    process.stderr.readline()  # "converting ..."
    time.sleep(0.5)
    process.terminate()
    assert process.wait(20) == 143
    assert os.listdir(tmp_path) == []


def test_a_newer_bundle_is_refused(bundles, capfd, tmp_path):
    manifest = json.loads((bundles["onnx"] / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": 3}))
    done = run(capfd, "verify", tmp_path)
    assert done.code == 2
    assert "format 3, this program reads up to 2; update" in done.sentence
