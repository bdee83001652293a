"""Qualcomm: a DLC for the SNPE / QNN runtimes of Snapdragon phones, and context binaries for its newer NPUs."""

import os
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from mobile_avatar.errors import BadInput, CheckFailed, MissingTool
from mobile_avatar.exporters.qnn_process import Worker, find_soc
from mobile_avatar.exporters.registry import Product, Request, register_target
from mobile_avatar.exporters.targets.onnx import build_model
from mobile_avatar.exporters.workshop import workshop
from mobile_avatar.verification.dlc import add_metadata, float_operations, read_dlc

SDK_VARIABLES = ("QAIRT_SDK_ROOT", "QNN_SDK_ROOT", "SNPE_ROOT")
SDK_HOST = "x86_64-linux-clang"
SDK_CONVERTERS = ("qairt-converter", "snpe-onnx-to-dlc")
CONVERTERS = ("ir", "sdk")
SDK_TIMEOUT_S = 900
INTEGER_UNIT = (
    "an integer DLC runs on Hexagon NPUs with 16-bit activations (Snapdragon 888 and newer); on a Snapdragon 855 use "
    "fp16: its GPU cannot run integer DLCs, and its Hexagon v66 computes with 8-bit activations only"
)


@register_target(
    name="snpe",
    title="Qualcomm DLC for the SNPE / QNN runtimes of Snapdragon phones",
    layout="NHWC",
    warps=("split", "native"),
    precisions=("fp16", "fp32", "w8a8", "w8a16", "mixed"),
    packages=("onnx", "onnxsim", "onnxruntime", "onnxruntime_qnn"),
    recipe="snapdragon-855",
    runner="mobile_avatar.verification.qnn:open_qnn",
    options=("converter", "socs"),
    quantize_io=True,
)
def convert(request: Request) -> Product:
    """Write `render.dlc` and the ONNX file that it is made from; of integer precisions that is a QDQ graph.

    Options: `converter` is `ir` (Qualcomm's IR backend in onnxruntime-qnn, the default) or `sdk` (the converter of a
    local Qualcomm SDK); `socs` lists NPUs (`qnn_process.SOCS`) that get a context binary, `render.<soc>.bin`, with
    the small `render.<soc>.onnx` through which ONNX Runtime loads it.

    Raises:
        BadInput: an option has an unknown value.
        MissingTool: onnxruntime-qnn or the SDK is not there.
        CheckFailed: Qualcomm's converter refuses the graph.
    """
    converter, socs = request.options.get("converter", "ir"), request.options.get("socs", [])
    if converter not in CONVERTERS:
        raise BadInput(f"unknown converter {converter!r}; choose one of {', '.join(CONVERTERS)}")
    titles = [find_soc(name).title for name in socs]
    sdk = find_sdk_converter() if converter == "sdk" else None
    made = build_source(request)
    notes = made.notes
    files = {"model": f"{request.name}.dlc", "source": f"source/{request.name}.onnx"}
    source, target = (request.folder / files[role] for role in ("source", "model"))
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(made.model.SerializeToString())
    tools = {name: version(name) for name in ("onnx", "onnxsim", "onnxruntime")}
    if sdk:
        run_sdk_converter(sdk, source, target)
        tools[sdk.name] = sdk.parents[2].name
    if socs or not sdk:
        tools["onnxruntime-qnn"] = version("onnxruntime-qnn")
        with Worker() as worker:
            if not sdk:
                worker.ask("convert", str(source.resolve()), str(target.resolve()))
                add_metadata(target, request.metadata)
            for name in socs:
                wrapper = request.folder / f"{request.name}.{name}.onnx"
                worker.ask("compile_context", str(source.resolve()), name, str(wrapper.resolve()))
                files[f"context-{name}"] = f"{request.name}.{name}.bin"
                files[f"context-wrapper-{name}"] = wrapper.name
    if titles:
        notes += (f"a context binary runs only on the chip that it was compiled for: {', '.join(titles)}",)
    quantization = made.facts
    if quantization and not sdk:
        # The file is the truth: what the converter could not take as integers it keeps in float without a word.
        quantization |= _describe_floats(*float_operations(read_dlc(target)))
    return Product(files, tools, notes, made.integers, quantization)


