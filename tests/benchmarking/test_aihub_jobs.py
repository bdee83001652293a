"""Jobs on AI Hub that are interrupted, fail or vanish: nothing is measured twice, nothing is lost."""

import time
from pathlib import Path

import pytest

pytest.importorskip("qai_hub", reason="the extra `hub` is not installed")

import qai_hub.public_api_pb2 as pb
import qai_hub.util.session as session

from mobile_avatar.benchmarking.gate import judge
from mobile_avatar.benchmarking.result import Result
from mobile_avatar.benchmarking.store import newest, stored_results
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.errors import CheckFailed, MissingTool
from tests.benchmarking.hosted_phones import Service
from tests.benchmarking.hub_account import bundle, measured, open_service, write_account

RUNNING = {"profile": ("CREATED", "MEASURING_PERFORMANCE"), "inference": ("CREATED", "RUNNING_INFERENCE")}


@pytest.fixture(params=["tflite"])
def hub(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A bundle and the service that knows its answers."""
    subject, golden, spec = bundle(tmp_path / "bundle", request.param)
    service = open_service(golden, spec)
    write_account(tmp_path / "client.ini", service.url)
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "client.ini"))
    monkeypatch.setattr(session, "BACKOFF_FACTOR", 0.0)  # the library tries again for half a minute otherwise
    yield subject, service
    service.close()


def stored(subject: Subject) -> list[Result]:
    """Rows on disk as `mobile-avatar benchmark BUNDLE` shows them."""
    return newest(stored_results(subject)[0])


def test_jobs_that_take_long_are_picked_up(hub):
    subject, service = hub
    service.states = dict(RUNNING)
    with pytest.raises(CheckFailed, match="jobs j0, j1 are still running; run the same command again to pick it up"):
        measured(subject, wait_s=0.0)
    (waiting,) = stored(subject)
    assert (waiting.error, waiting.p50_ms) == ("still running; run the same command again to pick it up", None)
    assert [(job["id"], job["type"]) for job in waiting.jobs] == [("j0", "profile"), ("j1", "inference")]

    said: list[str] = []
    service.states["profile"] = ("MEASURING_PERFORMANCE", "MEASURING_PERFORMANCE", "DONE")
    service.states["inference"] = ("DONE",)
    service.asked.clear()
    (row,) = measured(subject, say=said.append)
    assert service.submitted() == ["profile", "inference"]
    assert len(service.models) == 1
    assert any("picked up profile job j0" in line for line in said)
    assert not any("sending" in line for line in said)
    assert (row.error, row.p50_ms, len(row.parity)) == ("", 3.701, 4)
    assert row.taken == "2026-09-21T14:13:20+00:00", "the time of the job, not of the pick-up"
    assert stored(subject) == [row], "the row that waited is shown no more"

    measured(subject)
    assert service.submitted() == ["profile", "inference"] * 2, "what was collected is measured anew"


def test_a_stop_while_waiting_keeps_the_jobs(hub, monkeypatch):
    subject, service = hub
    service.states = dict(RUNNING)

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", stop)
        with pytest.raises(KeyboardInterrupt):
            measured(subject)
    assert [job["status"] for job in stored(subject)[0].jobs] == ["CREATED", "CREATED"]
    service.states.clear()
    assert measured(subject)[0].p50_ms == 3.701
    assert service.submitted() == ["profile", "inference"]


def test_a_stop_between_the_jobs_keeps_the_first(hub):
    subject, service = hub
    service.refuse = ("/datasets", 400, '{"detail": "no space left for datasets"}')
    with pytest.raises(CheckFailed, match="AI Hub refused the job: no space left for datasets"):
        measured(subject)
    assert service.submitted() == ["profile"]
    assert stored(subject)[0].error == "AI Hub refused the job: no space left for datasets"
    service.refuse = None
    assert measured(subject)[0].p50_ms == 3.701
    assert service.submitted() == ["profile", "inference"]


def test_other_options_are_another_measurement(hub):
    subject, service = hub
    service.states = dict(RUNNING)
    for settings in ({}, {"runs": 20}, {"unit": "cpu"}, {"device": "Google Pixel 4a"}):
        with pytest.raises(CheckFailed, match="still running"):
            measured(subject, wait_s=0.0, **settings)
    assert service.submitted().count("profile") == 4
    assert service.submitted().count("inference") == 3 + 1


def test_a_failed_profile_is_told_and_measured_again(hub):
    subject, service = hub
    service.states = {"profile": ("CREATED", "FAILED")}
    service.reasons = {"profile": "Failed to profile the model: unexpected\n device error."}
    told = r"AI Hub job j0 failed: Failed to profile the model: unexpected device error \(http.*/jobs/j0/\)"
    with pytest.raises(CheckFailed, match=told):
        measured(subject)
    (row,) = stored(subject)
    assert row.error.startswith("AI Hub job j0 failed")
    assert row.p50_ms is None
    assert [check["passed"] for check in row.parity] == [True] * 4, "the outputs are kept"
    service.states.clear()
    (row,) = measured(subject)
    assert service.submitted() == ["profile", "inference", "profile"], "the good job is picked up"
    assert (row.p50_ms, [job["id"] for job in row.jobs]) == (3.701, ["j2", "j1"])


def test_a_failed_inference_keeps_the_times(hub):
    subject, service = hub
    service.states = {"inference": ("FAILED",)}
    service.reasons = {"inference": "Job timed out after 8h"}
    with pytest.raises(CheckFailed, match="job j1 failed: Job timed out after 8h"):
        measured(subject)
    (row,) = stored(subject)
    assert (row.error, row.p50_ms) == ("", 3.701)
    assert {(check["passed"], check["reason"][:16]) for check in row.parity} == {(None, "AI Hub job j1 fa")}


def test_outputs_that_are_not_ours_keep_the_times(hub):
    subject, service = hub
    right = service.answer
    service.answer = lambda inputs: {"uv": right(inputs)["uv"]}
    with pytest.raises(CheckFailed, match="the inference job returned uv instead of uv, lf, mask"):
        measured(subject)
    assert stored(subject)[0].p50_ms == 3.701


def test_a_profile_that_makes_no_sense_is_told_with_its_address(hub):
    subject, service = hub
    service.profile["execution_summary"]["all_inference_times"] = []
    with pytest.raises(CheckFailed, match=r"no times of single runs, .*3.652 ms.* \(http.*/jobs/j0/\)"):
        measured(subject)
    assert stored(subject)[0].operators == ()


def test_jobs_that_are_gone_are_submitted_again(hub):
    subject, service = hub
    service.states = dict(RUNNING)
    with pytest.raises(CheckFailed, match="still running"):
        measured(subject, wait_s=0.0)
    service.jobs.clear()
    service.states.clear()
    (row,) = measured(subject)
    assert row.p50_ms == 3.701
    assert [job["id"] for job in row.jobs] == ["j2", "j3"]


def test_a_lost_connection_loses_nothing(hub, monkeypatch):
    subject, service = hub
    service.states = dict(RUNNING)
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", lambda _: service.close())
        with pytest.raises(
            MissingTool, match="could not be reached for the state of the jobs: Could not connect to Qual"
        ):
            measured(subject)
    assert len(stored(subject)[0].jobs) == 2
    with pytest.raises(MissingTool, match=r"the list of devices: Could not connect.*nothing is lost"):
        measured(subject)


def test_a_service_that_wants_a_pause(hub):
    subject, service = hub
    service.refuse = ("/api/v1/jobs", 429, '{"detail": "too many jobs"}')
    with pytest.raises(MissingTool, match="run the same command again"):
        measured(subject)


def refuse_own_dlc(service: Service) -> None:
    """Phones run what the service compiled, and nothing else."""
    state = service.state

    def decide(job_id: str):
        own = service.jobs[job_id].inference_job.model.model_id != "compiled"
        service.states = {"profile": ("FAILED",), "inference": ("FAILED",)} if own else {}
        service.reasons = {"profile": "Unsupported DLC version", "inference": "Unsupported DLC version"}
        return state(job_id)

    service.state = decide


@pytest.mark.parametrize("hub", ["snpe"], indirect=True)
def test_a_dlc_that_is_refused_is_compiled_by_the_service(hub):
    subject, service = hub
    refuse_own_dlc(service)
    with pytest.raises(CheckFailed, match=r"job j0 failed: Unsupported DLC version \(.*/jobs/j0/\)"):
        measured(subject)
    assert service.submitted() == ["profile", "inference", "compile", "profile", "inference"]
    assert service.files["m1"] == b"the graph of the DLC"
    assert service.jobs["j2"].compile_job.options == "--target_runtime qnn_dlc"
    compiled, own = sorted(stored(subject), key=lambda row: row.own_file)
    assert own.own_file
    assert "Unsupported" in own.error
    assert (compiled.own_file, compiled.error, compiled.p50_ms) == (False, "", 3.701)
    assert "the service's own DLC" in compiled.notes[0]
    assert not judge([own, compiled], None, 42.0, require="measured").passed, "the gate does not take it for the file"


@pytest.mark.parametrize("hub", ["snpe"], indirect=True)
def test_a_compile_job_is_picked_up(hub):
    subject, service = hub
    refuse_own_dlc(service)
    decide = service.state

    def slow(job_id: str):
        job = decide(job_id)
        if job_id == "j2":
            job.compile_job.job_state = pb.JOB_STATE_OPTIMIZING_MODEL
        return job

    service.state = slow
    with pytest.raises(CheckFailed, match="jobs j2 are still running"):
        measured(subject, wait_s=0.2)
    service.state = decide
    with pytest.raises(CheckFailed, match="Unsupported"):
        measured(subject)
    assert service.submitted().count("compile") == 1
    assert [row.p50_ms for row in stored(subject) if not row.own_file] == [3.701]
