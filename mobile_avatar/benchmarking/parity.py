"""Outputs that came back from a device, beside the golden ones of the bundle."""

import numpy as np

from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.verification.parity import THRESHOLDS, compare, unmeasured
from mobile_avatar.verification.verify import composite_results


def parity_rows(subject: Subject, runner: str, outputs: dict[str, np.ndarray]) -> tuple[dict, ...]:
    """Rows as in a manifest, one per output and one for the composited image of a split bundle.

    Args:
        runner: where the outputs come from, as the rows name it.
        outputs: name -> (T, ...) real numbers for all T golden cases, shaped as the manifest says. Another shape
            makes a row that failed.
    """
    results = dict(outputs)
    threshold = THRESHOLDS[subject.precision]
    whole = all(results[t.name].shape == (len(subject.golden(t)), *t.shape[1:]) for t in subject.spec.outputs)
    if subject.composed and whole:
        config = subject.manifest["avatar"]["config"]
        results["image"] = composite_results(subject.folder, subject.spec, config, results)
    return tuple(
        compare(t, runner, results[t.name], subject.golden(t), threshold).to_dict()
        for t in subject.judged
        if t.name in results
    )


def missing_rows(subject: Subject, runner: str, reason: str) -> tuple[dict, ...]:
    """Rows that say why nothing could be compared."""
    threshold = THRESHOLDS[subject.precision]
    return tuple(
        unmeasured(t, runner, len(subject.golden(t)), threshold, None, reason).to_dict() for t in subject.judged
    )
