"""The distance to true heads: nothing for themselves, little for bald people, less with hair than without."""

import pytest
import torch

from mobile_avatar.data.synthetic.expression import neutral_frames
from mobile_avatar.data.synthetic.identity import draw_identities
from mobile_avatar.models.rome.networks import CORE, RomeNetworks
from mobile_avatar.models.rome.parametric import ParametricHead
from mobile_avatar.models.rome.synthetic_rig import synthetic_codes, synthetic_head
from mobile_avatar.training.linear_rome import LINEAR
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
