"""A real model on a scripted phone: the raw files that go there and come back mean what the file means by them.

In place of TFLite's benchmark_model stands a script with its arguments and its output, which runs the pushed file in
this computer's LiteRT: inputs and outputs by their order in the file, as that program takes them.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mobile_avatar.benchmarking.phone import measure
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.store import Journal
from mobile_avatar.benchmarking.subject import open_subject
from tests.benchmarking.scripted_phone import ScriptedPhone

TOOL = """#!{python} -P
import re, sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
words = dict(re.findall(r"--(\\w+)=(\\S+)", " ".join(sys.argv[1:])))
model = Interpreter(model_path=words["graph"], num_threads=1)
model.allocate_tensors()
(source,) = model.get_input_details()
values = np.zeros(source["shape"], source["dtype"])
if "input_layer_value_files" in words:
    name, _, path = words["input_layer_value_files"].partition(":")
    assert words["input_layer_shape"] == ",".join(map(str, source["shape"])), words
    values = np.fromfile(path, source["dtype"]).reshape(source["shape"])
model.set_tensor(source["index"], values)
times = []
for _ in range(3):
    start = time.perf_counter()
    model.invoke()
    times.append(int((time.perf_counter() - start) * 1e6))
print(f"count=3 first={{times[0]}} curr={{times[2]}} min={{min(times)}} max={{max(times)}} std=0")
print(f"Inference timings in us: Init: 1000, First inference: 1, Warmup (avg): 1, Inference (avg): {{sum(times) / 3}}")
if "output_filepath" in words:
    content = b"".join(model.get_tensor(row["index"]).tobytes() for row in model.get_output_details())
    open(words["output_filepath"], "wb").write(content)
"""


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--precision", "fp16"), ("--precision", "w8a8", "--quantize-io")])
def test_parity_on_the_phone_is_that_of_this_computer(tmp_path, monkeypatch, arguments):
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    folder = tmp_path / "bundle"
    export = [sys.executable, "-m", "mobile_avatar", "export", "--target", "tflite", *arguments, "-o", str(folder)]
    subprocess.run(export, check=True, capture_output=True, cwd=Path(__file__).parents[2])
    phone = ScriptedPhone(tmp_path / "phone")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "benchmark_model").write_text(TOOL.format(python=sys.executable))
    subject = open_subject(folder)
    journal = Journal(subject, "adb")
    measure(subject, Settings(runs=3, tools=tools, say=lambda line: None), journal, phone)
    here = {row["output"]: row for row in json.loads((folder / "manifest.json").read_text())["parity"]}
    cpu, gpu = journal.results
    for row in cpu.parity:
        assert row["passed"]
        assert row["psnr_db"] == pytest.approx(here[row["output"]]["psnr_db"], abs=0.1)
    # The script has no GPU, and neither its log nor its outputs claim one.
    assert gpu.delegate == "CPU (fallback)"
