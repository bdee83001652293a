"""Importing official run folders: what is found, what is refused, and in which words."""

import pytest
import torch

from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.config import BilayerConfig
from mobile_avatar.models.bilayer.official_runs import find_runs, import_official
from mobile_avatar.models.bilayer.weights import load_weights, save_weights
from tests.models.bilayer.official import SMALL, official_state, random_model, write_runs


@pytest.fixture
def runs(tmp_path):
    return write_runs(tmp_path, random_model())


def rewrite(path, change) -> None:
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def test_everything_is_found_from_shapes(runs):
    model, discriminator = import_official(find_runs(runs))
    assert discriminator is None
    assert model.config == SMALL
    expected = random_model().state_dict()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-5)


def test_the_older_container_reads_as_well(runs):
    path = runs / "base" / "checkpoints" / "50_keypoints_embedder.pth"
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    import_official(find_runs(runs))


def test_stored_vectors_decide_not_the_singular_value(runs):
    """Doubling a stored vector halves the weight: nothing recomputes sigma."""
    path = runs / "base" / "checkpoints" / "50_keypoints_embedder.pth"
    before = import_official(find_runs(runs))[0].keypoints_embedder.mlp[0].weight
    rewrite(path, lambda state: state["net.mlp.0.weight_u"].mul_(2))
    after = import_official(find_runs(runs))[0].keypoints_embedder.mlp[0].weight
    torch.testing.assert_close(after, before / 2)


def test_epochs(runs):
    assert find_runs(runs).files["texture_generator"].name == "50_texture_generator.pth"
    assert find_runs(runs, epoch=25).files["texture_generator"].name == "25_texture_generator.pth"
    with pytest.raises(BadInput, match=r"no complete epoch 30.*25, 50"):
        find_runs(runs, epoch=30)
    (runs / "base" / "checkpoints" / "50_texture_generator.pth").unlink()
    assert find_runs(runs).files["identity_embedder"].name == "25_identity_embedder.pth"


def test_dead_tensors_and_buffers_are_ignored(runs):
    last = len(SMALL.emb_widths) - 1

    def add(state):
        state[f"net.dec_blocks.{last}.block.0.bias"] = torch.zeros(4)
        state[f"net.dec_blocks.{last}.skip.0.weight_orig"] = torch.zeros(4, 8, 1, 1)

    rewrite(runs / "base" / "checkpoints" / "50_identity_embedder.pth", add)
    path = runs / "base" / "checkpoints" / "50_inference_generator.pth"
    rewrite(path, lambda state: state.update(identity_grid=torch.zeros(1, 64, 64, 2)))
    import_official(find_runs(runs))


WRONG = [
    (
        "texture_generator",
        lambda state: state.pop("gen_tex.blocks.1.block.0.weight_u"),
        "gen_tex.blocks.1.block.0.weight_u is missing",
    ),
    (
        "texture_generator",
        lambda state: state.pop("gen_tex.heads.0.0.weight_orig"),
        "gen_tex.heads.0.0.weight is missing",
    ),
    (
        "inference_generator",
        lambda state: state.update({"prj_inf.fc_blocks.0.0.0.bias": torch.zeros(3)}),
        r"fc_blocks.0.0.0.bias has shape \(3,\)",
    ),
    (
        "keypoints_embedder",
        lambda state: state.update(extra=torch.zeros(1)),
        "1 tensors that no keypoints_embedder has.*extra",
    ),
]


@pytest.mark.parametrize(("network", "change", "words"), WRONG)
def test_wrong_tensors_are_named(runs, network, change, words):
    path = runs / "base" / "checkpoints" / f"50_{network}.pth"
    rewrite(path, change)
    with pytest.raises(BadInput, match=words) as error:
        import_official(find_runs(runs))
    assert str(path) in str(error.value)


def test_unreadable_files(runs, tmp_path):
    with pytest.raises(BadInput, match="not a folder"):
        find_runs(tmp_path / "none")
    with pytest.raises(BadInput, match="no checkpoint of identity_embedder"):
        find_runs(runs / "enhancer")
    (runs / "enhancer" / "args.txt").write_text("image_size: 256\n")
    with pytest.raises(BadInput, match="image_size 256, the tensors say 64"):
        import_official(find_runs(runs))
    path = runs / "base" / "checkpoints" / "50_texture_generator.pth"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadInput, match="not a readable checkpoint"):
        import_official(find_runs(runs))


def test_code_in_a_checkpoint_never_runs(runs, tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save(Attack(), runs / "base" / "checkpoints" / "50_texture_generator.pth")
    with pytest.raises(BadInput, match="not a readable checkpoint"):
        import_official(find_runs(runs))
    assert not (tmp_path / "owned").exists()


def test_two_candidates_are_refused(runs):
    copy = runs / "copy" / "checkpoints"
    copy.mkdir(parents=True)
    torch.save(official_state(random_model(), "texture_enhancer"), copy / "5_texture_enhancer.pth")
    with pytest.raises(BadInput, match="texture_enhancer is in several runs"):
        find_runs(runs)


def test_weights_file(tmp_path):
    model = random_model(BilayerConfig.from_dict(SMALL.to_dict() | {"num_harmonics": 4, "align_corners": True}))
    path = tmp_path / "w.safetensors"
    save_weights(model, path, {"license": "x"})
    loaded, facts = load_weights(path)
    assert (loaded.config, facts) == (model.config, {"license": "x"})
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
    save_weights(model, path, {"license": "x"}, half=True)
    half = load_weights(path)[0]
    torch.testing.assert_close(half.state_dict(), model.state_dict(), rtol=1e-3, atol=1e-3)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BadInput, match="truncated or foreign"):
        load_weights(path)


def test_weights_that_hold_only_what_differs_from_others(tmp_path):
    model, base, path = random_model(), tmp_path / "base.safetensors", tmp_path / "student.safetensors"
    save_weights(model, base, {"license": "x"}, half=True)
    model = load_weights(base)[0]
    with torch.no_grad():
        model.inference_generator.mask_head.bias += 1
    save_weights(model, path, {"license": "y"}, half=True, base=base)
    assert path.stat().st_size < 0.2 * base.stat().st_size
    loaded, facts = load_weights(path)
    assert facts == {"license": "y"}
    for key, value in loaded.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[key], rtol=1e-3, atol=1e-6)
    save_weights(random_model(seed=5), base, {"license": "x"}, half=True)
    with pytest.raises(BadInput, match=r"holds only what differs from base\.safetensors; put that very file beside it"):
        load_weights(path)
    base.unlink()
    with pytest.raises(BadInput, match="put that very file beside it"):
        load_weights(path)
