"""Whole sessions with a scripted phone: rows, parity, fallbacks, failures of one tool, and a phone that goes away.

The device tool here is made up; the real ones have tests of their own, and test_phone_cli.py runs two of them.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.benchmarking import phone_session, phone_sustained
from mobile_avatar.benchmarking.adb import PhoneLost, TimedOut
from mobile_avatar.benchmarking.store import stored_results
from mobile_avatar.benchmarking.subject import open_subject
from mobile_avatar.errors import CheckFailed, MissingTool
from tests.benchmarking.phone_bench import Bench, ToolsByProgram, tool
from tests.benchmarking.scripted_phone import RECORDED, write_tool
from tests.benchmarking.small_bundle import CASES


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    for name in ("QAIRT_SDK_ROOT", "QNN_SDK_ROOT", "SNPE_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return Bench(tmp_path)


def test_a_session(bench):
    rows = bench.measure(runs=20, threads=2)
    assert [row.delegate for row in rows] == ["CPU", "GPU", "DSP"], "the reference first"
    for row in rows:
        assert (row.kind, row.place, row.scope, row.own_file, row.error) == ("measured", "adb", "graph", True, "")
        assert (row.device, row.soc, row.os) == ("Pixel 4", "msmnile", "Android 10 (SDK 29)")
        assert (row.temperature_before_c, row.temperature_after_c) == (33.3, 33.3)
        assert (row.thermal_before, row.thermal_after) == ("none", "none")
        assert "temperatures are those of the skin sensor mb-therm-monitor" in row.notes
        assert row.power_mode == "battery saver off, powered by USB, battery at 87 %"
        assert (row.runtime, row.runtime_version, row.precision) == ("timer", "1.0", "fp16")
        assert row.model_sha256 == bench.subject.model_sha256
        assert [check["output"] for check in row.parity] == ["uv", "lf", "mask", "image"]
        assert all(check["passed"] and check["cases"] == CASES for check in row.parity)
    gpu = rows[1]
    assert (gpu.mean_ms, gpu.p50_ms, gpu.load_ms, gpu.first_ms, gpu.runs, gpu.threads) == (10, 9.5, 200, 50, 20, None)
    assert gpu.parity[0]["runner"] == "timer-gpu on Pixel 4"
    assert gpu.parity[0]["psnr_db"] < 80 < rows[0].parity[0]["psnr_db"]
    assert gpu.command == "./frame_timer GPU 20 output True 2 input_0.raw input_1.raw input_2.raw"
    assert stored_results(bench.subject)[0] == rows
    assert bench.phone.left == [], "nothing stays on the phone"


def test_files_go_to_the_phone_once(bench):
    bench.measure()
    pushed = sorted(Path(call[2]).name for call in bench.phone.calls("push"))
    assert pushed == ["frame_timer", *(f"input_{i}.raw" for i in range(CASES)), "libtimer.so", "model.dlc"]
    folder = f"/data/local/tmp/mobile-avatar-{bench.subject.model_sha256[:8]}/"
    assert all(call[2].startswith(folder) for call in bench.phone.calls("push"))


def test_inputs_are_the_golden_keypoints(bench):
    bench.answers("CPU", "mean=1", 'cp input_*.raw "$PHONE/"')
    bench.measure(tool(delegates=("CPU",)))
    golden = bench.subject.golden(bench.spec.inputs[0])
    for case in range(CASES):
        assert np.array_equal(np.fromfile(bench.phone.root / f"input_{case}.raw", "<f4"), golden[case])


def test_integers_are_stored_and_loaded(tmp_path, monkeypatch):
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    integers = {"keypoints": ("uint8", 2 / 255, 128), "uv": ("uint16", 4 / 65535, 32768), "lf": ("int8", 2 / 255, 0)}
    bench = Bench(tmp_path, integers, "w8a8")
    bench.answers("CPU", "mean=1", 'cp input_*.raw "$PHONE/"')
    rows = bench.measure()
    assert all(check["passed"] for row in rows for check in row.parity)
    # lf is rounded to 8 bits and mask is not.
    psnr = {check["output"]: check["psnr_db"] for check in rows[0].parity}
    assert 50 < psnr["lf"] < 60 < psnr["uv"] < psnr["mask"]
    stored = np.fromfile(bench.phone.root / "input_0.raw", "u1")
    assert np.abs((stored - 128.0) * 2 / 255 - bench.subject.golden(bench.spec.inputs[0])[0]).max() < 0.01


def test_the_same_bits_as_the_cpu_are_a_suspicion(bench):
    bench.outputs("GPU", bench.golden)
    cpu, gpu, dsp = bench.measure()
    assert gpu.delegate == "CPU (fallback suspected: outputs are bit-identical to the CPU's)"
    assert "asked for GPU, but every output has the same bits as the CPU's" in gpu.notes
    assert (cpu.delegate, dsp.delegate) == ("CPU", "DSP")


def test_one_other_bit_is_no_suspicion(bench):
    changed = {name: array.copy() for name, array in bench.golden.items()}
    changed["mask"][-1, 3, 3] = np.nextafter(changed["mask"][-1, 3, 3], 2)
    bench.outputs("GPU", changed)
    assert bench.measure()[1].delegate == "GPU"


@pytest.mark.parametrize(
    ("text", "delegate"),
    [
        ("mean=9 unit=CPU fallback=yes", "CPU (fallback)"),
        ("mean=9 unit=XNNPACK fallback=yes", "CPU (fallback)"),
        ("mean=9 unit=GPU+CPU fallback=yes", "GPU+CPU (fallback)"),
        ("mean=9", "GPU"),
    ],
)
def test_what_did_the_work_is_what_was_found(bench, text, delegate):
    bench.answers("GPU", text)
    row = bench.measure()[1]
    assert row.delegate == delegate
    said = "half of it ran elsewhere" if "fallback" in text else "does not tell what did the work; GPU was asked for"
    assert any(said in note for note in row.notes)


@pytest.mark.parametrize("damage", ["wrong", "nan"])
def test_wrong_outputs(bench, damage):
    wrong = {
        name: array + 0.5 if damage == "wrong" else np.full_like(array, np.nan) for name, array in bench.golden.items()
    }
    bench.outputs("GPU", wrong)
    rows = bench.measure()
    assert [check["passed"] for check in rows[1].parity] == [False] * 4
    if damage == "nan":
        assert "NaN or Inf" in rows[1].parity[0]["reason"]
    assert all(check["passed"] for check in rows[0].parity + rows[2].parity)


def test_a_tool_without_outputs_shares_the_verdict_of_one_with_them(bench):
    bench.outputs("GPU", {name: array + 0.5 for name, array in bench.golden.items()})
    rate = tool("rate_timer", read_outputs=lambda run, output: [])
    rows = bench.measure(tool(), rate)
    wrong = {(row.delegate, "rate_timer wrote no outputs" in str(row.notes)): row for row in rows}
    assert wrong["GPU", True].parity == wrong["GPU", False].parity
    assert "frame_timer gave wrong outputs with the same runtime on GPU" in wrong["GPU", True].notes
    assert wrong["DSP", True].parity == ()


FAILURES = {
    "CANNOT LINK": (
        'echo \'CANNOT LINK EXECUTABLE "./t": library "libx.so" not found: needed by main executable\'; exit 1',
        'library "libx.so" not found',
    ),
    "killed": ("kill -9 $$", "exit code 137: the phone ended it, probably for lack of memory"),
    "full": ("echo 'cp: x: No space left on device'; exit 1", "the phone is full"),
    "noexec": (
        'echo "/system/bin/sh: ./x: can\'t execute: Permission denied"; exit 126',
        "does not let programs start (mounted noexec",
    ),
    "silent": ("exit 3", "printed nothing at all"),
    "own words": ("echo error_code=201 no such runtime; exit 1", "error_code=201 no such runtime"),
    "nothing": ("echo; exit 0", "frame_timer printed no figures"),
    "zero": ("echo mean=0; exit 0", "frame_timer printed no time per run"),
    "short": ("echo mean=3; head -c 4 model.dlc > output/uv_0.raw; exit 0", "outputs of another size"),
    "odd name": ("echo mean=3; echo x > 'output/a b'; exit 0", "among the outputs, which no tool writes"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_a_row_and_the_others_go_on(bench, name):
    script, words = FAILURES[name]
    bench.answers("GPU", "", script)
    failed, other = bench.measure(tool(delegates=("GPU", "DSP")))
    assert words in failed.error
    assert "\n" not in failed.error
    assert (failed.delegate, failed.soc, failed.p50_ms) == ("GPU", "msmnile", None)
    assert (other.delegate, other.error) == ("DSP", "")
    assert bench.phone.left == []


def test_programs_that_may_not_be_started(bench):
    """For real: the scripted phone's storage does not get its programs made executable."""
    write_tool(bench.phone.root / "bin" / "chmod", "exit 0")
    with pytest.raises(CheckFailed, match=r"Pixel 4: frame_timer ended with exit code 126: .*noexec"):
        bench.measure()
    assert len(bench.journal.results) == 3


