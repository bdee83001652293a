"""AI Hub's service on this computer: it speaks the protocol of the installed `qai_hub`, so that the library is real.

What it answers is the tests' own: the states its jobs go through, a profile, and outputs computed from the inputs.
"""

import io
import itertools
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import h5py
import numpy as np
import qai_hub.public_api_pb2 as pb
from google.protobuf.message import Message
from qai_hub.util.dataset_entries_converters import dataset_entries_to_h5, h5_to_dataset_entries
from requests_toolbelt import MultipartDecoder

TOKEN = "a-token"
SUBMITTED = 1_790_000_000
"""When every job was submitted, seconds since 1970."""
DONE = ("CREATED", "DONE")
PIXEL = ("Google Pixel 4", ["chipset:qualcomm-snapdragon-855", "chipset:sm8150"])
DEVICES = [
    ("Google Pixel 4", "9", [*PIXEL[1], "framework:tflite", "framework:qnn", "framework:onnx"]),
    ("Google Pixel 4", "10", [*PIXEL[1], "framework:tflite", "framework:qnn", "framework:onnx"]),
    ("Google Pixel 4a", "12", ["chipset:qualcomm-snapdragon-730g", "framework:tflite"]),
    (
        "Samsung Galaxy S24",
        "14",
        ["chipset:qualcomm-snapdragon-8gen3", "htp-supports-fp16:true", "framework:qnn", "framework:tflite"],
    ),
]


