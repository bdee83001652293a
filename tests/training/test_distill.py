"""Distillation: what the student inherits, what it learns, and what stays the teacher's."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.training.batches import Batches
from mobile_avatar.training.distill import (
    LEARNS,
    DistillObjective,
    make_student,
    student_config,
    train_distill,
)
from mobile_avatar.training.step import Step, trained
from tests.training.conftest import OPTIONS, MadeUp

TINY = PRESETS["tiny"]
# The tiny decoder, stopped at half size: the same widths at the same sides.
HALF = replace(TINY, inf_channels=16, inf_scale=2, inf_activation="relu")


@pytest.fixture
def teacher() -> BilayerModel:
    torch.manual_seed(0)
    return BilayerModel(TINY).eval().requires_grad_(False)


def test_a_student_has_the_preset_per_frame_and_is_the_teacher_otherwise() -> None:
    config = student_config(PRESETS["compact"], "mobile")
    assert (config.inf_scale, config.inf_activation, config.inf_channels) == (2, "relu", 32)
    assert replace(config, inf_scale=1, inf_activation="leaky_relu", inf_channels=16) == PRESETS["compact"]


def test_a_student_starts_as_the_truncated_teacher(teacher: BilayerModel) -> None:
    student = make_student(teacher, replace(HALF, inf_activation="leaky_relu")).eval()
    keypoints = torch.rand(1, 3, 136) * 2 - 1
    image = torch.rand(1, 1, 3, 64, 64)
    person = teacher.person(image, torch.ones(1, 1, 1, 64, 64), image)
    pose = teacher.keypoints_embedder(keypoints[0])
    decoder, norms = teacher.inference_generator.decoder, None
    x, layers = pose, [block.repeat(3) for block in person.layers]
    for block, predicted in zip(decoder.blocks[:-1], layers, strict=False):
        x, norms = block(x, norms, predicted.norm2, predicted.skip), predicted.next_norm
    expected = decoder.activate(decoder.blocks[-1].norm1(x, norms))
    embeddings = teacher.identity_embedder(image, torch.ones(1, 1, 1, 64, 64), image)
    own = [block.repeat(3) for block in student.inference_projector(embeddings)]
    found = student.inference_generator.decoder(student.keypoints_embedder(keypoints[0]), own)
    torch.testing.assert_close(found, expected)
    layers = student.frame_layers(keypoints, student.person(image, torch.ones(1, 1, 1, 64, 64), image))
    assert layers.lf.shape == (3, 3, 64, 64)


def test_it_comes_closer_to_the_teacher_and_leaves_the_rest_alone(teacher: BilayerModel) -> None:
    options = replace(OPTIONS, batch_size=4).resolved()
    student = make_student(teacher, HALF).requires_grad_(False)
    learns = [getattr(student, name).train().requires_grad_(True) for name in LEARNS]
    before = {name: value.clone() for name, value in student.state_dict().items()}
    step = Step(
        DistillObjective(student, teacher, options), [trained(student, 4e-3, 0.9, 1.0, [(p, 1.0) for p in learns])]
    )
    batches, rows = Batches(MadeUp(), options), []
    for number in range(24):
        rows.append(step.gradients(batches.read(number), number))
        step.update()
    for name in ("delta", "lf"):
        first, last = (np.mean([row[name] for row in part]) for part in (rows[:5], rows[-5:]))
        assert last < 0.9 * first, name
    for name, value in student.state_dict().items():
        assert name.startswith(LEARNS) or torch.equal(value, before[name]), name


def test_a_run_gives_a_model_in_eval_mode_and_can_be_resumed(tmp_path, monkeypatch, teacher: BilayerModel) -> None:
    monkeypatch.setitem(PRESETS, "half", HALF)
    options = replace(OPTIONS, preset="half", steps=4)
    whole = train_distill(options, tmp_path / "whole", False, teacher)
    assert not whole.training
    assert whole.config == HALF
    train_distill(replace(options, steps=2), tmp_path / "parts", False, teacher)
    assert (tmp_path / "parts" / "sheet-000002.png").is_file()
    again = train_distill(options, tmp_path / "whole", True, teacher)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)
    with pytest.raises(BadInput, match="learns from a teacher"):
        train_distill(replace(options, adversarial=True), tmp_path / "other", False, teacher)
