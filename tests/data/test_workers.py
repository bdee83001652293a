"""Jobs on processes: every result, and a death that costs one job."""

import os
import signal

import pytest

from mobile_avatar.data.workers import run_jobs, usable_cores


def square(number: int) -> int:
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def test_a_dead_process_costs_its_job_only():
    done = dict(run_jobs(square, [1, 2, -1, 3, -2, 4], workers=2))
    assert done == {1: 1, 2: 4, -1: None, 3: 9, -2: None, 4: 16}


def test_one_worker_stays_in_this_process():
    assert list(run_jobs(lambda job: (job, os.getpid()), [1, 2], workers=1)) == [(n, (n, os.getpid())) for n in (1, 2)]
    with pytest.raises(ZeroDivisionError):
        list(run_jobs(lambda job: 1 / job, [0], workers=4))
    assert list(run_jobs(square, [], workers=2)) == []
    assert usable_cores() >= 1
