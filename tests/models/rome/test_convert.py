"""Importing the official files of ROME: what is found, what is refused, and in which words."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.weights import load_weights as load_bilayer_weights
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.networks import CORE, PARTS, RomeNetworks
from mobile_avatar.models.rome.official_files import import_official
from mobile_avatar.models.rome.weights import load_weights, save_weights
from tests.cli.runner import run
from tests.models.rome.official import SMALL, official_core, random_networks, write_official

# Small networks, but codes and head as released: the data files are of one size.
CONFIG = replace(SMALL, image_size=256, n_vertices=5023, n_shape=100, n_exp=50)


@pytest.fixture(scope="module")
def networks() -> RomeNetworks:
    return random_networks(CONFIG)


@pytest.fixture(scope="module")
def release(tmp_path_factory, networks):
    return write_official(tmp_path_factory.mktemp("release") / "official", networks)


@pytest.fixture
def folder(tmp_path, release):
    """A copy that a test may spoil."""
    return shutil.copytree(release, tmp_path / "official")


def rewrite(path, change) -> None:
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def equal(first: RomeNetworks, second: RomeNetworks) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_everything_is_found_and_survives_the_weights_file(folder, networks, tmp_path):
    imported = import_official(folder)
    assert imported.networks.config == CONFIG
    assert imported.networks.parts == tuple(PARTS)
    assert imported.missing == imported.ignored == {}
    assert not imported.networks.training
    assert equal(imported.networks, networks)
    assert imported.files["deca_model.tar"].parent.parent.name == "DECA"

    path = tmp_path / "w.safetensors"
    save_weights(imported.networks, path, {"license": "research"})
    loaded, facts = load_weights(path)
    assert facts == {"license": "research"}
    assert loaded.config == CONFIG
    assert not loaded.training
    assert equal(loaded, networks)


def test_the_main_file_alone_is_enough(tmp_path, networks):
    torch.save(official_core(networks), tmp_path / "rome.pth")
    imported = import_official(tmp_path)
    assert imported.networks.parts == CORE
    assert imported.missing == {
        "linear_basis": "u_full.pt and mean_deform.pt",
        "basis_regressor": "linear_hair.pth",
        "frame_regressor": "disp_model.pth",
        "face_encoder": "deca_model.tar",
    }
    with pytest.raises(BadInput, match="have no frame_regressor, only texture_encoder"):
        imported.networks.part("frame_regressor")


@pytest.mark.parametrize("prefix", ["parametric_avatar", "deca"])
def test_other_tensors_of_the_main_file(tmp_path, networks, prefix):
    """What a trainer leaves in it: DECA in either spelling, buffers, a discriminator under spectral norm."""
    state = official_core(networks)
    encoder = networks.face_encoder.state_dict()
    state |= {f"{prefix}.E_flame.{key}": value for key, value in encoder.items()}
    state |= {f"{prefix}.E_detail.layers.{i}.bias": torch.zeros(3) for i in (0, 2)}
    state["parametric_avatar.uv_grid"] = torch.zeros(1, 256, 256, 2)
    state |= {f"discriminator.net_0256.to_scores.weight_{kind}": torch.zeros(2) for kind in ("orig", "u", "v")}
    torch.save(state, tmp_path / "rome.pth")
    imported = import_official(tmp_path)
    assert imported.networks.parts == (*CORE, "face_encoder")
    assert torch.equal(imported.networks.face_encoder.layers[2].weight, encoder["layers.2.weight"])
    assert imported.ignored == {
        f"{prefix}.E_detail": 2,
        "parametric_avatar.uv_grid": 1,
        "discriminator.net_0256": 3,
    }


def test_tensors_of_a_gpu_are_read(folder, networks, monkeypatch):
    """The released basis was saved on a GPU and says so."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(networks.linear_basis.basis, folder / "data" / "u_full.pt")
        torch.save(official_core(networks), folder / "data" / "rome.pth")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(folder / "data" / "u_full.pt", weights_only=True)
    assert equal(import_official(folder).networks, networks)


