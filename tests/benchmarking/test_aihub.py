"""Measuring on AI Hub: Qualcomm's own library against a service on this computer that speaks its protocol."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("qai_hub", reason="the extra `hub` is not installed")

from mobile_avatar.benchmarking.aihub_service import plain
from mobile_avatar.errors import BadInput, MissingTool
from tests.benchmarking.hub_account import bundle, measured, open_service, write_account
from tests.cli.runner import run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that makes a bundle and the service that knows its answers."""
    services = []

    def make(target: str = "tflite", **options):
        subject, golden, spec = bundle(tmp_path / target, target, **options)
        services.append(open_service(golden, spec))
        write_account(tmp_path / "client.ini", services[-1].url)
        return subject, services[-1]

    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "client.ini"))
    yield make
    for service in services:
        service.close()


def test_the_command_measures_and_compares(hub, capfd):
    subject, service = hub()
    service.states = {"profile": ("DONE",), "inference": ("DONE",)}  # it waits between two questions
    done = run(capfd, "benchmark", subject.folder, "--on", "aihub", "--runs", 10, "--budget-ms", 42, "--json")
    assert done.code == 0, done.err
    printed = json.loads(done.out)  # the library's own prints are not in it
    row = printed["results"][0]
    assert (row["kind"], row["place"], row["device"], row["os"]) == ("measured", "aihub", "Google Pixel 4", "10")
    assert (row["soc"], row["runtime"], row["precision"]) == ("snapdragon-855", "litert", "fp16")
    assert (row["p50_ms"], row["delegate"], row["error"]) == (3.701, "GPU 3 of 4 operators", "")
    assert [check["output"] for check in row["parity"]] == ["uv", "lf", "mask", "image"]
    assert all(check["passed"] and check["psnr_db"] > 50 for check in row["parity"])
    assert row["parity"][0]["runner"] == "aihub Google Pixel 4 tflite gpu"
    assert [(job["type"], job["status"]) for job in row["jobs"]] == [("profile", "SUCCESS"), ("inference", "SUCCESS")]
    assert all(job["url"] == f"{service.url}/jobs/{job['id']}/" for job in row["jobs"])
    assert printed["budget"]["passed"]
    assert "measured p50 3.70 ms" in printed["budget"]["sentence"]
    stored = json.loads(next((subject.folder / "measurements").glob("aihub-*.json")).read_text())
    assert stored["results"] == [row]


def test_the_service_gets_the_files_and_options(hub):
    subject, service = hub()
    measured(subject)
    assert service.files["m0"] == (subject.folder / "render.tflite").read_bytes()
    assert service.submitted() == ["profile", "inference"]
    profile, inference = (job.inference_job for job in service.jobs.values())
    assert profile.options == "--compute_unit gpu --max_profiler_iterations 11"
    assert not profile.HasField("dataset")
    assert inference.options == "--compute_unit gpu"
    assert profile.device.os == "10"
    sent = service.entries(inference.dataset.dataset_id)["keypoints"]
    np.testing.assert_array_equal(np.concatenate(sent), subject.golden(subject.spec.inputs[0]))
    assert sent[0].shape == (1, 136)


def test_integer_files_are_fed_and_read_in_integers(hub):
    stored = {"keypoints": ("int8", 1 / 127, 0), "lf": ("uint8", 2 / 255, 128), "mask": ("int8", 1 / 255, -128)}
    subject, service = hub(precision="w8a8", integers=stored)
    (row,) = measured(subject)
    assert service.entries(service.jobs["j1"].inference_job.dataset.dataset_id)["keypoints"][0].dtype == np.int8
    assert service.jobs["j1"].inference_job.options == "--compute_unit all"
    assert [check["passed"] for check in row.parity] == [True] * 4


def test_wrong_outputs_are_found(hub):
    subject, service = hub()
    right = service.answer
    service.answer = lambda inputs: {name: [a * 0 for a in arrays] for name, arrays in right(inputs).items()}
    (row,) = measured(subject)
    assert not any(check["passed"] for check in row.parity)


