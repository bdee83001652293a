"""The ablation: variants differ as the table says, budgets are equal, and the verdict follows from the numbers."""

import json
from dataclasses import replace

import pytest
import torch

from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.weights import load_weights
from mobile_avatar.training.ablation import VARIANTS, Budget, ablation, verdict
from mobile_avatar.training.run import Run

BUDGET = Budget("tiny", 64, steps=4, batch_size=2, targets=1, seeds=1, identities=2)


@pytest.mark.slow
def test_an_ablation_trains_measures_and_resumes(tmp_path, monkeypatch):
    steps = []
    loop = Run.loop
    monkeypatch.setattr(Run, "loop", lambda self, *rest: (steps.append(self.options.steps), loop(self, *rest))[1])
    found = ablation(BUDGET, tmp_path)
    assert steps == [4, 4, 3, 1]  # the same budget for all three; the last one's is shared with the updater
    assert set(found["rows"]) == {variant.name for variant in VARIANTS}
    plain, adaptive = (
        load_weights(tmp_path / f"{name}-0" / "weights.safetensors")[0] for name in ("plain", "adaptive")
    )
    assert not plain.config.tex_spade
    assert not plain.config.adaptive_skips
    assert adaptive.config.tex_spade
    assert torch.isfinite(torch.tensor(found["rows"]["adaptive"]["psnr_masked"])).all()
    again = ablation(BUDGET, tmp_path)
    assert len(steps) == 4, "finished runs are not trained again"
    assert again == json.loads((tmp_path / "ablation.json").read_text())
    for name, columns in found["rows"].items():
        assert again["rows"][name]["psnr_masked"] == pytest.approx(columns["psnr_masked"], rel=1e-5)
    assert "| adaptive + updater |" in (tmp_path / "ablation.md").read_text()
    with pytest.raises(BadInput, match="other options"):
        ablation(replace(BUDGET, steps=6), tmp_path)


def test_the_verdict_says_what_the_numbers_say():
    def rows(*psnr):
        names = [variant.name for variant in VARIANTS]
        return {n: {"psnr_masked": p, "ssim_masked": p} for n, p in zip(names, psnr, strict=True)}

    assert verdict(rows([1, 2], [2, 3], [3, 4])).startswith("The order of the thesis is reproduced")
    mixed = verdict(rows([1, 2], [2, 3], [3.5, 2]))
    assert mixed.startswith("The order of the thesis is not fully reproduced") or "1 of 2 seeds" in mixed
    assert "not better than plain" in verdict(rows([2], [1], [3]))
