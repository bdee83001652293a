"""The budget gate: which figure is judged, of which kind, and whether it is within the budget."""

from dataclasses import dataclass

from mobile_avatar.benchmarking.devices import same_device
from mobile_avatar.benchmarking.result import Result

RANK = ("measured", "simulated", "estimated")
"""The better kind first."""


@dataclass(frozen=True)
class Verdict:
    """The answer of the gate."""

    passed: bool
    sentence: str
    """Which figure was judged, of which kind, against what; or why there was none."""
    judged: Result | None


def judge(
    results: list[Result], device: str | None, budget_ms: float, statistic: str = "p50", require: str = "estimated"
) -> Verdict:
    """Hold the best figure against a budget.

    Only rows of the bundle's own model file count. The best kind wins (measured, simulated, estimated); within it
    the fastest row whose outputs were not found wrong, since that is the one an app would use.

    Args:
        results: rows of this bundle's model file.
        device: only figures of this device count; None for those of any.
        budget_ms: most milliseconds per frame.
        statistic: `p50`, `p90` or `p99`; tools that give only a mean are judged by it, and the sentence says so.
        require: the worst kind that may be judged.
    """
    allowed = RANK[: RANK.index(require) + 1]
    rows = [row for row in results if row.own_file and not row.error and row.figure(statistic)[1] is not None]
    rows = [row for row in rows if device is None or same_device(row, device)]
    right = [row for row in rows if all(check["passed"] is not False for check in row.parity)]
    fit = [row for row in right if row.kind in allowed]
    if not fit:
        where = "any device" if device is None else device
        found = ", ".join(sorted({row.kind for row in right})) or "none"
        wrong = "; rows whose outputs are wrong do not count" if len(right) < len(rows) else ""
        sentence = (
            f"no {' or '.join(allowed)} figure of this model file for {where} (found: {found}{wrong}); "
            "measure it with `mobile-avatar benchmark BUNDLE --on adb` or `--on aihub`"
        )
        return Verdict(False, sentence, None)
    best = min(fit, key=lambda row: (RANK.index(row.kind), row.figure(statistic)[1]))
    name, value = best.figure(statistic)
    what = best.kind if best.kind == "estimated" else f"{best.kind} {name}"
    spread = "" if best.low_ms is None else f" ({best.low_ms:.1f} to {best.high_ms:.1f})"
    passed = value <= budget_ms
    sentence = (
        f"{what} {value:.2f} ms{spread}, {best.title} on {best.device}, "
        f"is {'within' if passed else 'over'} the budget of {budget_ms:g} ms"
    )
    return Verdict(passed, sentence, best)