def test_a_dlc_is_run_as_it_is(hub):
    subject, service = hub("snpe")
    (row,) = measured(subject)
    assert service.submitted() == ["profile", "inference"]
    assert service.files["m0"] == (subject.folder / "render.dlc").read_bytes()
    assert (row.runtime, row.own_file) == ("qnn", True)
    assert "--qnn_options default_graph_gpu_precision=FLOAT16" in row.command


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Google Pixel 44", "no device 'Google Pixel 44' .nearest: Google Pixel 4, Google Pixel 4a"),
        ("s24", "nearest: Samsung Galaxy S24"),
        ("???", "nearest: none"),
    ],
)
def test_an_unknown_device_gets_near_names(hub, name, sentence):
    subject, service = hub()
    with pytest.raises(BadInput, match=sentence):
        measured(subject, device=name)
    assert not service.models


def test_devices_that_do_not_run_a_file_are_refused_before_anything_is_sent(hub):
    subject, service = hub("snpe")
    with pytest.raises(BadInput, match=r"Pixel 4a on AI Hub does not run snpe files .* as Google Pixel 4, Samsung"):
        measured(subject, device="Google Pixel 4a")
    subject, service = hub("coreml")
    with pytest.raises(BadInput, match=r"framework:coreml is not among its attributes\); no device there does"):
        measured(subject)
    assert not service.models


def test_executorch_is_refused(tmp_path):
    subject, _, _ = bundle(tmp_path / "x", "executorch")
    with pytest.raises(BadInput, match="AI Hub does not run executorch files; export one of tflite"):
        measured(subject)


def test_no_token(tmp_path, monkeypatch, capfd):
    subject, _, _ = bundle(tmp_path / "x", "tflite")
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "none.ini"))
    done = run(capfd, "benchmark", subject.folder, "--on", "aihub")
    assert done.code == 3
    assert done.sentence.startswith(
        f"AI Hub account: Failed to load client configuration file. {tmp_path}/none.ini not"
    )
    assert "https://aihub.qualcomm.com/get-started" in done.sentence
    assert "ESTIMATED" in done.out  # what is known without the service is still shown


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("garbage", "settings cannot be read .File contains no section headers"),
        ("[api]\napi_url = x\n", "Your API token is missing.*docs/hub/getting_started.html"),
        (
            "[api]\napi_url = x\nweb_url = x\napi_token = x\n",
            "could not be reached for the list of devices: Invalid URL",
        ),
    ],
)
def test_a_damaged_configuration(tmp_path, monkeypatch, text, sentence):
    subject, _, _ = bundle(tmp_path / "x", "tflite")
    (tmp_path / "client.ini").write_text(text)
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "client.ini"))
    with pytest.raises(MissingTool, match=sentence):
        measured(subject)


def test_a_token_that_is_not_accepted(hub, tmp_path, capfd):
    subject, service = hub()
    write_account(tmp_path / "client.ini", service.url, "another")
    done = run(capfd, "benchmark", subject.folder, "--on", "aihub")
    assert done.code == 3
    assert (
        "Failed to authenticate. Failure to authenticate is likely caused by a bad or expired API token"
        in done.sentence
    )


def test_without_the_library(tmp_path, monkeypatch):
    subject, _, _ = bundle(tmp_path / "x", "tflite")
    monkeypatch.setitem(sys.modules, "qai_hub", None)
    with pytest.raises(MissingTool, match=r"needs its library \(pip install 'mobile-avatar\[hub\]'\)"):
        measured(subject)


def test_boxes_of_the_library_are_unpacked():
    from qai_hub.client import UserError, _visible_textbox

    long = "https://workbench.example.com/docs/hub/a/very/long/address/getting_started.html"
    text = f"First some words that fill a line of the box, then the address: {long} and the end."
    assert plain(UserError(f"It failed.\n{_visible_textbox(text)}")) == f"It failed. {text.rstrip('.')}"
    assert plain(UserError("")) == "UserError"
