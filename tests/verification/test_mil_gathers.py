"""The MIL evaluator's operations of mesh graphs: gathers, sums, means, divisions and roots."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.verification.test_mil_torch import build, mb, normal, run


@pytest.mark.parametrize(("op", "plain"), [("reduce_sum", np.sum), ("reduce_mean", np.mean)])
@pytest.mark.parametrize(("axes", "keep"), [([0], True), ([-1], False), ([1, 2], False)])
def test_reductions(tmp_path: Path, op: str, plain: object, axes: list[int], keep: bool) -> None:
    x = normal(2, 3, 4)
    result = run(tmp_path, lambda x: getattr(mb, op)(x=x, axes=axes, keep_dims=keep), x, op=op)
    np.testing.assert_allclose(result, plain(x, axis=tuple(axes), keepdims=keep), atol=1e-6)


@pytest.mark.parametrize(("axis", "shape"), [(0, (5,)), (1, (5,)), (0, (2, 2)), (2, (3, 1, 2))])
def test_gather(tmp_path: Path, axis: int, shape: tuple[int, ...]) -> None:
    x = normal(4, 3, 2)
    indices = np.random.default_rng(1).integers(0, x.shape[axis], shape).astype(np.int32)
    result = run(tmp_path, lambda x: mb.gather(x=x, indices=indices, axis=axis), x, op="gather")
    np.testing.assert_array_equal(result, np.take(x, indices, axis))


def test_division_and_root(tmp_path: Path) -> None:
    x, y = np.abs(normal(3, 4)), 2 + np.abs(normal(3, 4))
    result = run(tmp_path, lambda x, y: mb.real_div(x=mb.sqrt(x=x), y=y), x, y, op="real_div")
    np.testing.assert_allclose(result, np.sqrt(x) / y, rtol=1e-6)


def test_sums_in_half_precision_are_rounded_once(tmp_path: Path) -> None:
    from mobile_avatar.verification.mil_torch import evaluate

    program = build(tmp_path, lambda x: mb.reduce_sum(x=x, axes=[0], keep_dims=True), (4096,), half=True)
    (result,) = evaluate(program, {"x": torch.full((4096,), 1.0)}).values()
    # One after the other in float16 they would stop at 2048.
    assert float(result) == 4096
