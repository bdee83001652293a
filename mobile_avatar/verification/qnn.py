"""Runs a `snpe` bundle: the DLC itself on Qualcomm's Hexagon simulator, and holds it against its source ONNX."""

import math
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, LifoQueue

import numpy as np

from mobile_avatar.errors import MissingTool
from mobile_avatar.exporters.qnn_process import DEFAULT_SOC, SOCS, Worker
from mobile_avatar.graphs.spec import GraphSpec
from mobile_avatar.verification.dlc import check_dlc, check_integers, read_dlc
from mobile_avatar.verification.onnxruntime_runner import load_model, open_session
from mobile_avatar.verification.parity import THRESHOLDS, decibels
from mobile_avatar.verification.runners import Check, Exported, Runner

SIMULATOR = "qnn-htp-simulator-"
OF_SOURCE = " (source ONNX of the DLC)"
SOURCE_ON_CPU = f"onnxruntime-cpu{OF_SOURCE}"
WRAPPER_ROLE = "context-wrapper-"
WORKERS = 2
"""Simulators at a time: one uses a single core and about 0.5 GB."""


class Simulator:
    """A file on the Hexagon simulator. `run` may be called from several threads: each gets a process of its own."""

    def __init__(self, command: str, path: Path, soc: str = DEFAULT_SOC) -> None:
        """Open `path` with the worker's `command` (`load_dlc` or `load_onnx`).

        Raises:
            MissingTool: the simulator is not installed, or of a version that cannot do this.
            CheckFailed: Qualcomm's library refuses the file.
        """
        self._request = (command, str(path.resolve()), soc)
        self._idle: LifoQueue[Worker] = LifoQueue()
        self._lock = threading.Lock()
        self._to_start = WORKERS - 1
        self._idle.put(self._start())

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Input name -> array, to output name -> array, in the types of the file."""
        worker = self._take()
        try:
            return worker.ask("run", {name: np.ascontiguousarray(array) for name, array in feeds.items()})
        finally:
            self._idle.put(worker)

    def _take(self) -> Worker:
        try:
            return self._idle.get_nowait()
        except Empty:
            with self._lock:
                start = self._to_start > 0
                self._to_start -= start
            return self._start() if start else self._idle.get()

    def _start(self) -> Worker:
        worker = Worker()
        worker.ask(*self._request)
        return worker


def open_qnn(exported: Exported) -> Runner:
    """A runner for `render.dlc`.

    FP16 and integers: the DLC is executed on the simulator of the Hexagon NPU. FP32: no backend of onnxruntime-qnn
    computes in FP32, so the source ONNX runs on the CPU, the DLC's weights are compared with it byte for byte, and
    one frame of the DLC is executed in FP16.

    Raises:
        MissingTool: onnxruntime-qnn is not installed.
        CheckFailed: a file is damaged or is refused.
    """
    path, source = exported.files["model"], exported.files["source"]
    dlc, floating = read_dlc(path), exported.precision in ("fp32", "fp16")
    checks = check_dlc(dlc, load_model(source), exported.spec)
    if not floating:
        checks.append(check_integers(dlc))
    probe = _probe(exported.spec)
    name = SIMULATOR + ("fp16" if floating else exported.precision)
    try:
        simulator = Simulator("load_dlc", path)
        # Where the API is unknown, the source ONNX stands in; the weights check ties the DLC to it.
        checks.append(Check("the DLC itself was executed", True, "built by libQnnSystem in the HTP backend"))
    except MissingTool as error:
        simulator, name = Simulator("load_onnx", source), name + OF_SOURCE
        checks.append(Check("the DLC itself was executed", None, f"its source ONNX was, instead: {error}"))
    run = simulated = _real(simulator, exported.spec)
    if exported.precision == "fp32":
        run, name = open_session(source, exported.spec), SOURCE_ON_CPU
        checks.append(_agree("the DLC on the simulator (FP16)", simulated(probe), run(probe), exported, 1))
    contexts = {role: file for role, file in exported.files.items() if role.startswith(WRAPPER_ROLE)}
    reference = simulated(probe) if contexts else {}
    for role, wrapper in contexts.items():
        soc = role.removeprefix(WRAPPER_ROLE)
        result = _real(Simulator("load_onnx", wrapper, soc), exported.spec)(probe)
        checks.append(_agree(f"context binary for {SOCS[soc].title}", result, reference, exported, 1))
    return Runner(name, run, checks, workers=WORKERS)


def _real(simulator: Simulator, spec: GraphSpec) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """`Simulator.run` with real numbers, where the file's inputs and outputs are integers."""
    (source,) = spec.inputs

    def run(values: np.ndarray) -> dict[str, np.ndarray]:
        results = simulator.run({source.name: source.store(values)})
        return {tensor.name: tensor.load(results[tensor.name]) for tensor in spec.outputs}

    return run


def _probe(spec: GraphSpec) -> np.ndarray:
    """Some input: everything from the lowest to the highest value, within [-1, 1]."""
    (source,) = spec.inputs
    low, high = (max(-1.0, min(1.0, value)) for value in source.range)
    return np.linspace(low, high, math.prod(source.shape), dtype=np.float32).reshape(source.shape)


def _agree(
    name: str, result: dict[str, np.ndarray], reference: dict[str, np.ndarray], exported: Exported, cases: int
) -> Check:
    """One frame of two runtimes, judged at the gate of FP16."""
    worst = min(decibels(t.peak, result[t.name] - reference[t.name]) for t in exported.spec.outputs)
    detail = f"executed on the simulator, {worst:.1f} dB on {cases} frame (gate {THRESHOLDS['fp16']:g} dB)"
    return Check(name, worst >= THRESHOLDS["fp16"], detail)
