"""Results as devices would leave them in a bundle; the numbers are made up and say nothing about any phone."""

from mobile_avatar.benchmarking.result import Minute, OperatorTime, Result
from mobile_avatar.benchmarking.store import Journal
from mobile_avatar.benchmarking.subject import Subject

TAKEN = "2026-01-02T03:04:05+00:00"


def host_row(subject: Subject, **changes: object) -> Result:
    """A runtime timed on a computer."""
    values = {
        "kind": "measured",
        "place": "host",
        "device": "this host",
        "runtime": "litert",
        "precision": subject.precision,
        "taken": TAKEN,
        "model_sha256": subject.model_sha256,
        "scope": "frame",
        "soc": "a processor",
        "delegate": "XNNPACK",
        "threads": 1,
        "load_ms": 20.0,
        "first_ms": 9.0,
        "runs": 50,
        "p50_ms": 8.0,
        "p90_ms": 8.5,
        "p99_ms": 9.0,
        "composite_p50_ms": 0.5,
        "method": "timed in turns",
    }
    return Result(**values | changes)


def phone_row(subject: Subject, **changes: object) -> Result:
    """A phone: operators by unit, heat, a long run, outputs that were compared."""
    values = {
        "kind": "measured",
        "place": "adb",
        "device": "A Phone",
        "runtime": "litert",
        "precision": subject.precision,
        "taken": TAKEN,
        "model_sha256": subject.model_sha256,
        "soc": "SM8150",
        "os": "Android 12",
        "delegate": "GPU",
        "power_mode": "burst",
        "temperature_before_c": 31.5,
        "temperature_after_c": 36.0,
        "thermal_before": "none",
        "thermal_after": "light",
        "runs": 50,
        "mean_ms": 5.2,
        "p50_ms": 5.0,
        "operators": (
            OperatorTime("conv1", "CONV_2D", "GPU", 2.5),
            OperatorTime("conv2", "CONV_2D", "GPU", 1.5),
            OperatorTime("reshape", "RESHAPE", "CPU", 0.5),
            OperatorTime("pad", "PAD", "", None),
        ),
        "sustained": tuple(Minute(i, 9000 - 300 * i, 5.0 + 0.3 * i, 36.0 + i) for i in range(1, 7)),
        "parity": ({"output": "image", "psnr_db": 64.2, "passed": True},),
        "jobs": ({"id": "j1", "type": "profile", "status": "done", "url": "https://jobs.example/j1"},),
        "method": "the tool's own clock",
        "command": "benchmark_model --graph=render.tflite",
    }
    return Result(**values | changes)


def store(subject: Subject, *results: Result, place: str = "adb") -> None:
    """Put rows into a bundle as a run would."""
    journal = Journal(subject, place)
    for result in results:
        journal.add(result)
