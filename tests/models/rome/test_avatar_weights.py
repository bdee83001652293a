"""The file that ROME avatars are made with, and the command that packs it."""

import copy
import json
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome import avatar_weights
from mobile_avatar.models.rome.appearance import Appearance
from mobile_avatar.models.rome.appearance_weights import save_appearance
from mobile_avatar.models.rome.avatar_weights import PARTS, AvatarWeights, load_avatar_weights, save_avatar_weights
from mobile_avatar.models.rome.networks import CORE
from mobile_avatar.models.rome.weights import save_weights
from mobile_avatar.training import rome_pack
from tests.rome_weights import FACTS, small_appearance, small_config, small_networks, small_renderer, small_weights


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("rome") / "rome.safetensors"
    save_avatar_weights(small_weights(), path)
    return path


def contents(path):
    with safe_open(path, "pt") as stored:
        return {key: stored.get_tensor(key) for key in stored.keys()}, stored.metadata()  # noqa: SIM118 (not a dict)


def test_what_is_saved_comes_back(file):
    given, found = small_weights(), load_avatar_weights(file)
    assert found.facts == FACTS
    assert found.networks.config == given.networks.config
    assert found.renderer.config == given.renderer.config
    for part in ("networks", "renderer"):
        before, after = (getattr(weights, part).state_dict() for weights in (given, found))
        assert list(before) == list(after)
        assert all(torch.allclose(after[name], value, rtol=1e-3, atol=1e-7) for name, value in before.items())


def test_half_precision_is_for_the_large_parts_that_do_not_mind(file):
    state, _ = contents(file)
    kinds = {key: value.dtype for key, value in state.items() if value.is_floating_point()}
    halved = {key for key, kind in kinds.items() if kind is torch.float16}
    assert {key.split(".")[1] for key in halved} == {"linear_basis", "basis_regressor"}
    assert {kind for key, kind in kinds.items() if "running_" in key} == {torch.float32}


def test_in_full_nothing_changes(tmp_path):
    save_avatar_weights(small_weights(), tmp_path / "full.safetensors", half=False)
    found, given = load_avatar_weights(tmp_path / "full.safetensors").networks.state_dict(), small_networks()
    assert all(torch.equal(found[name], value) for name, value in given.state_dict().items())


def test_numbers_beyond_half_precision_stay(tmp_path):
    networks = copy.deepcopy(small_networks())
    networks.linear_basis.mean[0, 0] = 1e6
    save_avatar_weights(AvatarWeights(networks, small_renderer(), {}), tmp_path / "large.safetensors")
    assert load_avatar_weights(tmp_path / "large.safetensors").networks.linear_basis.mean[0, 0] == 1e6


def test_weights_that_do_not_make_avatars_are_refused():
    with pytest.raises(BadInput, match=r"lack linear_basis, frame_regressor.*train linear-rome"):
        AvatarWeights(small_networks(("texture_encoder", "basis_regressor")), small_renderer(), {})


def test_a_file_too_large_to_ship_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(avatar_weights, "LARGEST_FILE", 1_000_000)
    with pytest.raises(BadInput, match="MB, but at most 1 may"):
        save_avatar_weights(small_weights(), tmp_path / "large.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_damaged_files(file, tmp_path):
    state, metadata = contents(file)
    path = tmp_path / "damaged.safetensors"
    config = json.loads(metadata["config"])
    cases = [
        (
            {key: value for key, value in state.items() if "linear_basis.mean" not in key},
            {},
            "linear_basis.mean is mis",
        ),
        (state | {"renderer.to_colours.bias": torch.zeros(3)}, {}, "expected \\(4,\\)"),
        (state | {"extra": torch.zeros(1)}, {}, "unknown tensor extra"),
        (state, {"config": json.dumps({"networks": config["networks"]})}, "does not describe"),
        (state, {"config": json.dumps(config | {"renderer": {"width": 1}})}, "compact renderer"),
        (state, {"version": "9"}, "update mobile-avatar"),
        (state, {"format": "other"}, "rome_pack"),
    ]
    for tensors, change, words in cases:
        save_file(tensors, path, metadata | change)
        with pytest.raises(BadInput, match=words):
            load_avatar_weights(path)
    path.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BadInput, match=r"damaged.safetensors"):
        load_avatar_weights(path)
    with pytest.raises(BadInput, match="does not exist"):
        load_avatar_weights(tmp_path / "none.safetensors")


def packed(monkeypatch, capsys, *arguments):
    """Output of the packing command, and the exit code."""
    monkeypatch.setattr(sys, "argv", ["rome_pack", *map(str, arguments)])
    code = 0
    try:
        rome_pack.main()
    except SystemExit as exit_:
        code = exit_.code
    return code, *capsys.readouterr()


def test_packing_keeps_what_creates_and_says_what_storing_costs(tmp_path, monkeypatch, capsys):
    save_weights(small_networks((*CORE, *PARTS)), tmp_path / "linear.safetensors", FACTS)
    appearance = small_appearance(128)
    save_appearance(appearance, tmp_path / "renderer.safetensors", {"license": "MIT"})
    monkeypatch.setattr(rome_pack, "PEOPLE", 1)
    given = ("--networks", tmp_path / "linear.safetensors", "--renderer", tmp_path / "renderer.safetensors")
    code, out, _ = packed(monkeypatch, capsys, *given, "-o", tmp_path / "rome.safetensors", "--json")
    assert code == 0
    result = json.loads(out)
    found = load_avatar_weights(tmp_path / "rome.safetensors")
    assert found.networks.parts == PARTS
    assert found.renderer.config.image_size == 128
    # The texture encoder is the renderer's partner, not the one that the full model was trained with.
    for name, value in appearance.texture_encoder.state_dict().items():
        assert torch.equal(found.networks.texture_encoder.state_dict()[name], value), name
    assert result["license"] == found.facts["license"] == "Apache-2.0; MIT"
    assert found.facts["trained_on"] == FACTS["trained_on"]
    assert len(found.facts["networks_sha256"]) == len(found.facts["renderer_sha256"]) == 64
    assert 0 < result["offsets_mm"] < 0.2
    assert 0 < result["vertices_px"] < 0.1
    assert 0 < result["picture"] < 0.005


def test_packing_refuses_in_a_sentence(tmp_path, monkeypatch, capsys):
    save_weights(small_networks(("texture_encoder",)), tmp_path / "core.safetensors", FACTS)
    save_appearance(small_appearance(), tmp_path / "renderer.safetensors", FACTS)
    foreign = Appearance(replace(small_config(), tex_channels=4), small_renderer().config)
    save_appearance(foreign, tmp_path / "foreign.safetensors", FACTS)
    core, renderer, output = (tmp_path / f"{name}.safetensors" for name in ("core", "renderer", "rome"))
    for arguments, words in (
        (("--networks", core, "--renderer", renderer), "lack linear_basis"),
        (("--networks", renderer, "--renderer", renderer), "not a ROME weights file"),
        (("--networks", core, "--renderer", core), "not a compact renderer file"),
        (("--networks", core, "--renderer", tmp_path / "foreign.safetensors"), "other networks"),
    ):
        code, out, err = packed(monkeypatch, capsys, *arguments, "-o", output)
        assert (code, out) == (2, "")
        assert words in err
        assert not output.exists()