@dataclass(frozen=True)
class Source:
    """The ONNX file that a DLC is made from."""

    model: object
    """onnx.ModelProto: float32, float16 or QDQ."""
    notes: tuple[str, ...]
    integers: dict[str, tuple[str, float, int]] = field(default_factory=dict)
    """Integer inputs and outputs, as Product has them."""
    facts: dict = field(default_factory=dict)
    """`Product.quantization`, counted in this model."""


def build_source(request: Request) -> Source:
    """The source model of a request; integer precisions are calibrated with its keypoints.

    Raises:
        CheckFailed: ONNX Runtime's quantiser refuses the graph.
    """
    if request.calibration is None:
        return Source(*build_model(request))
    from mobile_avatar.quantization.qdq import float_operators, quantize_model

    model, notes = build_model(replace(request, precision="fp32"))
    with workshop(request.folder, "ONNX Runtime's quantiser"):
        done = quantize_model(
            model, request.spec, request.calibration, request.precision, request.keep, request.quantize_io
        )
    if done.missing:
        notes += (f"without an operator of their own in this graph, so not kept: {', '.join(done.missing)}",)
    facts = _describe_floats(*float_operators(done.model.graph))
    facts["operators_with_16_bit_activations"] = done.wide
    return Source(done.model, (*notes, INTEGER_UNIT), done.integers, facts)


def _describe_floats(count: int, floats: dict[str, int]) -> dict:
    reasons = [
        f"{number} {name}: Qualcomm's converter has no integer form of it here" for name, number in floats.items()
    ]
    return {"operators": count, "float_operators": floats, "float_reasons": reasons}


def find_sdk_converter() -> Path:
    """The converter of the Qualcomm SDK that an environment variable points to.

    Raises:
        MissingTool: no variable is set, or there is no converter below the folder.
    """
    roots = {name: os.environ[name] for name in SDK_VARIABLES if os.environ.get(name)}
    if not roots:
        raise MissingTool(
            f"--converter sdk needs Qualcomm's AI Runtime SDK: set {SDK_VARIABLES[0]} to its folder, or leave the "
            "option out to use the converter that comes with onnxruntime-qnn"
        )
    for root in roots.values():
        for name in SDK_CONVERTERS:
            path = Path(root, "bin", SDK_HOST, name)
            if path.is_file():
                return path
    where = ", ".join(f"{name}={root}" for name, root in roots.items())
    raise MissingTool(f"no {' or '.join(SDK_CONVERTERS)} in bin/{SDK_HOST} below {where}; point it to the SDK's folder")


def run_sdk_converter(converter: Path, source: Path, target: Path) -> None:
    """Convert with the SDK; precision and layout are those of the ONNX file, which these tools retain.

    Raises:
        CheckFailed: the converter failed or wrote nothing; the sentence ends with its last line.
    """
    root = converter.parents[2]
    environment = dict(os.environ)
    for name, folder in (
        ("PATH", converter.parent),
        ("PYTHONPATH", root / "lib" / "python"),
        ("LD_LIBRARY_PATH", root / "lib" / SDK_HOST),
    ):
        environment[name] = os.pathsep.join(filter(None, (str(folder), os.environ.get(name))))
    command = [str(converter), "--input_network", str(source.resolve()), "--output_path", str(target.resolve())]
    with tempfile.TemporaryDirectory(prefix="mobile-avatar-sdk-") as folder:
        try:
            result = subprocess.run(
                command, env=environment, cwd=folder, capture_output=True, text=True, timeout=SDK_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CheckFailed(f"{converter} could not be run: {error}") from error
    if result.returncode or not target.is_file():
        lines = (result.stderr.strip() or result.stdout.strip()).splitlines() or ["it said nothing"]
        raise CheckFailed(f"{converter} failed with exit code {result.returncode}: {lines[-1][:300]}")
