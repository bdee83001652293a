"""The distance to true heads: nothing for themselves, little for bald people, less with hair than without."""

import pytest
import torch

from mobile_avatar.data.synthetic.expression import neutral_frames
from mobile_avatar.data.synthetic.identity import draw_identities
from mobile_avatar.models.rome.networks import CORE, RomeNetworks
from mobile_avatar.models.rome.parametric import ParametricHead
from mobile_avatar.models.rome.synthetic_rig import synthetic_codes, synthetic_head
from mobile_avatar.training import rome_codes
from mobile_avatar.training import rome_table as rome_table_module
from mobile_avatar.training.linear_rome import LINEAR
from mobile_avatar.training.rome_codes import FRAMES, code_table
from mobile_avatar.training.rome_heads import unseen_clips
from mobile_avatar.training.rome_table import MESHES, rome_table
from mobile_avatar.training.rome_truth import head_errors, true_heads
from tests.training.test_rome_training import tiny_config

BALD, LONG_HAIRED = 0, 3  # of the test split


def bare(number: int) -> torch.Tensor:
    identity, frames = draw_identities([number], 1), neutral_frames(1)
    codes = synthetic_codes(identity, frames)
    return ParametricHead(synthetic_head()).blended(codes.shape, codes.expression)[0]


def test_a_bare_head_is_near_a_bald_person_and_far_from_hair():
    head = synthetic_head()
    bald, hairy = true_heads([BALD, LONG_HAIRED])
    close = head_errors(bare(BALD), head.faces, bald)
    assert close.chamfer < 3
    assert close.hair != close.hair, "no hair, no distance"
    far = head_errors(bare(LONG_HAIRED), head.faces, hairy)
    assert far.chamfer > 2 * close.chamfer
    assert far.hair > 10
    # Hair of one thickness is better than none.
    thick = bare(LONG_HAIRED)
    middle = thick.new_tensor([0.0, 0.0, -0.03])
    thick[head.hair] += 0.015 * torch.nn.functional.normalize(thick[head.hair] - middle, dim=1)
    assert head_errors(thick, head.faces, hairy).hair < far.hair - 5


@pytest.mark.slow
def test_a_table_has_a_row_for_every_mesh_that_the_networks_can_make():
    torch.manual_seed(0)
    networks = RomeNetworks(tiny_config(), (*CORE, *LINEAR)).eval()
    networks.basis_regressor.fc.weight.data.zero_()
    networks.basis_regressor.fc.bias.data.zero_()
    rows = rome_table(networks, people=2, seeds=(0, 1))
    assert [row.mesh for row in rows] == list(MESHES)
    first, average = rows[0], rows[1]
    assert first.relative == 1
    assert (first.heads, first.seeds) == (2, (0, 1))
    assert average.chamfer == pytest.approx(first.chamfer), "an empty basis adds nothing"
    assert rows[3].chamfer == pytest.approx(first.chamfer)
    assert rows[4].chamfer != pytest.approx(first.chamfer), "its shape is not the given one"
    only_core = RomeNetworks(tiny_config(), CORE).eval()
    assert [row.mesh for row in rome_table(only_core, people=1)] == ["bare head", "full"]


def test_perfect_codes_cost_nothing_and_mean_codes_as_much_as_the_mean(monkeypatch):
    networks = RomeNetworks(tiny_config(), ("frame_regressor",)).eval()
    clips = unseen_clips(32, 2, FRAMES)
    true = torch.cat(list(vars(clips.codes()).values()), dim=1)
    for read, wanted in ((true, 0), (true.mean(0, keepdim=True).expand_as(true), 1)):
        monkeypatch.setattr(rome_codes, "read_frames", lambda networks, frames, read=read: read)
        rows = {row.code: row for row in code_table(networks, 2)}
        assert set(rows) == {"pitch", "yaw", "roll", "jaw", "expression", "scale", "shift", "landmarks"}
        assert all(row.relative == pytest.approx(wanted, abs=1e-3) for row in rows.values())
    moved = true.clone()
    moved[:, networks.config.n_exp + 1] += 0.1  # radians of yaw
    monkeypatch.setattr(rome_codes, "read_frames", lambda networks, frames: moved)
    rows = {row.code: row for row in code_table(networks, 2)}
    assert rows["yaw"].error == pytest.approx(5.73, abs=0.01)
    assert rows["pitch"].error == 0
    assert 0.5 < rows["landmarks"].error < 5


def test_a_missing_file_is_told_in_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rome_table", "--weights", str(tmp_path / "none.safetensors")])
    with pytest.raises(SystemExit) as exit_:
        rome_table_module.main()
    assert exit_.value.code == 2
    assert "none.safetensors does not exist" in capsys.readouterr().err
