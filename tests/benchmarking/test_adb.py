"""adb as a transport: a scripted phone, and every failure as one sentence."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from mobile_avatar.benchmarking import adb
from mobile_avatar.benchmarking.adb import AdbProgram, Phone, PhoneLost, TimedOut, connect, parse_devices
from mobile_avatar.benchmarking.phone_folder import WorkFolder
from mobile_avatar.errors import BadInput, CheckFailed, MissingTool, MobileAvatarError
from tests.benchmarking.scripted_phone import RECORDED, ScriptedPhone

SHELLS = [name for name in ("sh", "mksh") if shutil.which(name)]  # mksh is Android's


class Said:
    """A transport that gives the same answer to everything."""

    def __init__(self, code: int = 1, out: str = "", err: str = "") -> None:
        self.answer = code, out, err

    def run(self, arguments, timeout):
        return self.answer


@pytest.fixture
def scripted(tmp_path, monkeypatch) -> ScriptedPhone:
    phone = ScriptedPhone(tmp_path / "phone")
    monkeypatch.setenv("PATH", f"{phone.path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    return phone


@pytest.fixture
def phone(scripted) -> Phone:
    """The scripted phone without a program between."""
    return connect(scripted)


@pytest.fixture
def program(scripted) -> Phone:
    """The scripted phone behind a program called adb."""
    return connect(AdbProgram())


def test_adb_that_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="adb is not installed; install Android's platform tools"):
        AdbProgram()


def test_adb_that_cannot_be_started(monkeypatch, tmp_path):
    (tmp_path / "adb").write_text("no program")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="adb cannot be started"):
        AdbProgram().run(["devices"], 5)


def test_states_of_devices():
    states = parse_devices((RECORDED / "adb-devices-states.txt").read_text())
    assert list(states.values())[:2] == ["device", "offline"]
    assert states["0a388e93"].startswith("no permissions")
    assert states["adb-1234567-Xy1AbC._adb-tls-connect._tcp"] == "device"
    assert len(states) == 5


@pytest.mark.parametrize(
    ("lines", "serial", "kind", "words"),
    [
        ("", None, MissingTool, "no phone is connected"),
        ("", "a", MissingTool, "no phone is connected"),
        ("a\tdevice\nb\tdevice\n", None, BadInput, "choose one with --serial: a (device), b (device)"),
        ("a\tdevice\n", "c", BadInput, "there is no phone 'c'; connected: a (device)"),
        ("a\tunauthorized\n", None, MissingTool, "a has not allowed this computer"),
        ("a\tauthorizing\n", None, MissingTool, "a is still connecting"),
        ("a\toffline\n", None, MissingTool, "a is offline"),
        ("a\tdevice\nb\toffline\n", "b", MissingTool, "b is offline"),
        ("a\tno permissions (missing udev rules?)\n", None, MissingTool, "may not open the USB device a"),
        ("a\trecovery\n", None, MissingTool, "a is in state 'recovery'; start Android"),
    ],
)
def test_choosing_a_phone_that_is_not_there(monkeypatch, lines, serial, kind, words):
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    with pytest.raises(kind) as found:
        connect(Said(0, f"List of devices attached\n{lines}\n"), serial)
    assert words in str(found.value)
    assert "\n" not in str(found.value)


def test_choosing_a_phone_that_is_there(monkeypatch):
    listed = Said(0, "List of devices attached\na\tdevice\nb\tdevice\nc\toffline\n\n")
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    assert connect(listed, "b").serial == "b"
    monkeypatch.setenv("ANDROID_SERIAL", "a")
    assert connect(listed).serial == "a"
    monkeypatch.delenv("ANDROID_SERIAL")
    assert connect(Said(0, "List of devices attached\na\tdevice\nc\toffline\n")).serial == "a"


FULL = (
    "adb: error: failed to copy '/home/offline/m.dlc' to '/data/local/tmp/m.dlc': remote No space left on device\n"
    "/home/offline/m.dlc: 1 file pushed, 0 skipped. 1.9 MB/s (2920281 bytes in 1.4s)"
)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (FULL, CheckFailed, "P is full (adb: error: failed to copy"),
        (
            "adb: error: failed to copy 'a' to 'b': remote couldn't create file: Permission denied",
            CheckFailed,
            "P refused",
        ),
        (
            "adb: error: failed to copy 'a' to 'b': remote couldn't create file: Read-only file system",
            CheckFailed,
            "P refused",
        ),
        ("error: device offline", PhoneLost, "P is offline"),
        ("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", PhoneLost, "not allowed"),
        ("adb: error: failed to get feature set: device 'P' not found", PhoneLost, "P went away during `adb push`"),
        ("adb: error: failed to read copy response: EOF", PhoneLost, "P went away"),
        ("error: protocol fault (couldn't read status): Connection reset by peer", PhoneLost, "P went away"),
        ("error: cannot connect to daemon", PhoneLost, "adb's server failed: error: cannot connect to daemon"),
        ("", CheckFailed, "`adb push` failed: no message"),
        ("error: something new\nmore of it", CheckFailed, "`adb push` failed: error: something new"),
    ],
)
def test_every_failure_is_one_sentence(said, kind, words):
    for transport in (Said(1, "", said), Said(1, said, "")):
        with pytest.raises(MobileAvatarError) as found:
            Phone(transport, "P").push(Path(__file__), "/data/local/tmp/x")
        assert type(found.value) is kind
        assert words in str(found.value)
        assert "\n" not in str(found.value)


@pytest.mark.parametrize("shell", SHELLS)
def test_shell(scripted, program, shell):
    (scripted.root / "shell").write_text(shell)
    assert program.shell("echo a; echo b >&2; echo 'c  d'") == (0, "a\nb\nc  d\n")
    assert program.shell("exit 7") == (7, "")
    assert program.shell("printf unended; false") == (1, "unended")
    assert program.shell("cat")[0] == 0, "nothing comes from the keyboard"


@pytest.mark.parametrize("out", ["", "half of the outp", f"\n{adb.DONE} x\n", adb.DONE])
def test_a_shell_that_ends_too_early_is_a_lost_phone(out):
    for code in (0, 1, 255):
        with pytest.raises(PhoneLost, match=f"P went away during `adb shell` .*no answer, exit code {code}"):
            Phone(Said(code, out), "P").shell("true")


def test_adb_that_is_ended_from_outside(scripted, program):
    """A signal to a real process in the middle of a call."""
    scripted.fault({"at": "shell", "hang": True})
    marker = scripted.root / "hanging"

    def end() -> None:
        while not marker.exists() or not marker.read_text():
            time.sleep(0.01)
        os.kill(int(marker.read_text()), signal.SIGTERM)

    helper = threading.Thread(target=end)
    helper.start()
    with pytest.raises(PhoneLost, match="adb was ended by signal 15 during `adb shell`"):
        program.shell("true")
    helper.join()


def test_a_call_that_hangs_is_ended(scripted, program):
    scripted.fault({"at": "shell", "hang": True})
    with pytest.raises(TimedOut, match=r"`adb shell` did not finish within 0.3 s"):
        program.shell("true", timeout=0.3)
    process = int((scripted.root / "hanging").read_text() or 0) if (scripted.root / "hanging").exists() else 0
    assert not process or not Path(f"/proc/{process}").exists()


def test_a_call_that_prints_without_end_is_ended(program, monkeypatch):
    monkeypatch.setattr(adb, "MOST_OUTPUT", 1 << 16)
    with pytest.raises(CheckFailed, match="printed more than"):
        program.shell("yes without-end", timeout=20)
    # One that goes on fills the disk, in a file without a name.
    for _ in range(100):
        left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"without-end" in _bytes(path)]
        if not left:
            break
        time.sleep(0.05)
    assert not left


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


@pytest.mark.parametrize("shell", SHELLS)
def test_a_program_that_hangs_on_the_phone_is_ended_there(scripted, program, shell):
    (scripted.root / "shell").write_text(shell)
    with WorkFolder(program, "x") as folder:
        with pytest.raises(TimedOut):
            folder.run(["sleep 57 & echo $! > pid; wait"], timeout=0.5)
        process = (Path(scripted.storage) / "mobile-avatar-x" / "pid").read_text().strip()
        for _ in range(100):
            if not Path(f"/proc/{process}").exists() or "Z" in Path(f"/proc/{process}/stat").read_text().split()[2]:
                break
            time.sleep(0.02)
        else:
            pytest.fail("it still runs")
    assert scripted.left == []


@pytest.mark.parametrize("shell", SHELLS)
def test_files_are_pushed_once(scripted, phone, tmp_path, shell):
    (scripted.root / "shell").write_text(shell)
    files = {}
    for name in ("a.raw", "b c'; touch x; '"):
        files[name] = tmp_path / 'here and "there" $HOME' / name
        files[name].parent.mkdir(exist_ok=True)
        files[name].write_text(name)
    with WorkFolder(phone, "x") as folder:
        assert folder.put(files, ["a.raw"]) == 2
        assert folder.put(files) == 0
        there = scripted.storage / "mobile-avatar-x"
        assert sorted(os.listdir(there)) == sorted(files)
        assert os.access(there / "a.raw", os.X_OK)
        (there / "a.raw").write_text("A.raw")
        assert folder.put(files) == 1
        assert (there / "a.raw").read_text() == "a.raw"
    assert scripted.left == []
    assert len(scripted.calls("push")) == 3


def test_a_phone_without_hash_programs_gets_everything(scripted, phone, tmp_path):
    for name in ("sha256sum", "md5sum"):
        path = scripted.root / "bin" / name
        path.write_text("#!/bin/sh\necho $0: not found; exit 127\n")
        path.chmod(0o755)
    (tmp_path / "a").write_text("a")
    with WorkFolder(phone, "x") as folder:
        assert folder.put({"a": tmp_path / "a"}) == 1
        assert folder.put({"a": tmp_path / "a"}) == 1


def test_a_file_that_arrives_damaged(scripted, phone, tmp_path):
    (tmp_path / "a").write_text("a")
    scripted.fault({"at": "push", "code": 0})  # adb is content, and nothing arrives
    with WorkFolder(phone, "x") as folder, pytest.raises(CheckFailed, match="a arrived damaged on the phone"):
        folder.put({"a": tmp_path / "a"})


@pytest.mark.parametrize("shell", SHELLS)
def test_outputs_come_back(scripted, phone, tmp_path, shell):
    (scripted.root / "shell").write_text(shell)
    with WorkFolder(phone, "x") as folder:
        folder.empty("out")
        lines = ["mkdir out/Result_0", "echo one > out/Result_0/uv:0.raw", "echo two > out/log.txt", "ln -s /etc out/l"]
        assert folder.run(lines, 20) == (0, "")
        folder.fetch("out", tmp_path / "here")
        assert (tmp_path / "here" / "Result_0" / "uv:0.raw").read_text() == "one\n"
        found = sorted(p.name for p in (tmp_path / "here").rglob("*"))
        assert found == ["Result_0", "log.txt", "uv:0.raw"], "links stay there"
        folder.empty("out")
        folder.fetch("out", tmp_path / "nothing")
        assert not (tmp_path / "nothing").exists()
        assert folder.run(["false", "echo not reached"], 20) == (1, "")


def test_outputs_are_not_trusted(scripted, phone, tmp_path, monkeypatch):
    there = scripted.storage / "mobile-avatar-x" / "out"
    with WorkFolder(phone, "x") as folder:
        for name in ("-rf", "a b", "a\n1 b", ".hidden", "ä"):
            folder.empty("out")
            (there / name).write_text("x")
            with pytest.raises(CheckFailed, match="among the outputs, which no tool writes"):
                folder.fetch("out", tmp_path / "here")
        folder.empty("out")
        with open(there / "sparse.raw", "wb") as file:
            file.truncate(1 << 30)
        with pytest.raises(CheckFailed, match="1 files, 1024 MB"):
            folder.fetch("out", tmp_path / "here")
        (there / "sparse.raw").unlink()
        (there / "a.raw").write_text("longer than")
        scripted.fault({"at": "pull", "code": 0})
        with pytest.raises(CheckFailed, match=r"a.raw did not arrive whole"):
            folder.fetch("out", tmp_path / "here")
    assert not list((tmp_path / "here").rglob("*.raw"))


def test_a_folder_that_cannot_be_made(scripted, phone):
    scripted.storage.rmdir()
    scripted.storage.write_text("a file")
    with pytest.raises(CheckFailed, match="making the folder on the phone failed: mkdir"), WorkFolder(phone, "x"):
        pass
