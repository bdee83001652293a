"""Profiles of AI Hub: what becomes of their figures, and what is said about those that make no sense.

`aihub-profile.json` has the shape that qai-hub 0.56 returns. Its memory, its loads and the service's own figure are
those of that library's own test of the conversion (`qai_hub/test/test_client.py`); the list of runs and the operators
are shortened and carry our model's names.
"""

import copy
import json
import math
from pathlib import Path

import pytest

from mobile_avatar.benchmarking.aihub_profile import read_profile
from mobile_avatar.benchmarking.result import OperatorTime
from mobile_avatar.errors import CheckFailed

SAMPLE = json.loads((Path(__file__).parent / "recorded" / "aihub-profile.json").read_text())


def changed(*path: str | int, to: object) -> dict:
    """The sample with one part replaced, or removed where `to` is `...`."""
    profile = copy.deepcopy(SAMPLE)
    part = profile
    for step in path[:-1]:
        part = part[step]
    if to is ...:
        del part[path[-1]]
    else:
        part[path[-1]] = to
    return profile


def test_figures_are_of_the_runs_after_the_first():
    found = read_profile(SAMPLE, "gpu")
    assert found["first_ms"] == 10.003
    assert (found["runs"], found["p50_ms"], found["mean_ms"]) == (10, 3.701, 3.7852)
    assert found["p90_ms"] == pytest.approx(4.1105)
    assert (found["load_ms"], found["memory_mb"]) == (1374.293, 39.41)
    assert found["operators"][0] == OperatorTime("stem/conv", "CONV_2D", "GPU", 0.127)
    assert found["operators"][2].ms is None


def test_the_services_own_figure_is_named_as_what_it_is():
    notes = read_profile(SAMPLE, "gpu")["notes"]
    assert any("own figure is 3.652 ms, its fastest run" in note for note in notes)
    other = changed("execution_summary", "estimated_inference_time", to=3800)
    told = next(note for note in read_profile(other, "gpu")["notes"] if "own figure" in note)
    assert "3.8 ms" in told
    assert "fastest" not in told


def test_operators_on_the_cpu_are_told_where_another_unit_was_asked_for():
    found = read_profile(SAMPLE, "gpu")
    assert found["delegate"] == "GPU 3 of 4 operators"
    assert "1 of 4 operators ran on the CPU, though the GPU was asked for: TRANSPOSE" in found["notes"]
    assert not any("asked for" in note for note in read_profile(SAMPLE, "all")["notes"])
    everything = copy.deepcopy(SAMPLE)
    for entry in everything["execution_detail"]:
        entry["compute_unit"] = "CPU"
    assert read_profile(everything, "npu")["delegate"] == "CPU (fallback)"
    assert read_profile(everything, "cpu")["delegate"] == "CPU"


def test_units_that_the_service_does_not_tell_are_empty():
    unknown = changed("execution_detail", 0, "compute_unit", to="UNSPECIFIED")
    assert read_profile(unknown, "gpu")["operators"][0].unit == ""
    none = changed("execution_detail", to=[])
    assert (read_profile(none, "gpu")["delegate"], read_profile(none, "gpu")["operators"]) == ("", ())


def test_what_older_services_leave_out_stays_empty():
    profile = copy.deepcopy(SAMPLE)
    for name in ("first_load_time", "warm_load_time", "inference_memory_peak_range", "estimated_inference_time"):
        profile["execution_summary"][name] = None
    found = read_profile(profile, "gpu")
    assert (found["load_ms"], found["memory_mb"], found["memory_what"]) == (None, None, "")


@pytest.mark.parametrize(
    ("profile", "named"),
    [
        (None, "execution_summary"),
        ({}, "execution_summary"),
        ([], "execution_summary"),
        (changed("execution_summary", to=[1]), "execution_summary"),
        (changed("execution_detail", to=...), "execution_detail"),
        (changed("execution_detail", to={}), "execution_detail"),
        (changed("execution_detail", 1, to="relu"), r"execution_detail\[1\]"),
        (changed("execution_detail", 1, "type", to=...), r"execution_detail\[1\]"),
        (changed("execution_detail", 1, "compute_unit", to=3), r"execution_detail\[1\]"),
        (
            changed("execution_detail", 1, "execution_time", to="fast"),
            r"execution_detail\[1\].execution_time is 'fast'",
        ),
        (changed("execution_detail", 1, "execution_time", to=-1), r"execution_detail\[1\].execution_time is -1"),
        (changed("execution_summary", "all_inference_times", 1, to="4205"), r"all_inference_times\[1\] is '4205'"),
        (changed("execution_summary", "all_inference_times", 1, to=math.nan), r"all_inference_times\[1\] is nan"),
        (changed("execution_summary", "all_inference_times", 1, to=True), r"all_inference_times\[1\] is True"),
        (changed("execution_summary", "all_inference_times", 1, to=None), r"all_inference_times\[1\] is None"),
        (changed("execution_summary", "all_inference_times", to=...), "3.652 ms, which is no percentile"),
        (changed("execution_summary", "all_inference_times", to=[]), "no times of single runs"),
        (changed("execution_summary", "all_inference_times", to=[4205]), "a single run"),
        (changed("execution_summary", "inference_memory_peak_range", to=5), "inference_memory_peak_range is 5"),
        (changed("execution_summary", "inference_memory_peak_range", to=[1]), "inference_memory_peak_range"),
        (changed("execution_summary", "inference_memory_peak_range", to=[1, -2]), "inference_memory_peak_range is -2"),
        (changed("execution_summary", "first_load_time", to="soon"), "first_load_time is 'soon'"),
    ],
)
def test_parts_that_make_no_sense_are_named(profile, named):
    with pytest.raises(CheckFailed, match=named):
        read_profile(profile, "gpu")
