"""The budget gate: which figure is judged, of which kind, and whether it is within the budget."""

from dataclasses import dataclass

from mobile_avatar.benchmarking.devices import same_device
from mobile_avatar.benchmarking.result import Result

RANK = ("measured", "simulated", "estimated")
"""The better kind first."""
LEFT_OUT = {False: "the draw call is", True: "the draw call and the mesh graph are"}
"""Of a frame of several graphs, by whether it is an estimate."""


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

    Only rows of the bundle's own model file count, and of bundles of several graphs those of all graphs together
    (`Result.whole`), where the sentence says that the draw call is not in it. The best kind wins (measured, simulated,
    estimated), within it rows whose outputs were compared and found right, then those that were not compared (the
    sentence says so); among these the fastest, since that is the one an app would use. Rows whose outputs are wrong
    never count.

    Args:
        results: rows of this bundle's model file.
        device: only figures of this device count; None for those of any.
        budget_ms: most milliseconds per frame.
        statistic: `p50`, `p90` or `p99`. For p50 a mean stands in where a tool gives nothing else, and an estimate is
            taken as it is; neither says anything about p90 and p99.
        require: the worst kind that may be judged.
    """
    allowed = RANK[: RANK.index(require) + 1]
    own = [row for row in results if row.own_file and row.whole and (device is None or same_device(row, device))]
    rows = [row for row in own if not row.error and row.figure(statistic)[1] is not None]
    right = [row for row in rows if all(check["passed"] is not False for check in row.parity)]
    fit = [row for row in right if row.kind in allowed]
    if not fit:
        return Verdict(False, _nothing(own, right, len(right) < len(rows), device, allowed, statistic), None)
    best = min(fit, key=lambda row: (RANK.index(row.kind), not _compared(row), row.figure(statistic)[1]))
    name, value = best.figure(statistic)
    what = best.kind if best.kind == "estimated" else f"{best.kind} {name}"
    spread = "" if best.low_ms is None else f" ({best.low_ms:.2f} to {best.high_ms:.2f})"
    passed = value <= budget_ms
    unproven = "" if best.kind == "estimated" or _compared(best) else "; its outputs were not compared"
    drawn = f"; {LEFT_OUT[best.kind == 'estimated']} not in it" if best.graph else ""
    sentence = (
        f"{what} {value:.2f} ms{spread}, {best.title} on {best.device}, "
        f"is {'within' if passed else 'over'} the budget of {budget_ms:g} ms{drawn}{unproven}"
    )
    return Verdict(passed, sentence, best)


def _compared(row: Result) -> bool:
    return bool(row.parity) and all(check["passed"] for check in row.parity)


def _nothing(
    own: list[Result], right: list[Result], wrong: bool, device: str | None, allowed: tuple[str, ...], statistic: str
) -> str:
    """Why nothing could be judged, and what to do."""
    where = "any device" if device is None else device
    found = ", ".join(sorted({row.kind for row in right})) or "none"
    refused = next((row.error for row in reversed(own) if row.kind == "estimated" and row.error), "")
    sentence = f"no {' or '.join(allowed)} {statistic} of this model file for {where} (found: {found})"
    if wrong:
        sentence += "; rows whose outputs are wrong do not count"
    if refused:
        return f"{sentence}; {refused}"
    return f"{sentence}; measure it with `mobile-avatar benchmark BUNDLE --on adb` or `--on aihub`"
