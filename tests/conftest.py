"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

import mobile_avatar  # noqa: F401 (before torch: it says how torch's threads wait)

import torch  # isort: skip

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with official golden data beside the checkout; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the official golden data folder {SHARED} is not on this machine")
    return SHARED


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    torch.set_num_threads(1)
