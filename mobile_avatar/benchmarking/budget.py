"""The frame budget: an estimate beside what it may be."""

from mobile_avatar.benchmarking.estimate import estimate

DEVICE = "snapdragon-855"  # the only chip with a published frame time of this model
BUDGET_MS = 42.0


def budget(macs: int, budget_ms: float | None = None) -> dict:
    """The manifest's `budget` for a graph of `macs` multiply-accumulates per frame; 42 ms by default.

    `passed` is None when nothing could be estimated.
    """
    result = estimate(macs, DEVICE)
    limit = BUDGET_MS if budget_ms is None else budget_ms
    passed = None if result["estimate_ms"] is None else result["estimate_ms"] <= limit
    return result | {"budget_ms": limit, "passed": passed}
