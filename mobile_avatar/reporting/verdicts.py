"""The answers of the head of a page: is it right, is it what was exported, is it fast enough."""

from dataclasses import dataclass

from mobile_avatar.benchmarking.estimate import BUDGET_MS
from mobile_avatar.benchmarking.gate import judge
from mobile_avatar.benchmarking.result import Result
from mobile_avatar.exporters.registry import INTEGER
from mobile_avatar.reporting.clean import mapping, number, passed, text
from mobile_avatar.reporting.frames import LEVELS
from mobile_avatar.reporting.latency import count, figure

HASHES = "file hashes"
"""The check that has a verdict of its own."""
SHOWN = 3
"""Changed files that the head names."""


@dataclass(frozen=True)
class Verdict:
    """One answer of the head of the page."""

    state: bool | None
    word: str
    sentence: str
    kind: str = ""
    """`measured`, `simulated` or `estimated`, where it rests on such a number."""


@dataclass(frozen=True)
class File:
    """One file of the bundle."""

    path: str
    bytes: int
    """As it lies on disk; 0 when it is missing."""
    part: str
    """`model`, `texture`, `shader`, or `checks` for what an app does not carry."""
    wrong: str
    """Empty, or what is wrong with it."""


def hash_verdict(files: list[File]) -> Verdict:
    """Whether every file is the one that was exported."""
    wrong = [file.wrong for file in files if file.wrong]
    if not wrong:
        return Verdict(True, "unchanged", f"All {len(files)} files are those that were exported")
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return Verdict(False, "changed", f"{'; '.join(wrong[:SHOWN])}{more}. Export the bundle again")


def parity_verdict(precision: str, parity: list[dict], checks: list[dict], trouble: str, files: list[File]) -> Verdict:
    """Whether the model file computes what torch computes; a file that is not the model is no matter of parity.

    Args:
        parity: rows of this run.
        checks: rows of the further checks.
        trouble: why the golden cases could not be used; empty when they could.
    """
    changed = [file for file in files if file.wrong]
    if trouble:
        others = changed and not any(file.part == "model" for file in changed)
        return Verdict(None, "not run", trouble) if others else Verdict(False, "failed", trouble)
    checks = [row for row in checks if row["name"] != HASHES]
    states = [passed(row.get("passed")) for row in (*parity, *checks)]
    golden = [file.wrong for file in changed if file.path.startswith("golden/")]
    if golden and parity and parity[0]["psnr_db"] is not None:
        return Verdict(None, "not judged", f"{golden[0]}, so the file was held against something else than torch drew")
    if False in states:
        return Verdict(False, "failed", "; ".join(dict.fromkeys(_failures(parity, checks))))
    if not parity or None in states:
        reasons = [row.get("reason") or row.get("detail") for row in (*parity, *checks) if row["passed"] is None]
        return Verdict(None, "not run", "; ".join(dict.fromkeys(text(reason) for reason in reasons)))
    worst = min(parity, key=lambda row: row["psnr_db"] - row["threshold_db"])
    kind = "simulated" if "simulat" in worst["runner"] else "measured"
    found = f"worst {worst['output']}, {worst['psnr_db']:.1f} dB (at least {worst['threshold_db']:g})"
    if precision in INTEGER:
        image = next((row["max_abs"] for row in parity if row["output"] == "image"), None)
        off = "" if image is None else f", at most {image * LEVELS:.0f} of 255 levels off in one pixel of the image"
        return Verdict(True, "passed", f"Within the gate of {precision}: {found}{off}, in {worst['runner']}", kind)
    return Verdict(True, "passed", f"The file computes what torch computes: {found}, in {worst['runner']}", kind)


def _failures(parity: list[dict], checks: list[dict]) -> list[str]:
    bad = [text(row["reason"]) for row in parity if row["passed"] is False and row.get("reason")]
    bad += [
        f"{row['output']} reaches {row['psnr_db']:.1f} dB of {row['threshold_db']:g}"
        for row in parity
        if row["passed"] is False and row["psnr_db"] is not None
    ]
    said = [(text(row["name"]), text(row["detail"])) for row in checks if row["passed"] is False]
    return bad + [f"{name}: {detail}" for name, detail in said if not any(detail in words for words in bad)]


def budget_verdict(
    manifest: dict, device: str, results: list[Result], estimate: tuple[Result | None, str], notes: list[str]
) -> Verdict:
    """Hold the best figure against the budget of the bundle.

    Args:
        results: measured and simulated rows.
        estimate: the estimate, or None and why there is none.
        notes: about stored rows that do not count.
    """
    limit = number(mapping(manifest.get("budget")).get("budget_ms"))
    limit = limit if limit is not None and limit > 0 else BUDGET_MS
    row, reason = estimate
    shown = [result for result in results if figure(result)[1] is not None]
    verdict = judge([*shown, *([row] if row else [])], device, limit)
    if verdict.judged is None:
        if notes and not shown:
            return Verdict(None, "not judged", notes[0])
        why = f"No estimate: {reason}. " if reason else ""
        return Verdict(None, "not judged", why + _sentence(verdict.sentence))
    runs = count(verdict.judged)
    sentence = _sentence(verdict.sentence) + (f" ({runs})" if runs else "")
    return Verdict(verdict.passed, "within" if verdict.passed else "over", sentence, verdict.judged.kind)


def _sentence(words: str) -> str:
    return text(words[:1].upper() + words[1:])
