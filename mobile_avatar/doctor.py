"""What this machine has: packages of the targets, vendor tools, accounts."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mobile_avatar.errors import MissingTool
from mobile_avatar.exporters.registry import Target, targets
from mobile_avatar.exporters.targets.snpe import find_sdk_converter
from mobile_avatar.keypoints.models import cached_models

PIP_NAMES = {
    "ai_edge_litert": "ai-edge-litert",
    "ai_edge_quantizer": "ai-edge-quantizer",
    "litert_torch": "litert-torch",
    "onnxruntime_qnn": "onnxruntime-qnn",
    "qai_hub": "qai-hub",
}
EXTRAS = {"executorch": "'mobile-avatar[executorch]'", "qai_hub": "'mobile-avatar[hub]'"}
"""Packages that an extra brings, in the versions that fit."""
LINUX_ONLY = ("litert_torch", "ai_edge_quantizer", "onnxruntime_qnn")


@dataclass(frozen=True)
class Finding:
    """One row of the report."""

    name: str
    present: bool
    state: str
    """Version, path or why not."""
    cost: str
    """What does not work without it."""
    remedy: str

    def cells(self) -> tuple[str, str, str, str]:
        return self.name, "yes" if self.present else "no", self.state, "" if self.present else self.cost

    def to_dict(self) -> dict:
        return asdict(self)


def examine() -> list[Finding]:
    """Look at packages, tools and accounts; imports none of the converters."""
    rows = [_target(target) for target in targets().values()]
    return [*rows, *_machine()]


def _target(target: Target) -> Finding:
    missing = [name for name in target.packages if importlib.util.find_spec(name) is None]
    versions = ", ".join(f"{_pip(name)} {_version(name)}" for name in target.packages if name not in missing)
    elsewhere = [name for name in missing if name in LINUX_ONLY and not _is_linux_x86()]
    cost = f"no export or check of target {target.name}"
    if elsewhere:
        names = ", ".join(map(_pip, elsewhere))
        here = f"{platform.system()} on {platform.machine()}"
        remedy = f"{names} exists for Linux on x86-64 only (this is {here}): export there"
    else:
        remedy = f"pip install {' '.join(EXTRAS.get(name, _pip(name)) for name in missing)}" if missing else ""
    return Finding(f"target {target.name}", not missing, versions or "not installed", cost, remedy)


def _machine() -> Iterator[Finding]:
    apple = platform.system() == "Darwin"
    yield Finding(
        "CoreML runtime",
        apple,
        platform.mac_ver()[0] if apple else f"none on {platform.system()}",
        "coreml files are checked by evaluating the saved program in torch instead",
        "run `mobile-avatar verify` of the bundle on a Mac",
    )
    folder = cached_models()
    yield Finding(
        "tracker models",
        folder is not None,
        str(folder) if folder else "not fetched yet",
        "create and animate --video fetch them on first use",
        "needs pip once, or pass --tracker-models DIR (docs/create.md)",
    )
    tracker = importlib.util.find_spec("ai_edge_litert") is not None
    yield Finding(
        "face tracker",
        tracker,
        f"ai-edge-litert {_version('ai_edge_litert')}" if tracker else "ai-edge-litert is not installed",
        "create and animate --video cannot find faces",
        "pip install ai-edge-litert" if platform.system() != "Windows" else "there is no build for Windows: use WSL",
    )
    try:
        sdk, state = True, str(find_sdk_converter())
    except MissingTool as error:
        sdk, state = False, str(error).partition(":")[0]
    yield Finding(
        "Qualcomm SDK",
        sdk,
        state,
        "`--converter sdk` and runs on a phone; the package's own converter works without it",
        "install Qualcomm AI Runtime and set QAIRT_SDK_ROOT",
    )
    adb = shutil.which("adb")
    yield Finding(
        "adb", adb is not None, adb or "not found", "nothing can be pushed to a phone", "install platform-tools"
    )
    client = Path(os.environ.get("QAIHUB_CLIENT_INI") or Path.home() / ".qai_hub" / "client.ini")
    hub = importlib.util.find_spec("qai_hub") is not None
    state = "token configured" if hub and client.exists() else "package only" if hub else "not installed"
    yield Finding(
        "AI Hub account",
        hub and client.exists(),
        state,
        "no measurement on Qualcomm's hosted phones",
        f"pip install {EXTRAS['qai_hub']}, then qai-hub configure --api_token TOKEN",
    )


def _pip(name: str) -> str:
    return PIP_NAMES.get(name, name)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(_pip(name))
    except importlib.metadata.PackageNotFoundError:
        return "?"


def _is_linux_x86() -> bool:
    return platform.system() == "Linux" and platform.machine() == "x86_64"