class Service:
    """One account. `jobs` holds what was submitted, by id, in order."""

    def __init__(self, profile: dict, answer: Callable[[dict], dict]) -> None:
        self.states: dict[str, tuple[str, ...]] = {}
        """Kind of job -> states it goes through, one per question; the last one stays. DONE where it is not named."""
        self.reasons: dict[str, str] = {}
        """Kind of job -> why it fails."""
        self.profile, self.answer = profile, answer
        self.jobs: dict[str, pb.Job] = {}
        self.numbers = itertools.count()
        self.models: dict[str, pb.Model] = {}
        self.files: dict[str, bytes] = {}
        self.asked: dict[str, int] = {}
        self.refuse: tuple[str, int, str] | None = None
        """Part of a path, status and text of an answer to every request for it."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"service": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def submitted(self) -> list[str]:
        """Kinds of the jobs in the order in which they came."""
        return [kind_of(job) for job in self.jobs.values()]

    def entries(self, name: str) -> dict[str, list[np.ndarray]]:
        """An uploaded dataset as arrays."""
        with h5py.File(io.BytesIO(self.files[name]), "r") as file:
            return h5_to_dataset_entries(file)

    def state(self, job_id: str) -> pb.Job:
        job = self.jobs[job_id]
        kind = kind_of(job)
        states = self.states.get(kind, DONE)
        number = self.asked[job_id] = self.asked.get(job_id, -1) + 1
        part = job.compile_job if kind == "compile" else job.inference_job
        if part.job_state in (pb.JOB_STATE_DONE, pb.JOB_STATE_FAILED):
            return job
        name = states[min(number, len(states) - 1)]
        part.job_state = pb.JobState.Value(f"JOB_STATE_{name}")
        if name == "FAILED":
            part.failure_reason = self.reasons.get(kind, "")
        return job


def kind_of(job: pb.Job) -> str:
    if job.WhichOneof("job") == "compile_job":
        return "compile"
    return "profile" if job.inference_job.is_profiling_on else "inference"


class _Handler(BaseHTTPRequestHandler):
    service: Service
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        refuse = self.service.refuse
        if refuse and refuse[0] in address.path:
            return self._send(refuse[1], refuse[2].encode(), "text/plain")
        if address.path.startswith("/file/"):
            return self._file(address.path.removeprefix("/file/"), body)
        if self.headers.get("Authorization") != f"token {TOKEN}":
            return self._send(401, b"", "text/plain")
        path = f"{self.command} {address.path.removeprefix('/api/v1/').strip('/')}"
        for pattern, method in ROUTES:
            if found := re.fullmatch(pattern, path):
                answer = method(self.service, *found.groups(), **({"body": body, "query": parse_qs(address.query)}))
                if answer is None:
                    return self._send(404, b"", "text/plain")
                return self._send(200, answer.SerializeToString(), "application/x-protobuf")
        raise AssertionError(f"the library asked for {path}")

    do_GET = do_POST = do_PUT = do_PATCH = _serve

    def _file(self, name: str, body: bytes) -> None:
        if self.command == "GET":
            return self._send(200, self.service.files[name], "application/octet-stream")
        if self.command == "POST":
            parts = MultipartDecoder(body, self.headers["Content-Type"]).parts
            body = next(p.content for p in parts if b'name="file"' in p.headers[b"Content-Disposition"])
        self.service.files[name] = body
        return self._send(200, b"", "text/plain")

    def _send(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", "tag")
        self.end_headers()
        self.wfile.write(body)


def _devices(service: Service, query: dict, **_: object) -> Message:
    name = query.get("name", [""])[0]
    found = [pb.Device(name=n, os=o, attributes=a) for n, o, a in DEVICES if name in ("", n)]
    if query["select"] == ["True"]:
        found = [device for device in found if query.get("os", [""])[0] in ("", device.os)][-1:]
    return pb.DeviceList(devices=found)


def _new_model(service: Service, body: bytes, **_: object) -> Message:
    model = pb.Model.FromString(body)
    model.model_id = f"m{len(service.models)}"
    service.models[model.model_id] = model
    return pb.CreateUpdateResponse(id=model.model_id)


def _upload_model(service: Service, name: str, **_: object) -> Message:
    where = pb.FileMultipartUploadURL(urls=[f"{service.url}/file/{name}"], upload_id="u", max_part_size=1 << 30)
    return pb.FileUploadResponse(multipart_url=where)


def _get_model(service: Service, name: str, **_: object) -> Message | None:
    return service.models.get(name)


def _new_dataset(service: Service, **_: object) -> Message:
    return pb.CreateUpdateResponse(id=f"d{len(service.files)}")


def _upload_dataset(service: Service, name: str, **_: object) -> Message:
    return pb.FileUploadResponse(url=pb.FileUploadURL(url=f"{service.url}/file/{name}", file_field_name="file"))


def _download_dataset(service: Service, name: str, **_: object) -> Message:
    return pb.FileDownloadResponse(url=pb.FileDownloadURL(url=f"{service.url}/file/{name}", filename="d.h5"))


def _confirm(service: Service, name: str, **_: object) -> Message:
    return pb.CreateUpdateResponse(id=name)


def _get_dataset(service: Service, name: str, **_: object) -> Message:
    return pb.Dataset(dataset_id=name, name=name, permanent=True)


def _new_job(service: Service, body: bytes, **_: object) -> Message:
    job = pb.Job.FromString(body)
    job_id = f"j{next(service.numbers)}"
    if kind_of(job) == "compile":
        job.compile_job.compile_job_id = job_id
        service.models["compiled"] = pb.Model(model_id="compiled", model_type=pb.MODEL_TYPE_QNN_DLC, producer_id=job_id)
        job.compile_job.target_model.CopyFrom(service.models["compiled"])
    else:
        job.inference_job.inference_job_id = job_id
        job.inference_job.creation_time.FromSeconds(SUBMITTED)
    service.jobs[job_id] = job
    answer = pb.CreateUpdateResponse(id=job_id)
    answer.creation_time.FromSeconds(SUBMITTED)
    return answer


def _get_job(service: Service, name: str, **_: object) -> Message | None:
    return service.state(name) if name in service.jobs else None


def _result(service: Service, name: str, **_: object) -> Message:
    job = service.jobs[name].inference_job
    found = pb.InferenceJobResult(inference_job_id=name)
    if job.is_profiling_on:
        found.detail.CopyFrom(profile_message(service.profile))
    else:
        stream = io.BytesIO()
        with h5py.File(stream, "w") as file:
            dataset_entries_to_h5(service.answer(service.entries(job.dataset.dataset_id)), file)
        service.files[f"out-{name}"] = stream.getvalue()
        found.output_dataset_id = f"out-{name}"
    return pb.JobResult(inference_job_result=found)


ROUTES: list[tuple[str, Callable[..., Message | None]]] = [
    ("GET devices", _devices),
    ("POST models", _new_model),
    ("GET models/([^/]+)/multipart_upload", _upload_model),
    ("POST models/([^/]+)/multipart_upload", _confirm),
    ("GET models/([^/]+)", _get_model),
    ("POST datasets", _new_dataset),
    ("GET datasets/([^/]+)/upload_url", _upload_dataset),
    ("GET datasets/([^/]+)/download_data", _download_dataset),
    ("GET datasets/([^/]+)", _get_dataset),
    ("PATCH datasets/([^/]+)", _confirm),
    ("POST jobs", _new_job),
    ("GET jobs/([^/]+)", _get_job),
    ("GET jobs/([^/]+)/result", _result),
]


def profile_message(profile: dict) -> Message:
    """A profile as the service sends it, the reverse of what the library makes of it."""
    summary = profile["execution_summary"]
    detail = pb.ProfileDetail(
        major_version=1,
        minor_version=8,
        execution_time=summary["estimated_inference_time"],
        after_execution_peak_memory=summary["estimated_inference_peak_memory"],
        cold_load_time=summary["first_load_time"],
        warm_load_time=summary["warm_load_time"],
        all_execution_times=summary["all_inference_times"],
    )
    detail.execution_memory.peak.lower, detail.execution_memory.peak.upper = summary["inference_memory_peak_range"]
    for entry in profile["execution_detail"]:
        layer = detail.layer_details.add(
            name=entry["name"],
            layer_type_name=entry["type"],
            compute_unit=pb.ComputeUnit.Value(f"COMPUTE_UNIT_{entry['compute_unit']}"),
        )
        if "execution_time" in entry:
            layer.execution_time = entry["execution_time"]
    return detail
