"""The joint stage: warp and updater both learn from the updated image; half of the people keep their colours."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.training.base import BaseObjective
from mobile_avatar.training.batches import Batches
from mobile_avatar.training.joint import JointObjective, recolour_half, train_joint
from mobile_avatar.training.step import Step, trained
from tests.training.conftest import OPTIONS, MadeUp

TINY = PRESETS["tiny"]


def gradients(objective, model, clips):
    """Parts of the model that the objective trains."""
    model.zero_grad(set_to_none=True)
    objective(model, OPTIONS.resolved())(clips, 0)["total"].backward()
    return {name for name, part in model.named_children() if any(p.grad is not None for p in part.parameters())}


def test_everything_is_trained_through_the_updated_image():
    torch.manual_seed(0)
    model, clips = BilayerModel(TINY).train(), Batches(MadeUp(), OPTIONS).read(0)
    parts = {name for name, _ in model.named_children()}
    assert gradients(BaseObjective, model, clips) == parts - {"texture_updater"}
    assert gradients(JointObjective, model, clips) == parts


@pytest.mark.slow
def test_it_learns():
    torch.manual_seed(0)
    options = replace(OPTIONS, batch_size=4).resolved()
    model = BilayerModel(TINY).train()
    step = Step(JointObjective(model, options), [trained(model, 2e-3, 0.9, 1.0)])
    batches, rows = Batches(MadeUp(), options), []
    for number in range(24):
        rows.append(step.gradients(batches.read(number), number))
        step.update()
    for name in ("updated", "uv", "mask"):
        first, last = (np.mean([row[name] for row in part]) for part in (rows[:5], rows[-5:]))
        assert last < 0.9 * first, name


def test_every_second_person_is_recoloured_whatever_the_share():
    clips = MadeUp().load(MadeUp().draw(np.random.default_rng(0), 4, 2))
    whole = recolour_half(clips, np.random.default_rng(1), 4, slice(0, 4)).images
    same = [torch.equal(whole[i], clips.images[i]) for i in range(4)]
    assert same == [False, True, False, True]
    part = replace(clips, images=clips.images[1:3])
    shared = recolour_half(part, np.random.default_rng(1), 4, slice(1, 3)).images
    torch.testing.assert_close(shared, whole[1:3])


def test_a_run_gives_a_model_in_eval_mode(tmp_path):
    torch.manual_seed(0)
    model = BilayerModel(TINY)
    before = {name: value.clone() for name, value in model.texture_updater.state_dict().items()}
    after = train_joint(replace(OPTIONS, steps=2), tmp_path / "run", False, model)
    assert not after.training
    assert any(not torch.equal(value, before[name]) for name, value in after.texture_updater.state_dict().items())
    assert (tmp_path / "run" / "sheet-000002.png").is_file()
    with pytest.raises(BadInput, match="substitute only"):
        train_joint(replace(OPTIONS, losses="thesis", vgg19="x"), tmp_path / "other", False, model)
