import pytest

from mobile_avatar.benchmarking.estimate import ANCHORS, budget, estimate


def test_the_published_frame_gives_the_published_time():
    anchor = ANCHORS["snapdragon-855"]
    assert (anchor.macs, anchor.milliseconds) == (4_310_000_000, 42.0)
    assert estimate(anchor.macs)["estimate_ms"] == 42.0


def test_time_is_proportional_and_labelled_as_an_estimate():
    result = estimate(3_945_000_000, "snapdragon-855")
    assert result["estimate_ms"] == pytest.approx(42 * 3.945 / 4.31, abs=0.05)
    assert result["kind"] == "estimate"
    for said in ("scaled", "42 ms", "4.31 GMAC", "not measured", "left out"):
        assert said in result["method"]


def test_a_device_without_a_published_time_gets_a_reason_instead_of_a_number():
    result = estimate(3_945_000_000, "snapdragon-8-elite")
    assert result["estimate_ms"] is None
    assert "snapdragon-8-elite" in result["method"]
    assert budget(1, "snapdragon-8-elite", 42)["passed"] is None


@pytest.mark.parametrize(("limit", "passed"), [(42.0, True), (21.0, True), (20.9, False)])
def test_the_budget_is_met_up_to_its_limit(limit, passed):
    row = budget(2_155_000_000, "snapdragon-855", limit)
    assert (row["estimate_ms"], row["budget_ms"], row["passed"]) == (21.0, limit, passed)