def test_a_program_for_another_processor(bench):
    """For real: a program of no processor of this computer."""
    (bench.tools / "frame_timer").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7\x00" + bytes(44))
    with pytest.raises(CheckFailed, match=r"frame_timer ended with exit code \d+ \(.*[Ee]xec format error"):
        bench.measure()


def test_a_full_phone(bench):
    err = "adb: error: failed to copy 'x' to 'y': remote No space left on device\n"
    bench.phone.fault({"at": "push ", "err": err})
    with pytest.raises(CheckFailed, match=r"nothing could be measured on Pixel 4: the phone 9B1AY1SCRIPT is full"):
        bench.measure()
    assert len(bench.journal.results) == 3
    assert bench.phone.left == []


def test_only_missing_programs_are_exit_code_three(bench):
    for unit in ("CPU", "GPU", "DSP"):
        bench.answers(unit, "binary log")
    with pytest.raises(MissingTool, match="nothing could be measured on Pixel 4: the viewer is not on this computer"):
        bench.measure()
    assert len(bench.journal.results) == 1, "the other compute units would say the same"


def test_a_phone_that_goes_away_anywhere(bench):
    """At every seventh call of a session: the rows until then are kept, and one sentence says what happened."""
    bench.measure()
    # The last three calls clean up, and what was left of a broken run need not be pushed again.
    calls = len(bench.phone.calls()) - 3 - len(bench.phone.calls("push"))
    kept = []
    for after in range(1, calls, 7):
        bench.phone.fault({"at": "", "after": after, "gone": True, "err": "error: device '9B1AY1SCRIPT' not found\n"})
        with pytest.raises(PhoneLost, match="9B1AY1SCRIPT went away during `adb"):
            bench.measure()
        (bench.phone.root / "gone").unlink()
        kept.append(sum(not row.error for row in bench.journal.results))
        assert all("went away" in row.error for row in bench.journal.results if row.error)
    assert kept == sorted(kept)
    assert {0, 1, 2} <= set(kept)
    bench.phone.fault()
    assert len(bench.measure()) == 3
    assert bench.phone.left == [], "what was left of the runs that broke off is gone as well"


