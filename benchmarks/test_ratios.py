"""Ratios between runtimes against the saved ones of this processor: pytest benchmarks/test_ratios.py"""

import pytest

from benchmarks.frames import VARIANTS
from benchmarks.ratios import measure, ratios, saved

ROUNDS = 15
ALLOWED = 0.75
"""Smallest share of a saved ratio; quartiles of one run on a shared machine lie within 10 %."""


@pytest.mark.benchmark(group="ratios to torch, official structure")
def test_no_runtime_lost_ground(benchmark) -> None:
    known = saved()
    if known is None:
        pytest.skip("no ratios were saved for this processor: python -m benchmarks.ratios --save")
    names = [name for name in VARIANTS if name in known]
    times = benchmark.pedantic(lambda: measure(names, ROUNDS), rounds=1)
    found = ratios(times)
    benchmark.extra_info |= {"ratios": found, "saved": known}
    lost = {name: (ratio, known[name]) for name, ratio in found.items() if ratio < ALLOWED * known[name]}
    assert not lost, f"slower than saved (now, saved): {lost}"
