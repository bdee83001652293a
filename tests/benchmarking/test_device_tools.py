"""Finding device tools: folders, SDKs, and programs for other processors."""

import os
import struct
from pathlib import Path

import pytest

from mobile_avatar.benchmarking.device_tools import HOST_MACHINES, find_tools
from mobile_avatar.benchmarking.tools import TOOLS
from mobile_avatar.errors import BadInput, MissingTool
from mobile_avatar.exporters.targets.snpe import SDK_VARIABLES

ARM64, ABI = 183, "arm64-v8a"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    for name in SDK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def elf(path: Path, machine: int = ARM64) -> Path:
    """The first bytes of a program or library for a processor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine) + bytes(44))
    path.chmod(0o755)
    return path


def sdk(root: Path) -> Path:
    """Folders as Qualcomm's SDK has them."""
    host = HOST_MACHINES[os.uname().machine]
    for name in ("snpe-net-run", "snpe-throughput-net-run", "qnn-net-run"):
        elf(root / "bin" / "aarch64-android" / name)
        elf(root / "bin" / "x86_64-linux-clang" / name, 62)
    for name in ("snpe-diagview", "qnn-profile-viewer"):
        elf(root / "bin" / "x86_64-linux-clang" / name, host)
    for name in ("libSNPE.so", "libSnpeHtpV73Stub.so", "libQnnGpu.so", "libQnnSystem.so", "libOther.so"):
        elf(root / "lib" / "aarch64-android" / name)
    for version in (66, 73):
        elf(root / "lib" / f"hexagon-v{version}" / "unsigned" / f"libSnpeHtpV{version}Skel.so", 164)
    return root


@pytest.mark.parametrize("variable", [*SDK_VARIABLES, None])
def test_an_sdk(tmp_path, monkeypatch, variable):
    root = sdk(tmp_path / "qairt 2.30")
    if variable:
        monkeypatch.setenv(variable, str(root))
    found = find_tools(TOOLS, "snpe", ABI, None if variable else root)
    assert [item.tool.name for item in found] == ["snpe-net-run", "snpe-throughput-net-run", "qnn-net-run"]
    net_run = found[0]
    assert net_run.files["snpe-net-run"] == root / "bin" / "aarch64-android" / "snpe-net-run"
    assert set(net_run.files) >= {"libSNPE.so", "libSnpeHtpV73Stub.so", "libSnpeHtpV66Skel.so", "libSnpeHtpV73Skel.so"}
    assert not {"libOther.so", "libQnnGpu.so"} & set(net_run.files)
    assert net_run.host == root / "bin" / "x86_64-linux-clang"


def test_a_flat_folder_comes_before_an_sdk(tmp_path, monkeypatch):
    monkeypatch.setenv("SNPE_ROOT", str(sdk(tmp_path / "sdk")))
    mine = tmp_path / "mine"
    elf(mine / "snpe-net-run")
    elf(mine / "libSNPE.so")
    found = find_tools(TOOLS, "snpe", ABI, mine, ["snpe-net-run"])
    assert len(found) == 1
    assert (found[0].files["snpe-net-run"], found[0].files["libSNPE.so"]) == (
        mine / "snpe-net-run",
        mine / "libSNPE.so",
    )
    assert found[0].host == tmp_path / "sdk" / "bin" / "x86_64-linux-clang", "what is missing comes from the SDK"


def test_a_program_under_its_published_name(tmp_path):
    path = elf(tmp_path / "tools" / "android_aarch64_benchmark_model")
    found = find_tools(TOOLS, "tflite", ABI, tmp_path / "tools")
    assert [item.files for item in found] == [{"benchmark_model": path}]


def test_programs_on_the_search_path_must_be_the_phones(tmp_path, monkeypatch):
    folder = tmp_path / "path"
    monkeypatch.setenv("PATH", str(folder))
    elf(folder / "benchmark_model", 62)
    elf(folder / "libLiteRt.so", 62)
    with pytest.raises(MissingTool, match=r"no device tool for arm64-v8a found: benchmark_model \(looked on PATH"):
        find_tools(TOOLS, "tflite", ABI)
    (folder / "benchmark_model").write_text("#!/bin/sh\n")
    with pytest.raises(MissingTool):
        find_tools(TOOLS, "tflite", ABI)
    elf(folder / "benchmark_model")
    assert find_tools(TOOLS, "tflite", ABI)[0].files["benchmark_model"].parent == folder


@pytest.mark.parametrize(("abi", "machine"), [("armeabi-v7a", 40), ("x86_64", 62), ("riscv64", 243)])
def test_other_phones(tmp_path, abi, machine):
    elf(tmp_path / "tools" / "benchmark_model", machine)
    assert find_tools(TOOLS, "tflite", abi, tmp_path / "tools")
    if abi != "riscv64":  # of processors that are not in the table anything is taken
        elf(tmp_path / "tools" / "benchmark_model")
        with pytest.raises(MissingTool, match=f"no device tool for {abi} found"):
            find_tools(TOOLS, "tflite", abi, tmp_path / "tools")


def test_without_the_host_program(tmp_path):
    elf(tmp_path / "tools" / "snpe-net-run")
    assert find_tools(TOOLS, "snpe", ABI, tmp_path / "tools")[0].host is None


def test_what_cannot_be_found(tmp_path, monkeypatch):
    sdk(tmp_path / "sdk")
    cases = [
        (("snpe", ABI, tmp_path / "none"), BadInput, "none is not a folder; --tools takes the folder"),
        (("coreml", ABI), BadInput, "coreml bundles are not run over adb; export for one of snpe, tflite"),
        (("snpe", ABI, None, ["abacus"]), BadInput, "no runtime 'abacus' on a phone; choose one of "),
        (("snpe", ABI, None, ["litert"]), BadInput, "litert does not run snpe bundles; choose one of snpe, qnn"),
        (("snpe", ABI), MissingTool, "pass the folder that holds it as --tools, or set QAIRT_SDK_ROOT"),
        (("tflite", ABI, tmp_path / "sdk"), MissingTool, f"looked below {tmp_path / 'sdk'} and on PATH"),
    ]
    for arguments, kind, words in cases:
        with pytest.raises(kind) as found:
            find_tools(TOOLS, *arguments)
        assert words in str(found.value)
        assert "\n" not in str(found.value)


def test_wanted_tools(tmp_path):
    root = sdk(tmp_path / "sdk")
    assert [item.tool.name for item in find_tools(TOOLS, "snpe", ABI, root, ["qnn"])] == ["qnn-net-run"]
    assert [item.tool.runtime for item in find_tools(TOOLS, "snpe", ABI, root, ["snpe"])] == ["snpe", "snpe"]
