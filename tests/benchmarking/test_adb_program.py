"""The installed adb itself: without a phone, and with the phone's end of its protocol scripted."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from mobile_avatar.benchmarking.adb import AdbProgram, Phone, PhoneLost, connect, parse_devices
from mobile_avatar.benchmarking.phone_folder import WorkFolder
from mobile_avatar.errors import CheckFailed, MissingTool
from tests.benchmarking.phone_bench import Bench, tool
from tests.benchmarking.scripted_daemon import Daemon
from tests.benchmarking.scripted_phone import ScriptedPhone

pytestmark = pytest.mark.skipif(shutil.which("adb") is None, reason="adb is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of adb for these tests alone, ended afterwards."""
    with pytest.MonkeyPatch.context() as patch, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(probe.getsockname()[1]))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("ANDROID_SERIAL", raising=False)
        probe.close()
        yield AdbProgram()
        subprocess.run(["adb", "kill-server"], capture_output=True, timeout=20)


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def plug_in(server: AdbProgram, daemon: Daemon) -> Phone:
    assert "connected to" in server.run(["connect", daemon.serial], 20)[1]
    return connect(server, daemon.serial)


def test_without_a_phone(server):
    code, out, _ = server.run(["devices"], 20)
    assert (code, parse_devices(out)) == (0, {})
    with pytest.raises(MissingTool, match="no phone is connected; connect one by USB"):
        connect(server)
    gone = Phone(server, "9B1AY1")
    with pytest.raises(PhoneLost, match=r"9B1AY1 went away during `adb shell` \(error: device '9B1AY1' not found"):
        gone.shell("true")
    with pytest.raises(PhoneLost, match=r"9B1AY1 went away during `adb push`"):
        gone.push(Path(__file__), "/data/local/tmp/x")
    assert not gone.answers()


@pytest.mark.parametrize("features", ["shell_v2,cmd", "cmd"])
def test_commands_and_files(server, tmp_path, features):
    scripted = ScriptedPhone(tmp_path / "phone")
    daemon = Daemon(scripted, features)
    phone = plug_in(server, daemon)
    assert phone.shell("echo a; echo b >&2; echo 'c  \"d\"'; exit 7") == (7, 'a\nb\nc  "d"\n')
    content = bytes(range(256)) * 1000
    files = {}
    for name in ("a b.raw", "c'd"):
        files[name] = tmp_path / "here $HOME" / name
        files[name].parent.mkdir(exist_ok=True)
        files[name].write_bytes(content)
    with WorkFolder(phone, "x") as folder:
        assert (folder.put(files, ["c'd"]), folder.put(files)) == (2, 0)
        assert (scripted.storage / "mobile-avatar-x" / "a b.raw").read_bytes() == content
        folder.empty("out")
        assert folder.run(["mkdir out/R_0", "cp 'a b.raw' out/R_0/uv:0.raw", "cp c\\'d out/l.txt"], 20) == (0, "")
        folder.fetch("out", tmp_path / "back")
    for name in ("R_0/uv:0.raw", "l.txt"):
        assert (tmp_path / "back" / name).read_bytes() == content
    assert scripted.left == []
    daemon.leave()


def test_a_session(server, bench):
    daemon = Daemon(bench.phone)
    plug_in(server, daemon)
    rows = bench.measure(tool(delegates=("GPU", "CPU")), transport=server, serial=daemon.serial)
    assert [(row.delegate, row.error) for row in rows] == [("CPU", ""), ("GPU", "")]
    assert all(check["passed"] for row in rows for check in row.parity)
    assert bench.phone.left == []
    daemon.leave()


def test_a_full_phone(server, bench):
    daemon = Daemon(bench.phone)
    daemon.refuse = "No space left on device"
    plug_in(server, daemon)
    with pytest.raises(CheckFailed, match=r"Pixel 4: the phone \S+ is full \(adb: error: failed to copy .*No space"):
        bench.measure(transport=server, serial=daemon.serial)
    assert bench.phone.left == []
    daemon.leave()


def test_a_phone_that_is_unplugged_in_the_middle(server, bench):
    """adb itself says nothing then, and its exit code is 0."""
    daemon = Daemon(bench.phone)
    daemon.leave_at = "./frame_timer GPU"
    plug_in(server, daemon)
    with pytest.raises(PhoneLost, match=rf"the phone {daemon.serial} went away during `adb shell`"):
        bench.measure(tool(delegates=("GPU", "CPU")), transport=server, serial=daemon.serial)
    assert [bool(row.error) for row in bench.journal.results] == [False, True]
