"""What phones say about themselves.

Recorded: `getprop`, `dumpsys battery` and `dumpsys thermalservice` of Android 10 (Pixel), 12 (Galaxy A) and 14 (Galaxy
S, Pixel), shortened, with some values changed.
"""

import shutil

import pytest

from mobile_avatar.benchmarking.adb import connect
from mobile_avatar.benchmarking.device_facts import Heat, parse_battery, parse_thermal, read_facts, read_heat
from mobile_avatar.benchmarking.devices import chip_called
from tests.benchmarking.scripted_phone import RECORDED, ScriptedPhone


@pytest.fixture
def scripted(tmp_path, monkeypatch) -> ScriptedPhone:
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    return ScriptedPhone(tmp_path / "phone")


def sample(name: str) -> str:
    return (RECORDED / f"adb-{name}.txt").read_text()


def test_an_older_phone(scripted):
    facts = read_facts(connect(scripted))
    assert (facts.name, facts.soc, facts.os, facts.abi) == ("Pixel 4", "msmnile", "Android 10 (SDK 29)", "arm64-v8a")
    assert chip_called(facts.soc) == chip_called("snapdragon-855") is not None
    assert facts.power_mode == "battery saver off, powered by USB, battery at 87 %"
    assert facts.notes == ("phone made by Google",)


def test_a_newer_phone_that_is_not_ready_to_be_measured(scripted):
    scripted.answer("properties", sample("getprop-android14"))
    scripted.answer("battery", sample("battery-android14"))
    scripted.answer("low_power", "1\n")
    scripted.answer("airplane_mode_on", "0\n")
    facts = read_facts(connect(scripted))
    assert (facts.name, facts.soc, facts.os) == ("SM-S911B", "SM8550", "Android 14 (SDK 34)")
    assert chip_called(facts.soc).name == "snapdragon-8-gen-2"
    assert facts.power_mode == "battery saver on, on battery, battery at 54 %"
    assert facts.notes[:2] == ("phone made by samsung", "chip made by QTI")
    assert any("airplane mode is off" in note for note in facts.notes)
    assert any("battery saver is on and holds the clocks down" in note for note in facts.notes)


def test_a_phone_that_tells_nothing(scripted):
    for path in (scripted.root / "answers").iterdir():
        path.unlink()
    facts = read_facts(connect(scripted))
    assert (facts.name, facts.soc, facts.os, facts.abi, facts.power_mode) == ("unnamed phone", "", "Android", "", "")
    assert read_heat(connect(scripted)) == Heat()


def test_governors_are_read_where_they_can_be(scripted):
    cat = scripted.root / "bin" / "cat"
    real = shutil.which("cat")
    cat.write_text(
        f'#!/bin/sh\ncase $1 in /sys/*) echo schedutil; echo schedutil; echo walt;; *) exec {real} "$@";; esac\n'
    )
    cat.chmod(0o755)
    assert "CPU governor: schedutil, walt" in read_facts(connect(scripted)).notes


@pytest.mark.parametrize(
    ("version", "status", "temperatures"),
    [
        ("android10", "none", {"skin sensor mb-therm-monitor": 33.3}),
        ("android12", "none", {"skin sensor LRB": 24.7, "skin sensor LRF": 24.7}),
        ("android14", "moderate", {"skin sensor VIRTUAL-SKIN": 41.8, "skin sensor VIRTUAL-SKIN-HINT": 43.9}),
    ],
)
def test_thermal_services(version, status, temperatures):
    found = parse_thermal(sample(f"thermalservice-{version}"))
    assert found == (status, temperatures)
    assert list(found[1]) == list(temperatures), "the one to use comes first"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", ""),
        ("Can't find service: thermalservice\n", ""),
        ("Permission Denial: can't dump thermalservice from pid=1, uid=2000\n", ""),
        ("Thermal Status: 9\n", ""),
        ("Thermal Status: 6\nHAL Ready: false\n", "shutdown"),
        ("Temperature{mValue=abc, mType=3, mName=skin, mStatus=0}", ""),
        ("Temperature{mValue=NaN, mType=3, mName=skin, mStatus=0}", ""),
        ("Temperature{mValue=0.0, mType=3, mName=skin, mStatus=0}", ""),
        ("Temperature{mValue=8900.0, mType=3, mName=skin, mStatus=0}", ""),
    ],
)
def test_thermal_services_that_tell_little(text, status):
    assert parse_thermal(text) == (status, {})


def test_the_cache_counts_only_where_the_sensors_cannot_be_asked():
    cached = "Cached temperatures:\n\tTemperature{mValue=31.0, mType=3, mName=skin, mStatus=0}\nHAL Ready: false\n"
    assert parse_thermal(cached)[1] == {"skin sensor skin": 31.0}
    now = f"{cached}Current temperatures from HAL:\n\tTemperature{{mValue=35.0, mType=3, mName=skin, mStatus=0}}\n"
    assert parse_thermal(now)[1] == {"skin sensor skin": 35.0}


def test_one_run_reads_one_sensor(scripted):
    phone = connect(scripted)
    scripted.answer("thermalservice", sample("thermalservice-android14"))
    first = read_heat(phone)
    assert first == Heat("moderate", 41.8, "skin sensor VIRTUAL-SKIN")
    assert read_heat(phone, Heat(sensor="skin sensor VIRTUAL-SKIN-HINT")).temperature_c == 43.9
    assert read_heat(phone, Heat(sensor="battery")) == Heat("moderate", 29.1, "battery")
    scripted.answer("thermalservice", "Can't find service: thermalservice\n")
    assert read_heat(phone, first) == Heat("", 29.1, "battery"), "what is left, and it says which"


def test_batteries():
    assert parse_battery(sample("battery-android14"))["temperature"] == "220"
    assert parse_battery("") == {}
