"""Bundles of a ROME avatar: three files that compute what torch computes, alone and one after another."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mobile_avatar.cli.commands.verify import command as verify_command
from mobile_avatar.errors import BadInput, CheckFailed
from mobile_avatar.exporters.bundle import Plan, judge
from mobile_avatar.exporters.rome_bundle import export_rome_bundle
from mobile_avatar.exporters.rome_data import read_draw
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.verification.manifest import read_manifest
from mobile_avatar.verification.rome import verify_graphs
from tests.rome_avatars import SIZE, small_avatar

OUTPUTS = ["codes", "positions", "normals", "rgba", "drawn", "frame"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rome") / "bundle"
    judge(export_rome_bundle(small_avatar(), Plan("onnx", "fp32", "split", "desktop"), folder, lambda _: None), True)
    return folder


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "copy")


def test_manifest_describes_graphs_and_draw_call(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert [row["output"] for row in manifest["parity"]] == OUTPUTS
    assert [row["graph"] for row in manifest["parity"]] == ["encoder", "mesh", "mesh", "renderer", "frame", "frame"]
    assert all(row["passed"] and row["cases"] == 8 for row in manifest["parity"])
    assert manifest["macs"] == sum(graph["macs"] for graph in manifest["graphs"]) > 0
    assert [graph["inputs"][0]["name"] for graph in manifest["graphs"]] == ["image", "codes", "features"]
    assert [graph["roles"]["model"] for graph in manifest["graphs"]] == ["encoder.onnx", "mesh.onnx", "renderer.onnx"]
    assert {row["path"] for row in manifest["files"]} >= {"mesh.vert", "mesh.frag", "texture.f16", "corners.u16"}
    assert manifest["license"] == "Apache-2.0"
    assert manifest["synthetic_media"] is True


def test_golden_frames_differ(bundle: Path) -> None:
    """Frozen or empty frames would make any comparison pass."""
    for graph, name in (("renderer", "rgba"), ("frame", "rgba"), ("mesh", "positions"), ("encoder", "codes")):
        values = np.load(bundle / "golden" / graph / f"{name}.npy").astype(np.float32)
        assert values.std(0).mean() > 0.005, (graph, name)
    coverage = np.load(bundle / "golden" / "renderer" / "features.npy")[:, -1].astype(np.float32).mean((1, 2))
    assert 0.1 < coverage.min() < coverage.max() < 0.99


def test_draw_files_hold_the_avatar(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    avatar, draw = small_avatar(), read_draw(bundle, manifest)
    assert np.array_equal(draw.corners, avatar.mesh.corners)
    assert np.array_equal(draw.uv, avatar.mesh.uv)
    assert np.array_equal(draw.texture, avatar.texture.half().float())
    row = manifest["draw"]["neutral"]
    neutral = np.fromfile(bundle / row["file"], row["dtype"]).reshape(row["shape"])
    assert np.array_equal(neutral, avatar.mesh.neutral + avatar.mesh.offsets)
    row = manifest["draw"]["vertex"]
    assert np.array_equal(np.fromfile(bundle / row["file"], row["dtype"]), avatar.mesh.vertex)


def test_verify_command_reads_it(bundle: Path) -> None:
    result = CliRunner().invoke(verify_command, [str(bundle), "--json"])
    assert result.exit_code == 0, result.output
    assert [row["output"] for row in json.loads(result.output)["parity"]] == OUTPUTS


def test_weights_changed_behind_the_manifests_back_are_noticed(copied: Path) -> None:
    """Hashes are made to fit, so that only executing the file can notice."""
    import onnx

    from mobile_avatar.files import sha256

    path = copied / "renderer.onnx"
    model = onnx.load(path)
    weights = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    values = onnx.numpy_helper.to_array(weights) * 1.3
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    onnx.save(model, path)
    manifest = read_manifest(copied)
    next(row for row in manifest["files"] if row["path"] == path.name)["sha256"] = sha256(path)
    rows = verify_graphs(copied, manifest)["parity"]
    assert {row["output"] for row in rows if row["passed"] is False} == {"rgba", "drawn", "frame"}


def test_an_encoder_that_shifts_the_picture_is_noticed(copied: Path) -> None:
    """By less than its own gate in dB would see."""
    manifest = read_manifest(copied)
    path = copied / "golden" / "encoder" / "codes.npy"
    codes = np.load(path)
    codes[:, -2] += 5e-4
    np.save(path, codes)
    manifest |= verify_graphs(copied, manifest)
    assert next(row for row in manifest["parity"] if row["output"] == "codes")["passed"]
    with pytest.raises(CheckFailed, match=r"codes move the mesh: by 0\.11 pixels"):
        judge(manifest)


def test_a_changed_file_is_not_executed(copied: Path) -> None:
    (copied / "mesh.onnx").write_bytes(b"nothing")
    manifest = read_manifest(copied)
    manifest |= verify_graphs(copied, manifest)
    rows = {row["output"]: row for row in manifest["parity"]}
    assert rows["codes"]["passed"]
    assert rows["positions"]["passed"] is False
    assert "mesh.onnx differs" in rows["normals"]["reason"]
    assert rows["frame"]["passed"] is None
    with pytest.raises(CheckFailed, match=r"mesh\.onnx differs"):
        judge(manifest)


def test_another_texture_or_index_buffer_is_noticed(copied: Path) -> None:
    """The frame is drawn with the bundle's own files."""
    manifest = read_manifest(copied)
    texture = np.fromfile(copied / "texture.f16", np.float16)
    (texture * np.float16(1.5)).tofile(copied / "texture.f16")
    rows = {row["output"]: row["passed"] for row in verify_graphs(copied, manifest)["parity"]}
    assert rows == dict.fromkeys(OUTPUTS, True) | {"drawn": False, "frame": False}
    np.full(manifest["draw"]["triangles"] * 3, 60000, np.uint16).tofile(copied / "corners.u16")
    with pytest.raises(CheckFailed, match=r"corners\.u16"):
        verify_graphs(copied, manifest)


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m["graphs"].pop(),
        lambda m: m["graphs"][1]["outputs"][0].update(shape=[1, 7, 3]),
        lambda m: m["avatar"]["config"].update(vertices=10**9),
        lambda m: m["draw"]["texture"].update(file="../secret"),
        lambda m: m["graphs"][0].update(precision="w8a8"),
        lambda m: m["graphs"][0]["roles"].update(model="/etc/passwd"),
        lambda m: m.pop("draw"),
        lambda m: m.update(format=3),
    ],
)
def test_damaged_manifests_are_refused_in_a_sentence(bundle: Path, tmp_path: Path, damage: object) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    damage(manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput):
        read_manifest(tmp_path)


