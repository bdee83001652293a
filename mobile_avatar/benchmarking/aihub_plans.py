"""What is sent to Qualcomm AI Hub for a bundle, and the options of its jobs: one table, one row per target."""

from collections.abc import Sequence
from dataclasses import dataclass

from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.errors import BadInput
from mobile_avatar.exporters.registry import INTEGER


@dataclass(frozen=True)
class Plan:
    """One way to measure a bundle."""

    role: str
    """The file to send, one of the bundle's roles."""
    runtime: str
    """As in `Result.runtime`."""
    framework: str
    """The device has to have this one: its attribute `framework:<name>`."""
    compile_options: str = ""
    """Not empty: the service compiles the file first and what it measures is not the bundle's own model file."""
    note: str = ""

    @property
    def own_file(self) -> bool:
        return not self.compile_options


PLANS: dict[str, tuple[Plan, ...]] = {
    "tflite": (Plan("model", "litert", "tflite"),),
    # ONNX Runtime runs the file as it is. Compiled to TFLite or a DLC it would be a measurement of another bundle.
    "onnx": (Plan("model", "onnxruntime", "onnx"),),
    "coreml": (Plan("model", "coreml", "coreml"),),
    # The service takes DLCs of its own converter. Ours has the same format, but where it is refused the same graph
    # still tells what the phone can do.
    "snpe": (
        Plan("model", "qnn", "qnn"),
        Plan(
            "source",
            "qnn",
            "qnn",
            compile_options="--target_runtime qnn_dlc",
            note="not the bundle's render.dlc but the service's own DLC of the same graph, source/render.onnx",
        ),
    ),
}
"""Target -> plans, the best first; the next one is for when the service cannot run the file of the one before."""


def plans_for(subject: Subject) -> tuple[Plan, ...]:
    """The plans of a bundle; BadInput where AI Hub does not know its runtime."""
    plans = PLANS.get(subject.target)
    if plans is None:
        known = ", ".join(PLANS)
        raise BadInput(f"AI Hub does not run {subject.target} files; export one of {known} and measure that")
    return plans


def compute_unit(plan: Plan, precision: str, warp: str, attributes: Sequence[str]) -> str:
    """The unit a bundle is made for on a device with these attributes: `npu`, `gpu`, `cpu` or `all`.

    Integers run on other units on every chip, so the service chooses. Float files go to the GPU, as on a Snapdragon
    855, and to an NPU only where it computes in FP16; files that the CPU is meant for stay there.
    """
    if plan.runtime == "coreml" or precision in INTEGER:
        return "all"
    if warp == "gather" or (plan.runtime == "onnxruntime" and precision == "fp32"):
        return "cpu"
    if plan.runtime == "qnn" and precision == "fp16" and "htp-supports-fp16:true" in attributes:
        return "npu"
    return "gpu"


def job_options(plan: Plan, precision: str, unit: str) -> str:
    """Options of an inference job: the unit, and what keeps the arithmetic that the bundle was made for."""
    options = [f"--compute_unit {unit}"]
    if plan.runtime == "litert" and precision == "fp32":
        options.append("--tflite_options allow_fp32_as_fp16=false")
    if plan.runtime == "qnn" and precision == "fp16":
        # Without it the HTP takes a graph for a quantised one.
        each = {"gpu": "default_graph_gpu_precision=FLOAT16", "npu": "default_graph_htp_precision=FLOAT16"}
        wanted = [each[unit]] if unit in each else [] if unit == "cpu" else list(each.values())
        options += [f"--qnn_options {';'.join(wanted)}"] if wanted else []
    return " ".join(options)
