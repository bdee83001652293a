"""Frame time without a phone: scaled from a published measurement, and labelled as the estimate it is."""

from dataclasses import dataclass

from mobile_avatar.benchmarking.result import Result, now
from mobile_avatar.benchmarking.subject import Subject

BUDGET_MS = 42.0


@dataclass(frozen=True)
class Anchor:
    """A published measurement that other graphs are scaled from."""

    title: str
    macs: int
    """Multiply-accumulates of the measured frame."""
    milliseconds: float
    source: str


ANCHORS: dict[str, Anchor] = {
    "snapdragon-855": Anchor(
        "Snapdragon 855 (Adreno 640, FP16)",
        4_310_000_000,
        42.0,
        "bi-layer avatars (Zakharov et al., ECCV 2020), medium model, SNPE",
    ),
}


def estimate(macs: int, device: str = "snapdragon-855") -> dict:
    """Milliseconds per frame in proportion to the multiply-accumulates.

    Args:
        macs: multiply-accumulates of one frame (`graphs.onnx_graph.count`).
        device: name of a phone chip.

    Returns:
        `device`, `estimate_ms` (None where no published frame time exists), `kind` ("estimate") and `method`, one
        sentence that says how the number came about and what it leaves out, or why there is none.
    """
    result = {"device": device, "estimate_ms": None, "kind": "estimate"}
    anchor = ANCHORS.get(device)
    if anchor is None:
        known = ", ".join(ANCHORS)
        method = f"no frame time of this model was published for {device}, so nothing can be scaled (known: {known})"
        return {**result, "method": method}
    result["estimate_ms"] = round(anchor.milliseconds * macs / anchor.macs, 1)
    result["method"] = (
        f"{macs / 1e9:.3f} GMAC scaled in proportion from the published {anchor.milliseconds:g} ms at "
        f"{anchor.macs / 1e9:.2f} GMAC on {anchor.title} ({anchor.source}); not measured: memory traffic, "
        "element-wise layers, the warp and composition, copies of inputs and outputs, and throttling are left out"
    )
    return result


def budget(macs: int, device: str = "snapdragon-855", budget_ms: float | None = None) -> dict:
    """The manifest's `budget`: the estimate beside its limit (42 ms by default).

    `passed` is None where there is no estimate.
    """
    limit = BUDGET_MS if budget_ms is None else budget_ms
    result = estimate(macs, device)
    milliseconds = result["estimate_ms"]
    return {**result, "budget_ms": limit, "passed": None if milliseconds is None else milliseconds <= limit}


def estimate_result(subject: Subject, device: str) -> Result:
    """The estimate of a bundle for one chip as a row beside measured ones."""
    row = estimate(subject.manifest["macs"], device)
    milliseconds = row["estimate_ms"]
    return Result(
        kind="estimated",
        place="estimate",
        device=device,
        runtime="scaled",
        precision=subject.precision,
        taken=now(),
        model_sha256=subject.model_sha256,
        mean_ms=milliseconds,
        method="" if milliseconds is None else row["method"],
        error=row["method"] if milliseconds is None else "",
    )
