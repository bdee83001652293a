"""Two processes on the CPU compute what one process computes on the joined batch."""

import json
import subprocess
import sys

import pytest
import torch
import torch.multiprocessing as mp

from mobile_avatar.errors import BadInput
from mobile_avatar.models.bilayer.weights import load_weights
from mobile_avatar.training import distributed
from tests.training import workers


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What one process and what two processes computed."""
    place = tmp_path_factory.mktemp("processes")
    mp.spawn(workers.run, (2, str(place)), nprocs=2)
    workers.run(0, 1, str(place))
    return [torch.load(place / f"{world}.pt", weights_only=True) for world in (1, 2)], place


@pytest.mark.slow
def test_synchronised_batch_norm_equals_batch_norm_on_the_joined_batch(results):
    (one, two), _ = results
    for a, b in zip(one["norm"], two["norm"], strict=True):
        torch.testing.assert_close(b, a, rtol=2e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["base", "updater"])
def test_losses_and_gradients_are_those_of_the_joined_batch(results, stage):
    (one, two), _ = results
    one, two = one[stage], two[stage]
    assert one["losses"].keys() == two["losses"].keys()
    for name, value in one["losses"].items():
        assert two["losses"][name] == pytest.approx(value, rel=1e-6), name
    whole = torch.cat([gradient.flatten() for gradient in one["gradients"]]).norm()
    for a, b in zip(one["gradients"], two["gradients"], strict=True):
        # Biases in front of a batch norm change nothing: their gradients are rounding, small beside all others.
        assert (a - b).norm() < 1e-6 * a.norm() + 1e-10 * whole


@pytest.mark.slow
def test_two_processes_train_like_one_and_write_once(results):
    _, place = results
    rows = [[json.loads(line) for line in (place / f"run{n}" / "metrics.jsonl").open()] for n in (1, 2)]
    assert [row["step"] for row in rows[1]] == [1, 2]
    for one, two in zip(*rows, strict=True):
        for name in ("total", "structural", "uv", "discriminator", "matching"):
            assert two[name] == pytest.approx(one[name], rel=1e-3), name
    assert {path.name for path in (place / "run2").iterdir()} == {path.name for path in (place / "run1").iterdir()}


@pytest.mark.timeout(1000)  # two processes on a machine that may be busy
@pytest.mark.slow
def test_torchrun_starts_the_command(tmp_path):
    command = "train bilayer --data synthetic-stream --preset tiny --steps 1 --batch-size 2 --targets 1 --device cpu"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29618"]
    done = subprocess.run(
        [*launcher, "-m", "mobile_avatar", *command.split(), "--run-dir", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("finished: ") == 1
    model, facts = load_weights(tmp_path / "run" / "weights.safetensors")
    assert model.config.image_size == 64
    assert "rendered on the fly" in facts["trained_on"]


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(BadInput, match="multiple of 3"):
        distributed.share(4)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(BadInput, match="--device nonsense does not work here"):
        distributed.start_processes("nonsense")
