"""The family's comparison: one budget for all, nothing trained twice, a plot of what was measured."""

import json
from dataclasses import replace

import pytest

from mobile_avatar.errors import BadInput
from mobile_avatar.training import tradeoff as family
from mobile_avatar.training.ablation import Budget
from mobile_avatar.training.run import Run

BUDGET = Budget("tiny", 64, steps=2, batch_size=2, targets=1, seeds=1, identities=2)


@pytest.mark.slow
def test_members_are_trained_alike_measured_and_drawn(tmp_path, monkeypatch):
    # The large members differ in width only; two suffice to see that budgets are equal and runs are not repeated.
    monkeypatch.setattr(family, "MEMBERS", ("quarter", "mobile"))
    steps, loop = [], Run.loop
    monkeypatch.setattr(Run, "loop", lambda self, *rest: (steps.append(self.options.steps), loop(self, *rest))[1])
    found = family.tradeoff(BUDGET, tmp_path)
    assert steps == [2, 2]
    assert found["rows"]["mobile"]["gmac"] < found["rows"]["quarter"]["gmac"] < 1.0
    assert (tmp_path / "tradeoff.png").stat().st_size > 10_000
    assert "| mobile | 0.4" in family.markdown(found)
    family.tradeoff(BUDGET, tmp_path)
    assert steps == [2, 2]
    assert json.loads((tmp_path / "tradeoff.json").read_text())["budget"]["preset"] == "tiny"
    with pytest.raises(BadInput, match="other options"):
        family.tradeoff(replace(BUDGET, steps=3), tmp_path)
