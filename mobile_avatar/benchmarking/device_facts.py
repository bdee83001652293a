"""What a phone says about itself: chip, Android, power, and how hot it is."""

import math
import re
from dataclasses import dataclass

from mobile_avatar.benchmarking.adb import Phone

SECTION = "@@mobile-avatar "
SCRIPT = {
    "properties": "getprop",
    "low_power": "settings get global low_power",
    "airplane": "settings get global airplane_mode_on",
    "governors": "cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    "battery": "dumpsys battery",
}
HEAT_SCRIPT = {"thermal": "dumpsys thermalservice", "battery": "dumpsys battery"}

STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's throttling states by number."""
SKIN = 3
"""Sensor type of Android's thermal service."""
USUAL_SKIN = ("VIRTUAL-SKIN", "skin")
"""What Android's own throttling goes by, where a phone has many sensors of the skin."""
POSSIBLE_C = (0.0, 125.0)
"""Sensors that are not fitted say 0, NaN or something absurd."""


@dataclass(frozen=True)
class DeviceFacts:
    """What stays the same during a run; empty where the phone does not tell."""

    name: str
    """`Pixel 4`."""
    soc: str
    """Chip or board as the system calls it: `SM8550`, `msmnile`."""
    os: str
    abi: str
    """Kind of programs it runs: `arm64-v8a`."""
    power_mode: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Heat:
    """One look at the sensors."""

    throttling: str = ""
    """One of STATUS; empty before Android 10, which does not tell."""
    temperature_c: float | None = None
    sensor: str = ""
    """Which one: `skin sensor VIRTUAL-SKIN`, `battery`."""


def read_facts(phone: Phone) -> DeviceFacts:
    """Ask the phone; what it refuses to tell stays empty."""
    return parse_facts(_ask(phone, SCRIPT))


def read_heat(phone: Phone, like: Heat | None = None) -> Heat:
    """Throttling state and temperature; of the sensor of `like`, so that readings of one run compare."""
    parts = _ask(phone, HEAT_SCRIPT)
    throttling, temperatures = parse_thermal(parts["thermal"])
    battery = parse_battery(parts["battery"]).get("temperature", "")
    if re.fullmatch(r"-?\d+", battery):
        temperatures["battery"] = int(battery) / 10
    sensor = like.sensor if like is not None and like.sensor in temperatures else next(iter(temperatures), "")
    return Heat(throttling, temperatures.get(sensor), sensor)


def parse_facts(parts: dict[str, str]) -> DeviceFacts:
    """The answers to SCRIPT, read."""
    # A value may go over several lines; none of those that are used here does.
    found = dict(re.findall(r"^\[([\w.]+)\]: \[(.*)\]$", parts["properties"], re.MULTILINE))

    def get(*names: str) -> str:
        return next((found[name].strip() for name in names if found.get(name, "").strip()), "")

    release, sdk = get("ro.build.version.release"), get("ro.build.version.sdk")
    maker = get("ro.product.manufacturer")
    return DeviceFacts(
        name=get("ro.product.model") or "unnamed phone",
        soc=get("ro.soc.model", "ro.board.platform", "ro.hardware"),
        os=f"Android {release}" + (f" (SDK {sdk})" if sdk else "") if release else "Android",
        abi=get("ro.product.cpu.abi"),
        power_mode=_power(parts),
        notes=tuple(_notes(parts, maker, get("ro.soc.manufacturer"))),
    )


def parse_thermal(text: str) -> tuple[str, dict[str, float]]:
    """Throttling state, and skin temperatures by sensor, the most telling first (Android 10 to 16).

    The state is empty where the service does not exist or says nothing.
    """
    status = re.search(r"^\s*Thermal Status: (\d+)", text, re.MULTILINE)
    number = int(status[1]) if status else len(STATUS)
    # The cache holds what the last event brought, which may be hours old; the HAL is asked at this moment.
    _, current, rest = text.partition("Current temperatures from HAL:")
    section = rest.partition("Current cooling devices")[0] if current and "Temperature{" in rest else text
    found = {}
    for value, kind, name in re.findall(r"Temperature\{mValue=([^,]+), mType=(-?\d+), mName=([^,}]+)", section):
        celsius = _number(value)
        if int(kind) == SKIN and celsius is not None and POSSIBLE_C[0] < celsius < POSSIBLE_C[1]:
            found[name] = round(celsius, 1)
    order = sorted(found, key=lambda name: (name not in USUAL_SKIN, -found[name], name))
    return STATUS[number] if number < len(STATUS) else "", {f"skin sensor {name}": found[name] for name in order}


def parse_battery(text: str) -> dict[str, str]:
    """The lines `name: value` of `dumpsys battery`."""
    return dict(re.findall(r"^\s*([A-Za-z][\w ]*): (\S+)\s*$", text, re.MULTILINE))


def _power(parts: dict[str, str]) -> str:
    battery = parse_battery(parts["battery"])
    sources = [name.removesuffix(" powered") for name in battery if name.endswith(" powered")]
    by = [name for name in sources if battery[f"{name} powered"] == "true"]
    words = {"0": "battery saver off", "1": "battery saver on"}
    said = [words.get(parts["low_power"].strip(), "")]
    if sources:
        said.append(f"powered by {' and '.join(by)}" if by else "on battery")
    if battery.get("level", "").isdigit():
        said.append(f"battery at {battery['level']} %")
    return ", ".join(filter(None, said))


def _notes(parts: dict[str, str], maker: str, chip_maker: str) -> list[str]:
    notes = [f"{what} made by {name}" for what, name in (("phone", maker), ("chip", chip_maker)) if name]
    if parts["low_power"].strip() == "1":
        notes.append("the battery saver is on and holds the clocks down; switch it off to measure")
    if parts["airplane"].strip() == "0":
        notes.append("airplane mode is off: what the phone does in the background may disturb the times")
    governors = sorted(set(re.findall(r"^\w+$", parts["governors"], re.MULTILINE)))
    if governors:
        notes.append(f"CPU governor: {', '.join(governors)}")
    return notes


def _ask(phone: Phone, script: dict[str, str]) -> dict[str, str]:
    """Run all lines in one go; name -> what it printed."""
    lines = [f"echo; echo '{SECTION}{name}'; {line} 2>/dev/null" for name, line in script.items()]
    text = phone.shell("\n".join(lines))[1]
    answers = dict.fromkeys(script, "")
    for part in text.split(f"\n{SECTION}")[1:]:
        name, _, answer = part.partition("\n")
        answers[name.strip()] = answer
    return answers


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
