"""Files of compact renderers and their texture encoders: nothing is lost in them, damaged ones are refused."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.appearance import Appearance
from mobile_avatar.models.rome.appearance_weights import load_appearance, save_appearance
from tests.models.rome.test_compact_renderer import TINY, lively
from tests.rome_weights import small_config


def both() -> Appearance:
    torch.manual_seed(2)
    appearance = Appearance(small_config(), TINY).eval()
    appearance.renderer.load_state_dict(lively().state_dict())
    return appearance


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_appearance(both(), tmp_path / "renderer.safetensors", {"license": "Apache-2.0"})
    return tmp_path / "renderer.safetensors"


def test_everything_comes_back(file: Path) -> None:
    before, (after, facts) = both(), load_appearance(file)
    assert facts == {"license": "Apache-2.0"}
    assert after.renderer.config == TINY
    assert after.config == small_config()
    assert not after.training
    state = after.state_dict()
    assert any("running_var" in key for key in state)
    for key, value in before.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize(
    ("metadata", "state", "words"),
    [
        ({"format": "another"}, {}, "compact renderer"),
        ({"version": "3"}, {}, "update"),
        ({"version": "1", "config": '{"image_size": 16, "width": 4, "middle": 1}'}, {}, "does not describe a texture"),
        ({"config": '{"networks": {}, "renderer": {"width": 4}}'}, {}, "describe a compact renderer"),
        ({"config": "no JSON"}, {}, "config"),
        ({}, {"renderer.to_colours.bias": None}, "renderer.to_colours.bias is missing"),
        ({}, {"renderer.to_colours.bias": torch.zeros(5)}, "shape"),
        ({}, {"renderer.to_colours.bias": torch.full((4,), torch.nan)}, "NaN"),
        ({}, {"more": torch.zeros(1)}, "unknown tensor more"),
    ],
)
def test_damaged_files_are_refused(file: Path, metadata: dict, state: dict, words: str) -> None:
    with safe_open(file, "pt") as stored:
        own = stored.metadata()
    whole = {key: value for key, value in (load_file(file) | state).items() if value is not None}
    save_file(whole, file, own | metadata)
    with pytest.raises(BadInput, match=words) as raised:
        load_appearance(file)
    assert str(file) in str(raised.value)


def test_missing_truncated_and_folded_files_are_refused(file: Path) -> None:
    with pytest.raises(BadInput, match="train rome-renderer"):
        load_appearance(file.with_name("none.safetensors"))
    folded = both()
    folded.renderer = folded.renderer.fold()
    save_appearance(folded, file.with_name("folded.safetensors"), {})
    with pytest.raises(BadInput, match="is missing"):
        load_appearance(file.with_name("folded.safetensors"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BadInput, match="truncated"):
        load_appearance(file)
