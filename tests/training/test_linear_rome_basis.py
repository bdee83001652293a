"""The linear basis: orthonormal, region by region, exact for offsets it spans."""

import pytest
import torch

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.training.linear_rome_basis import Region, explained_variance, fit_basis, regions

VERTICES = 40
PARTS = (Region("hair", torch.tensor([30, 3, 7, 8, 21]), 4), Region("neck", torch.tensor([1, 12, 13]), 2))
CONFIG = RomeConfig(n_vertices=VERTICES, n_basis=6)


def spanned(people: int) -> torch.Tensor:
    """Offsets (people, v, 3) with as many independent directions per region as it has components, and a mean."""
    generator = torch.Generator().manual_seed(0)
    offsets = torch.zeros(people, VERTICES, 3)
    for part in PARTS:
        directions = torch.randn(part.components, len(part.vertices), 3, generator=generator)
        amounts = torch.randn(people, part.components, generator=generator)
        offsets[:, part.vertices] = 0.3 + torch.einsum("mc,ckx->mkx", amounts, directions)
    return offsets


def test_offsets_in_the_span_come_back_through_an_orthonormal_basis():
    offsets = spanned(20)
    basis = fit_basis(offsets, PARTS, CONFIG)
    torch.testing.assert_close(basis.basis.T @ basis.basis, torch.eye(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(basis(basis.coefficients(offsets)), offsets, atol=1e-5, rtol=0)
    torch.testing.assert_close(basis.mean, offsets.mean(0), atol=1e-6, rtol=0)
    assert explained_variance(basis, offsets, PARTS)["all"] == pytest.approx(1, abs=1e-5)
    rows = basis.basis.view(VERTICES, 3, 6).abs().sum(1) > 0
    for part, columns in zip(PARTS, (slice(0, 4), slice(4, 6)), strict=True):
        assert set(rows[:, columns].any(1).nonzero()[:, 0].tolist()) == set(part.vertices.tolist()), part.name


def test_the_strongest_directions_are_kept_and_the_rest_is_counted():
    offsets = torch.zeros(4, VERTICES, 3)
    offsets[:, 30, 0] = torch.tensor([3.0, -3.0, 0.0, 0.0])
    offsets[:, 3, 1] = torch.tensor([0.0, 0.0, 1.0, -1.0])
    basis = fit_basis(offsets, [Region("hair", PARTS[0].vertices, 1)], RomeConfig(n_vertices=VERTICES, n_basis=1))
    assert basis.basis[90, 0].abs() == pytest.approx(1)
    assert explained_variance(basis, offsets, PARTS[:1])["hair"] == pytest.approx(0.9)


def test_too_few_people_are_refused():
    with pytest.raises(BadInput, match="4 people do not give 4 components of hair"):
        fit_basis(spanned(4), PARTS, CONFIG)


def test_regions_hold_what_may_move_and_share_the_components():
    head = synthetic_head()
    hair, neck = regions(head, 60)
    assert (hair.components, neck.components) == (50, 10)
    movable = head.deforms_mask[:, 0].nonzero()[:, 0]
    assert torch.equal(torch.cat((hair.vertices, neck.vertices)).sort().values, movable)