def test_adb_that_is_killed_in_the_middle(bench, monkeypatch):
    bench.phone.fault({"at": "frame_timer DSP", "kill": True})
    with pytest.raises(PhoneLost, match="adb was ended by signal 9 during `adb shell`; what was measured"):
        bench.measure(transport=ToolsByProgram(bench, monkeypatch))
    assert [row.error[:22] for row in bench.journal.results] == ["", "", "adb was ended by signa"]


def test_a_tool_that_hangs_is_stopped_and_the_others_go_on(bench, monkeypatch):
    monkeypatch.setattr(phone_session, "START_S", 2.0)
    monkeypatch.setattr(phone_session, "SLOWEST_RUN_S", 0.0)
    bench.answers("GPU", "", "sleep 55")
    rows = bench.measure(tool(delegates=("GPU", "CPU")), transport=ToolsByProgram(bench, monkeypatch))
    assert [row.error for row in rows] == ["", "frame_timer on GPU did not end within 2 s and was stopped"]
    assert bench.phone.left == []


def test_a_phone_that_hangs_with_its_tool(bench):
    class Hangs:
        def run(self, arguments, timeout):
            if "./frame_timer GPU" in arguments[-1]:
                bench.phone.fault({"at": ""})
                raise TimedOut("too long")
            return bench.phone.run(arguments, timeout)

    with pytest.raises(PhoneLost, match=r"frame_timer on GPU did not end within 400 s .* the phone no longer answers"):
        bench.measure(transport=Hangs())
    assert [bool(row.error) for row in bench.journal.results] == [False, True]


