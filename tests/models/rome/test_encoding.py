"""Harmonic encoding: order of the channels, and official values."""

import math

import numpy as np
import pytest
import torch

from mobile_avatar.models.rome.encoding import harmonic_encoding


def test_order_of_the_channels():
    x = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    expected = [0.3, -1.2]
    for k in (1, 2, 4):
        expected += [math.sin(0.3 * k), math.sin(-1.2 * k), math.cos(0.3 * k), math.cos(-1.2 * k)]
    torch.testing.assert_close(harmonic_encoding(x, 3), torch.tensor([expected], dtype=torch.float64))


def test_maps_are_encoded_along_their_channels():
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    encoded = harmonic_encoding(x, dim=1)
    assert encoded.shape == (2, 39, 4, 5)
    assert torch.equal(encoded.permute(0, 2, 3, 1), harmonic_encoding(x.permute(0, 2, 3, 1)))


@pytest.mark.parametrize(("name", "octaves"), [("in3 out3", 6), ("in2 out2", 6), ("in2 out2_4octaves", 4)])
def test_equals_the_official_encoding(shared, name, octaves):
    golden = np.load(shared / "parity/rome/04_encoding.npz", allow_pickle=False)
    given, expected = (torch.from_numpy(golden[f"harmonic/{key}"]) for key in name.split())
    torch.testing.assert_close(harmonic_encoding(given, octaves), expected, atol=2e-5, rtol=0)


def test_zero_is_encoded_exactly(shared):
    golden = np.load(shared / "parity/rome/04_encoding.npz", allow_pickle=False)
    assert torch.equal(harmonic_encoding(torch.zeros(1, 3)), torch.from_numpy(golden["harmonic/zero3"]))