def test_the_older_container_reads_as_well(folder):
    path = folder / "data" / "rome.pth"
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    import_official(folder)


WRONG = [
    ("rome.pth", lambda s: s.pop("unet.to_outputs.bias"), "unet.to_outputs.bias is missing"),
    ("rome.pth", lambda s: s.pop("autoencoder.net.25.weight"), "autoencoder.net.25.weight is missing"),
    (
        "rome.pth",
        lambda s: [s.pop(key) for key in list(s) if key.startswith("mlp_deformer.block_2")],
        "mlp_deformer.block_2.0.weight and 8 more is missing",
    ),
    (
        "rome.pth",
        lambda s: s.update({"unet.decoder.0.0.main.0.weight": torch.zeros(3)}),
        r"unet.decoder.0.0.main.0.weight has shape \(3,\), expected \(128, 256, 3, 3\)",
    ),
    (
        "rome.pth",
        lambda s: s["mesh_deformer.encoder.1.0.main.1.bias"].fill_(float("nan")),
        "mesh_deformer.encoder.1.0.main.1.bias holds NaN",
    ),
    ("rome.pth", lambda s: s.update({"unet.extra": torch.zeros(1)}), "no rendering_unet has.*unet.extra"),
    ("linear_hair.pth", lambda s: s.pop("layer3.5.bn3.running_var"), "layer3.5.bn3.running_var is missing"),
    ("disp_model.pth", lambda s: s.pop("classifier.1.weight"), "disp_model.pth: tensor classifier.1.weight"),
    ("deca_model.tar", lambda s: s["E_flame"].pop("encoder.conv1.weight"), "encoder.conv1.weight is missing"),
    ("deca_model.tar", lambda s: s.pop("E_flame"), "deca_model.tar holds no E_flame"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "change", "words"), WRONG)
def test_wrong_tensors_are_named(release, tmp_path, file, change, words):
    for name in {"rome.pth", file}:
        shutil.copy(next(release.rglob(name)), tmp_path)
    rewrite(tmp_path / file, change)
    with pytest.raises(BadInput, match=words) as error:
        import_official(tmp_path)
    assert file in str(error.value)


def test_files_that_do_not_belong_together(folder, networks):
    regressor = networks.basis_regressor.state_dict()
    torch.save(
        regressor | {"fc.weight": torch.zeros(7, 256), "fc.bias": torch.zeros(7)}, folder / "data/linear_hair.pth"
    )
    with pytest.raises(BadInput, match=r"u_full.pt: tensor basis has shape \(15069, 60\), expected \(15069, 7\)"):
        import_official(folder)


def test_missing_and_unreadable_files(folder, tmp_path):
    with pytest.raises(BadInput, match="is not a folder"):
        import_official(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"there is no rome\.pth in it"):
        import_official(tmp_path / "empty")
    (folder / "data" / "mean_deform.pt").rename(folder / "mean.bak")
    with pytest.raises(BadInput, match=r"u_full.pt is of no use without mean_deform.pt"):
        import_official(folder)
    (folder / "mean.bak").rename(folder / "data" / "mean_deform.pt")
    (folder / "DECA" / "data" / "rome.pth").write_bytes(b"x")
    import_official(folder)
    (folder / "copy").mkdir()
    (folder / "copy" / "rome.pth").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"rome.pth is there twice"):
        import_official(folder)
    (folder / "data" / "rome.pth").unlink()
    with pytest.raises(BadInput, match="not a readable checkpoint"):
        import_official(folder)


def test_code_in_a_file_is_not_run(folder, tmp_path):
    class Harm:
        def __reduce__(self):
            return (tmp_path.joinpath, ("harm",))

    torch.save({"E_flame": Harm()}, folder / "DECA" / "data" / "deca_model.tar")
    with pytest.raises(BadInput, match=r"deca_model\.tar is not a readable checkpoint"):
        import_official(folder)


