"""What this computer says of itself: processor, system, temperature, power mode, memory of this process."""

import os
import platform
from pathlib import Path

INT8_FLAGS = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm")
"""Instructions that multiply and add 8-bit integers in one step; names as Linux lists them."""


def processor() -> str:
    """Name of the processor and whether it multiplies 8-bit integers in one instruction."""
    text = _read(Path("/proc/cpuinfo"))
    if not text:
        return platform.processor() or platform.machine()
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "unknown")
    found = [flag for flag in INT8_FLAGS if flag in text.split()]
    return f"{name}, 8-bit dot products: {', '.join(found) or 'none'}"


def temperature_c() -> float | None:
    """The hottest sensor; None where the system shows none, as most virtual machines do."""
    values = [_read(path).strip() for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(value) / 1000 for value in values if value.lstrip("-").isdigit()]
    return max(degrees, default=None)


def power_mode() -> str:
    """The frequency governor of the first core; empty where the system does not tell."""
    return _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")).strip()


def resident_mb() -> float | None:
    """Memory of this process that is in RAM, in MB; None where the system does not tell."""
    fields = _read(Path("/proc/self/statm")).split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if len(fields) > 1 else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
