"""Reading the profile of a job on Qualcomm AI Hub: its microseconds, bytes and operators as fields of a `Result`."""

from collections import Counter
from numbers import Integral, Real

from mobile_avatar.benchmarking.result import OperatorTime, steady
from mobile_avatar.errors import CheckFailed


def read_profile(profile: object, asked: str) -> dict:
    """What a profile says, for `replace(result, **read_profile(...))`.

    Args:
        profile: `download_profile()` of a finished job: `execution_summary` (times in us, memory in bytes) and
            `execution_detail`, one entry per operator.
        asked: the compute unit that the job was submitted with.

    Returns:
        Fields of a `Result`: percentiles are of the single runs after the first, load is the first load on the
        device, `delegate` is what did the work. `notes` tell of operators that ran on the CPU though a GPU or NPU was
        asked for, and hold the service's own figures.

    Raises:
        CheckFailed: a part is missing or is not what the service documents; names the part.
    """
    summary = _part(profile, "execution_summary", dict)
    operators = tuple(_operator(entry, n) for n, entry in enumerate(_part(profile, "execution_detail", list)))
    times = [_number(us, f"all_inference_times[{n}]") / 1e3 for n, us in enumerate(_times(summary))]
    if len(times) == 1:
        raise CheckFailed("the profile holds a single run, the first, which is not a steady one")
    peak = _range(summary, "inference_memory_peak_range")
    delegate, fallback = _placement(operators, asked)
    return {
        "load_ms": _optional_ms(summary, "first_load_time"),
        "first_ms": times[0],
        **steady(times[1:]),
        "memory_mb": None if peak is None else round(peak[1] / 1e6, 2),
        "memory_what": "" if peak is None else "peak while running, upper end of the service's range",
        "operators": operators,
        "delegate": delegate,
        "notes": (*fallback, *_notes(summary, times, operators)),
    }


def _part(content: object, name: str, kind: type) -> object:
    """Take `content[name]`, which has to be a dict or list."""
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, kind):
        raise CheckFailed(f"the profile has no {name}")
    return found


def _times(summary: dict) -> list:
    times = summary.get("all_inference_times")
    if not isinstance(times, list | tuple) or not times:
        own = _optional_ms(summary, "estimated_inference_time")
        told = "" if own is None else f" (the service's own figure is {own:g} ms, which is no percentile)"
        raise CheckFailed(f"the profile has no times of single runs, all_inference_times{told}")
    return list(times)


def _number(value: object, name: str) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise CheckFailed(f"the profile's {name} is {value!r}, not a time or size")
    return float(value)


def _optional_ms(summary: dict, name: str) -> float | None:
    """Milliseconds of a time that older services leave out."""
    value = summary.get(name)
    return None if value is None else round(_number(value, name) / 1e3, 4)


def _range(summary: dict, name: str) -> tuple[float, float] | None:
    value = summary.get(name)
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise CheckFailed(f"the profile's {name} is {value!r}, not a lower and an upper end")
    low, high = (_number(end, name) for end in value)
    return low, high


def _operator(entry: object, number: int) -> OperatorTime:
    name = f"execution_detail[{number}]"
    if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in ("name", "type", "compute_unit")):
        raise CheckFailed(f"the profile's {name} does not give name, type and compute_unit")
    unit = "" if entry["compute_unit"] == "UNSPECIFIED" else entry["compute_unit"]
    us = entry.get("execution_time")
    if us is not None and not isinstance(us, Integral):
        raise CheckFailed(f"the profile's {name}.execution_time is {us!r}, not whole microseconds")
    ms = None if us is None else round(_number(us, f"{name}.execution_time") / 1e3, 4)
    return OperatorTime(entry["name"], entry["type"], unit, ms)


def _placement(operators: tuple[OperatorTime, ...], asked: str) -> tuple[str, tuple[str, ...]]:
    """`GPU 98 of 100 operators`, and a note about those that ran on the CPU unasked."""
    counts = Counter(operator.unit for operator in operators if operator.unit)
    if not counts:
        return "", ()
    unit, most = counts.most_common(1)[0]
    where = unit if most == len(operators) else f"{unit} {most} of {len(operators)} operators"
    if asked not in ("gpu", "npu") or not counts["CPU"]:
        return where, ()
    if counts["CPU"] == len(operators):
        return "CPU (fallback)", (f"everything ran on the CPU, though the {asked.upper()} was asked for",)
    kinds = ", ".join(sorted({operator.type for operator in operators if operator.unit == "CPU"}))
    told = f"{counts['CPU']} of {len(operators)} operators ran on the CPU, though the {asked.upper()} was asked for"
    return where, (f"{told}: {kinds}",)


def _notes(summary: dict, times: list[float], operators: tuple[OperatorTime, ...]) -> tuple[str, ...]:
    notes = []
    own = _optional_ms(summary, "estimated_inference_time")
    if own is not None:
        meaning = ", its fastest run" if own == round(min(times), 4) else ""
        notes.append(f"the service's own figure is {own:g} ms{meaning}; the percentiles here are of its single runs")
    warm = _optional_ms(summary, "warm_load_time")
    if warm is not None:
        notes.append(f"loading again took {warm:g} ms")
    if any(operator.ms is not None for operator in operators):
        notes.append(
            "times of operators are each one's fastest and come from another run: they do not add up to a frame"
        )
    return tuple(notes)