def test_weights_of_another_kind_are_refused(tmp_path, networks):
    path = tmp_path / "w.safetensors"
    save_weights(networks, path, {})
    with pytest.raises(BadInput, match="not a weights file"):
        load_bilayer_weights(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "mobile-avatar-rome-weights"
    assert json.loads(metadata["config"]) == CONFIG.to_dict()
    with pytest.raises(BadInput, match=r"does not exist.*import rome"):
        load_weights(tmp_path / "none")
    with pytest.raises(BadInput, match="ROME has no part 'nose'"):
        RomeNetworks(SMALL, ("nose",))


def test_only_some_parts_are_stored(tmp_path):
    some = RomeNetworks(SMALL, ("rendering_unet", "frame_regressor")).eval()
    save_weights(some, tmp_path / "w.safetensors", {})
    assert load_weights(tmp_path / "w.safetensors")[0].parts == ("rendering_unet", "frame_regressor")


def test_the_command(capfd, folder, tmp_path):
    output = tmp_path / "w.safetensors"
    done = run(capfd, "import", "rome", folder, "-o", output, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["config"]["img_channels"] == SMALL.img_channels
    assert list(result["parts"]) == list(PARTS)
    assert "non-commercial" in result["license"]
    assert "licence: non-commercial" in done.err
    _, facts = load_weights(output)
    assert facts["license"] == result["license"]
    assert "linear_hair.pth" in facts["source"]

    assert "--force" in run(capfd, "import", "rome", folder, "-o", output).sentence
    (folder / "data" / "disp_model.pth").unlink()
    rewrite(folder / "data" / "rome.pth", lambda s: s.update({"discriminator.net.bias": torch.zeros(1)}))
    done = run(capfd, "import", "rome", folder, "-o", output, "--force")
    assert done.code == 0, done.err
    assert "without frame_regressor: disp_model.pth is not in" in done.err
    assert "ignored tensors: discriminator.net.* (1)" in done.err
    assert "licence: non-commercial" in done.err
    rewrite(folder / "data" / "rome.pth", lambda s: s.pop("unet.to_outputs.weight"))
    done = run(capfd, "import", "rome", folder, "-o", tmp_path / "x")
    assert done.code == 2
    assert "unet.to_outputs.weight is missing" in done.sentence
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_released_sizes(tmp_path, shared):
    """Files with exactly the tensors of the release: 70.5 million numbers in the four networks."""
    facts = json.loads((shared / "specs/rome_state_dict.json").read_text())
    torch.manual_seed(0)

    def tensors(rows: dict) -> dict[str, torch.Tensor]:
        return {key: torch.rand(row["shape"]).to(getattr(torch, row["dtype"])) for key, row in rows.items()}

    core = {key: value for rows in facts["rome.pth/core"].values() for key, value in tensors(rows).items()}
    assert len(core) == 308
    others = tensors(facts["rome.pth/parametric_avatar_E_flame"]) | tensors(facts["rome.pth/parametric_avatar_flame"])
    torch.save(core | others, tmp_path / "rome.pth")
    for name in ("linear_hair.pth", "disp_model.pth"):
        torch.save(tensors(facts[name]), tmp_path / name)
    torch.save(torch.linalg.qr(torch.randn(15069, 60))[0], tmp_path / "u_full.pt")
    torch.save(torch.randn(5023, 3) * 0.01, tmp_path / "mean_deform.pt")
    imported = import_official(tmp_path)
    assert imported.networks.config == RomeConfig()
    assert imported.networks.parts == tuple(PARTS)
    counts = {name: sum(p.numel() for p in imported.networks.part(name).parameters()) for name in CORE}
    assert sum(counts.values()) == 70_494_124
    assert imported.ignored.keys() == {"parametric_avatar.flame"}
    path = tmp_path / "w.safetensors"
    save_weights(imported.networks, path, {"license": "research"})
    loaded, _ = load_weights(path)
    assert torch.equal(loaded.rendering_unet.to_outputs.weight, core["unet.to_outputs.weight"])