def test_a_phone_that_is_hot_already(bench):
    bench.phone.answer("thermalservice", (RECORDED / "adb-thermalservice-android14.txt").read_text())
    row = bench.measure()[0]
    assert (row.thermal_before, row.temperature_before_c) == ("moderate", 41.8)
    assert "the phone was throttling before the run began (moderate); let it cool down" in row.notes


@pytest.fixture
def clock(bench, monkeypatch):
    """Time passes with the calls of adb: four seconds each."""
    monkeypatch.setattr(phone_sustained, "clock", lambda: 4.0 * len(bench.phone.calls()))


def test_a_sustained_run(bench, clock):
    bench.answers("GPU", "unit=GPU mean=10 p50=9.5", "if [ $4 = False ]; then echo mean=20 p50=19.5; fi")
    rows = bench.measure(runs=20, sustained_min=3)
    assert len(rows) == 4
    long = rows[-1]
    assert (long.delegate, long.p50_ms, long.error) == ("GPU", 9.5, ""), "the figures of the short run stay"
    assert [minute.minute for minute in long.sustained] == [1, 2, 3]
    per_call = 1579  # 15 s of 9.5 ms
    for minute in long.sustained:
        assert minute.temperature_c == 33.3
        assert minute.runs % per_call == 0
        assert minute.runs >= 2 * per_call
    assert any("a minute is the median over calls of their p50" in note for note in long.notes)
    assert re.search(r"the model computed for \d+% of the sustained run", str(long.notes))
    calls = (bench.phone.root / "tool-calls").read_text().splitlines()
    assert calls[-1].startswith(f"GPU {per_call} output False")


def test_sustained_times_are_those_of_the_minute(bench, clock):
    bench.answers("GPU", "unit=GPU mean=10", "if [ $4 = False ]; then echo mean=20; exit 0; fi")
    long = bench.measure(sustained_min=1)[-1]
    assert [minute.p50_ms for minute in long.sustained] == [20]
    assert any("median over calls of their mean" in note for note in long.notes)


def test_a_phone_that_goes_away_in_a_sustained_run_keeps_its_minutes(bench, clock):
    bench.phone.fault({"at": "frame_timer GPU", "after": 14, "gone": True, "err": "error: device offline\n"})
    with pytest.raises(PhoneLost, match="9B1AY1SCRIPT is offline"):
        bench.measure(sustained_min=30)
    rows = bench.journal.results
    assert [bool(row.error) for row in rows] == [False, False, False, True]
    assert len(rows[-1].sustained) >= 2
    assert rows[-1].error.startswith("the sustained run stopped: the phone 9B1AY1SCRIPT is offline")


def test_the_sustained_run_takes_what_is_right(bench, clock):
    bench.outputs("GPU", {name: array + 0.5 for name, array in bench.golden.items()})
    assert bench.measure(sustained_min=0.1)[-1].delegate == "DSP"
    bench.answers("DSP", "", "exit 1")
    last = bench.measure(sustained_min=0.1)[-1]
    assert last.delegate == "CPU"
    assert "no accelerator gave right outputs, so the sustained run is on the CPU" in last.notes


def test_names_of_a_bundle_are_not_trusted(bench):
    folder = bench.subject.folder
    manifest = json.loads((folder / "manifest.json").read_text())
    odd = "re nder;rm -rf $HOME.d l'c"
    (folder / "render.dlc").rename(folder / odd)
    text = json.dumps(manifest).replace("render.dlc", odd.replace('"', '\\"'))
    (folder / "manifest.json").write_text(text)
    bench.subject = open_subject(folder)
    assert not any(row.error for row in bench.measure())
    assert not any("HOME" in " ".join(call) for call in bench.phone.calls("shell"))