def test_integers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="fp32 or fp16"):
        export_rome_bundle(small_avatar(), Plan("tflite", "w8a8", "split", "x"), tmp_path / "b", lambda _: None)
    assert not (tmp_path / "b").exists()


def test_half_precision_halves_the_networks_and_spares_the_mesh(bundle: Path, tmp_path: Path) -> None:
    manifest = export_rome_bundle(small_avatar(), Plan("onnx", "fp16", "split", "x"), tmp_path / "b", lambda _: None)
    judge(manifest, True)
    assert [graph["precision"] for graph in manifest["graphs"]] == ["fp16", "fp32", "fp16"]
    assert [row["output"] for row in manifest["parity"]] == OUTPUTS[:-1]
    sizes = {name: (tmp_path / "b" / name).stat().st_size for name in ("renderer.onnx", "mesh.onnx")}
    assert sizes["renderer.onnx"] < 0.8 * (bundle / "renderer.onnx").stat().st_size
    assert sizes["mesh.onnx"] == (bundle / "mesh.onnx").stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("target", "package"),
    [("tflite", "litert_torch"), ("snpe", "onnxruntime_qnn"), ("coreml", "coremltools"), ("executorch", "executorch")],
)
def test_every_target_passes(target: str, package: str, precision: str, tmp_path: Path) -> None:
    """With the default head: seams, a crown with dozens of faces, two tables of look-ups."""
    pytest.importorskip(package)
    avatar = small_avatar(synthetic_head(), SIZE)
    manifest = export_rome_bundle(avatar, Plan(target, precision, "split", "x"), tmp_path / "b", lambda _: None)
    judge(manifest, True)
    read_manifest(tmp_path / "b")
