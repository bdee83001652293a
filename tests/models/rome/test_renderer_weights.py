"""Files of compact renderers: nothing is lost in them, and damaged ones are refused in a sentence."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.compact_renderer import CompactRenderer
from mobile_avatar.models.rome.renderer_weights import FORMAT, load_renderer, save_renderer
from tests.models.rome.test_compact_renderer import TINY, lively


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_renderer(lively(), tmp_path / "renderer.safetensors", {"license": "Apache-2.0"})
    return tmp_path / "renderer.safetensors"


def test_everything_comes_back(file: Path) -> None:
    before, (after, facts) = lively(), load_renderer(file)
    assert facts == {"license": "Apache-2.0"}
    assert after.config == TINY
    assert not after.training
    state = after.state_dict()
    assert any("running_var" in key for key in state)
    for key, value in before.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize(
    ("metadata", "state", "words"),
    [
        ({"format": "another"}, {}, "compact renderer"),
        ({"version": "2"}, {}, "update"),
        ({"config": '{"width": 4}'}, {}, "describe"),
        ({"config": "no JSON"}, {}, "config"),
        ({}, {"to_colours.bias": None}, "to_colours.bias is missing"),
        ({}, {"to_colours.bias": torch.zeros(5)}, "shape"),
        ({}, {"to_colours.bias": torch.full((4,), torch.nan)}, "NaN"),
        ({}, {"more": torch.zeros(1)}, "unknown tensor more"),
    ],
)
def test_damaged_files_are_refused(file: Path, metadata: dict, state: dict, words: str) -> None:
    own = {"format": FORMAT, "version": "1", "config": '{"image_size": 16, "width": 4, "middle": 1}'}
    whole = {key: value for key, value in (load_file(file) | state).items() if value is not None}
    save_file(whole, file, own | metadata)
    with pytest.raises(BadInput, match=words) as raised:
        load_renderer(file)
    assert str(file) in str(raised.value)


def test_missing_truncated_and_folded_files_are_refused(file: Path) -> None:
    with pytest.raises(BadInput, match="train rome-renderer"):
        load_renderer(file.with_name("none.safetensors"))
    save_renderer(CompactRenderer.folded(TINY), file.with_name("folded.safetensors"), {})
    with pytest.raises(BadInput, match="is missing"):
        load_renderer(file.with_name("folded.safetensors"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BadInput, match="truncated"):
        load_renderer(file)
