"""Qualcomm's libraries in a process of their own: converting, compiling and running on the Hexagon simulator.

The libraries write into the working directory, print to the terminal and may crash, so they never run in the calling
process.
"""

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mobile_avatar.child import Child, serve
from mobile_avatar.errors import BadInput, MissingTool, first_line
from mobile_avatar.graphs.onnx_runtime import load_onnxruntime

PACKAGES = ("onnxruntime", "onnxruntime_qnn")


@dataclass(frozen=True)
class Soc:
    """A Snapdragon with an FP16-capable Hexagon NPU, in the numbers of Qualcomm's tools."""

    title: str
    soc_model: int
    htp_arch: int


SOCS: dict[str, Soc] = {
    "snapdragon-8-gen-2": Soc("Snapdragon 8 Gen 2", 43, 73),
    "snapdragon-8-gen-3": Soc("Snapdragon 8 Gen 3", 57, 75),
    "snapdragon-8-elite": Soc("Snapdragon 8 Elite", 69, 79),
}
DEFAULT_SOC = "snapdragon-8-gen-2"


def find_soc(name: str) -> Soc:
    """The entry of SOCS; BadInput lists the known names."""
    if name not in SOCS:
        raise BadInput(f"unknown SoC {name!r}; context binaries can be made for {', '.join(SOCS)}")
    return SOCS[name]


class Worker(Child):
    """A child process with Qualcomm's libraries, in a temporary folder; see _COMMANDS.

    Raises MissingTool when onnxruntime-qnn is not installed.
    """

    def __init__(self) -> None:
        from importlib.util import find_spec

        if not all(find_spec(package) for package in PACKAGES):
            raise MissingTool("Qualcomm files need onnxruntime-qnn (Linux x86-64): run `pip install onnxruntime-qnn`")
        folder = tempfile.TemporaryDirectory(prefix="mobile-avatar-qnn-")
        self._log = Path(folder.name, "log.txt")
        with open(self._log, "wb") as log:
            super().__init__(
                "mobile_avatar.exporters.qnn_process", "Qualcomm's library", log, folder.name, folder.cleanup
            )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.is_file() else []
        return lines[-1].strip()[:200] if lines else ""


# ---- everything below runs in the child ----


def convert(source: str, target: str) -> None:
    """Serialise an ONNX file to a DLC with Qualcomm's IR backend.

    The HTP operator builder is the one whose result the HTP backend can load again (the generic one writes `Resize`,
    which HTP refuses; `ResizeNearestNeighbor` is also the older and wider supported operator on Adreno).
    """
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    _session(source, {"backend_type": "htp", "dump_qnn_ir_dlc": "1", "dump_qnn_ir_dlc_dir": str(folder)}, {})
    made = list(folder.glob("*.dlc"))
    if len(made) != 1:
        raise RuntimeError(f"{len(made)} graphs were written instead of one: a node is not supported")
    Path(target).write_bytes(made[0].read_bytes())


def compile_context(source: str, soc_name: str, target: str) -> None:
    """Compile an ONNX file for one NPU: `target` (.onnx wrapper for ONNX Runtime) and beside it a .bin of its name."""
    import onnx

    target, soc = Path(target), SOCS[soc_name]
    wrapper = Path.cwd() / target.name
    config = {"ep.context_enable": "1", "ep.context_file_path": str(wrapper), "ep.context_embed_mode": "0"}
    _session(source, _htp_options(soc), config)
    model = onnx.load(wrapper, load_external_data=False)
    (attribute,) = (a for node in model.graph.node for a in node.attribute if a.name == "ep_cache_context")
    binary = wrapper.with_name(attribute.s.decode())
    attribute.s = target.with_suffix(".bin").name.encode()
    target.with_suffix(".bin").write_bytes(binary.read_bytes())
    onnx.save(model, target)


_loaded: list[object] = []


def load_onnx(path: str, soc_name: str) -> None:
    """Open an ONNX file (or a context wrapper) on the simulator, without CPU fallback; `run` executes it."""
    session = _session(path, _htp_options(SOCS[soc_name]), {})
    names = [output.name for output in session.get_outputs()]
    _loaded[:] = [lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))]


def load_dlc(path: str, soc_name: str) -> None:
    """Open a DLC itself on the simulator; `run` executes it."""
    from mobile_avatar.verification.dlc_native import DlcOnSimulator

    soc = SOCS[soc_name]
    _loaded[:] = [DlcOnSimulator(Path(path), soc.soc_model).run]


def run(feeds: dict) -> dict:
    """Execute what was loaded: input name -> array, to output name -> array, in the types of the file."""
    return _loaded[0](feeds)


_COMMANDS = {f.__name__: f for f in (convert, compile_context, load_onnx, load_dlc, run)}


def _htp_options(soc: Soc) -> dict[str, str]:
    return {
        "backend_type": "htp",
        "enable_htp_fp16_precision": "1",
        "htp_arch": str(soc.htp_arch),
        "soc_model": str(soc.soc_model),
    }


def _session(path: str, options: dict[str, str], config: dict[str, str]) -> object:
    """An ONNX Runtime session on Qualcomm's provider alone: a node that it cannot take is an error."""
    import onnxruntime_qnn

    onnxruntime = load_onnxruntime()
    name = onnxruntime_qnn.get_ep_name()
    with contextlib.suppress(Exception):  # registered already by an earlier command
        onnxruntime.register_execution_provider_library(name, onnxruntime_qnn.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.add_provider_for_devices(devices[:1], options)
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    for key, value in config.items():
        settings.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(path, settings)
    session.disable_fallback()  # the wrapper would otherwise retry a failed run on the CPU
    return session


if __name__ == "__main__":
    serve(_COMMANDS, lambda command, error: f"Qualcomm's library refused to {command}: {first_line(error)}")
