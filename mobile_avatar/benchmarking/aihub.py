"""Measuring in the cloud: a bundle's file on a phone that Qualcomm AI Hub hosts.

Two jobs, on separate phones of the same kind: one is timed over many runs with random inputs, one computes the golden
cases. Their ids are in the journal before anything is waited for, so that an interruption costs no measurement."""

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mobile_avatar.benchmarking.aihub_plans import Plan, compute_unit, job_options, plans_for
from mobile_avatar.benchmarking.aihub_profile import read_profile
from mobile_avatar.benchmarking.aihub_service import Refused, asking, chip_of, connect, find_device, need_framework
from mobile_avatar.benchmarking.parity import missing_rows, parity_rows
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import Result, now
from mobile_avatar.benchmarking.store import Journal, stored_results
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.errors import CheckFailed
from mobile_avatar.graphs.spec import TensorSpec

DEFAULT_DEVICE = "Google Pixel 4"
"""It has the Snapdragon 855 of the published 42 ms."""
WAIT_S = 3600.0
POLL_S = 15.0
RUNNING = "still running; run the same command again to pick it up"
METHOD = (
    "clock time of single calls on a hosted phone, random inputs, in a tight loop, the first run apart; "
    "left out: the app and what it draws itself, heat"
)


HOLDS = {
    "": "it holds the looks of the avatar's person",
    "encoder": "it finds expressions and holds no looks",
    "mesh": "it holds the shape of the avatar's head",
    "renderer": "the looks are in the texture, which is not sent",
}
"""What leaves this computer, by graph."""


class JobFailed(CheckFailed):
    """A job ended without a result."""


def measure(
    subject: Subject, settings: Settings, journal: Journal, *, wait_s: float = WAIT_S, poll_s: float = POLL_S
) -> None:
    """Measure a bundle on a hosted phone; picks up jobs of earlier runs that nobody has collected yet.

    Raises:
        BadInput: AI Hub does not run this target, or has no such device.
        MissingTool: no library, account or connection.
        CheckFailed: a job failed, or is not done after `wait_s` seconds.
    """
    plans = plans_for(subject)
    client, devices = connect()
    device = find_device(devices, settings.device or DEFAULT_DEVICE)
    need_framework(devices, device, plans[0].framework, f"{subject.target} files")
    if settings.sustained_min:
        settings.say("AI Hub has no sustained runs; --sustained is for host and adb")
    failures: list[str] = []
    for plan in plans:
        if failures:
            settings.say(f"{failures[-1]}; going on with another file of the same graph")
        run = _Run(subject, settings, journal, client, device, plan, time.monotonic() + wait_s, poll_s)
        failures += run.go()
        if not run.row.error:
            break
    if failures:
        raise CheckFailed("; ".join(failures))


@dataclass
class _Run:
    """One plan on one device, and the journal's row about it."""

    subject: Subject
    settings: Settings
    journal: Journal
    client: Any
    device: Any
    plan: Plan
    until: float
    poll_s: float
    row: Result = field(init=False)
    model: Any = field(init=False, default=None)
    """What jobs are submitted with; sent only when one has to be."""

    def __post_init__(self) -> None:
        subject, plan = self.subject, self.plan
        unit = self.settings.unit or compute_unit(plan, subject.precision, subject.warp, self.device.attributes)
        self.unit = unit
        self.options = job_options(plan, subject.precision, unit)
        # One more than asked for: the first run is apart.
        self.profile_options = f"{self.options} --max_profiler_iterations {self.settings.runs + 1}"
        steps = [f"compile {plan.compile_options}"] if plan.compile_options else []
        self.row = Result(
            kind="measured",
            place="aihub",
            device=self.device.name,
            runtime=plan.runtime,
            precision=subject.precision,
            taken=now(),
            model_sha256=subject.model_sha256,
            own_file=plan.own_file,
            graph=subject.name,
            soc=chip_of(self.device),
            os=self.device.os,
            method=METHOD,
            command="; ".join([*steps, f"profile {self.profile_options}", f"inference {self.options}"]),
            notes=(plan.note.replace("render.", f"{subject.name or 'render'}."),) if plan.note else (),
            error=RUNNING,
        )
        self.runner = f"aihub {self.device.name} {plan.framework} {unit}"

    def go(self) -> list[str]:
        """Submit or pick up the jobs, wait for them and keep what they say; returns what failed, one sentence each."""
        earlier = self._uncollected()
        try:
            if self.plan.compile_options:
                compiled = self._job("compile", earlier, self._compile)
                self._wait([compiled])
                _need_success(compiled)
                with asking("the compiled file"):
                    self.model = compiled.get_target_model()
            profiled = self._job("profile", earlier, self._profile)
            computed = self._job("inference", earlier, self._infer)
            self.settings.say("waiting for both; stop at any time, the same command goes on from here")
            self._wait([profiled, computed])
        except (JobFailed, Refused) as error:
            self._keep(error=str(error))
            return [str(error)]
        return [*self._collect_outputs(computed), *self._collect_times(profiled)]

    def _collect_outputs(self, job: Any) -> list[str]:
        """Outputs come first: they are worth keeping also when there are no times."""
        spec = self.subject.spec
        cases = len(self.subject.golden(spec.inputs[0]))
        try:
            _need_success(job)
            with asking("the outputs"):
                outputs = real_outputs(job.download_output_data(), spec.outputs, cases)
        except CheckFailed as error:
            self._keep(parity=missing_rows(self.subject, self.runner, str(error)))
            return [str(error)]
        self._keep(parity=parity_rows(self.subject, self.runner, outputs))
        return []

    def _collect_times(self, job: Any) -> list[str]:
        try:
            _need_success(job)
            with asking("the profile"):
                profile = job.download_profile()
            figures = self._figures(profile)
        except CheckFailed as error:
            told = str(error) if isinstance(error, JobFailed) else f"{error} ({job.url})"
            self._keep(error=told)
            return [told]
        # The time of the job: one that is picked up may be from another day.
        taken = job.date.astimezone(datetime.UTC).isoformat(timespec="seconds")
        self._keep(error="", taken=taken, **figures)
        return []

    def _figures(self, profile: object) -> dict:
        figures = read_profile(profile, self.unit)
        if figures["runs"] < self.settings.runs:
            self.settings.say(f"the service made {figures['runs']} steady runs of {self.settings.runs}")
        return {**figures, "notes": (*self.row.notes, *figures["notes"])}

    def _uncollected(self) -> dict[str, str]:
        """Job type -> id of the newest jobs, of this file on this device with these options, that nobody collected."""
        rows, _ = stored_results(self.subject)
        rows = [row for row in rows if row.place == "aihub"]
        collected = {job["id"] for row in rows if not row.error for job in row.jobs}
        found = {}
        for row in rows:
            same = (row.device, row.own_file, row.command) == (self.device.name, self.plan.own_file, self.row.command)
            if same and row.error:
                found.update({job["type"]: job["id"] for job in row.jobs if job["id"] not in collected})
        return found

    def _job(self, kind: str, earlier: dict[str, str], submit: Callable[[], Any]) -> Any:
        """An earlier job when it is running or done, else a new one; its id is in the journal when this returns."""
        job = self._pick_up(kind, earlier[kind]) if kind in earlier else None
        if job is None:
            job = submit()
            self.settings.say(f"submitted {kind} job {job.job_id}: {job.url}")
        entry = {"id": job.job_id, "type": kind, "url": job.url, "status": "SUBMITTED"}
        self._keep(jobs=(*self.row.jobs, entry))
        return job

    def _pick_up(self, kind: str, job_id: str) -> Any:
        try:
            with asking(f"job {job_id}"):
                job = self.client.get_job(job_id)
                status = job.get_status()
        except Refused:
            return None  # deleted, or of another account
        if status.failure:
            return None
        self.settings.say(f"picked up {kind} job {job_id}: {job.url}")
        return job

    def _send(self) -> Any:
        if self.model is None:
            subject, path = self.subject, self.subject.files[self.plan.role]
            self.settings.say(f"sending {path.name} to AI Hub; {HOLDS[subject.name]}")
            with asking(f"to take {path.name}"):
                self.model = self.client.upload_model(str(path), name=self._name())
        return self.model

    def _name(self) -> str:
        subject = self.subject
        return f"mobile-avatar {subject.target} {subject.precision} {subject.model_sha256[:8]}"

    def _compile(self) -> Any:
        model = self._send()
        with asking("to compile"):
            return self.client.submit_compile_job(
                model, self.device, name=self._name(), options=self.plan.compile_options, retry=False
            )

    def _profile(self) -> Any:
        return self._submit(None, self.profile_options)

    def _infer(self) -> Any:
        tensors = self.subject.spec.inputs
        return self._submit({t.name: list(t.store(self.subject.golden(t))[:, None]) for t in tensors}, self.options)

    def _submit(self, inputs: dict[str, list[np.ndarray]] | None, options: str) -> Any:
        model = self._send()
        with asking("the job"):
            return self.client.submit_inference_job(
                model,
                self.device,
                inputs=inputs,
                name=self._name(),
                options=options,
                retry=False,
                profile=inputs is None,
            )

    def _wait(self, jobs: list[Any]) -> None:
        """Ask until all are done; every change of a status is kept. CheckFailed when the time is up."""
        while True:
            with asking("the state of the jobs"):
                states = {job.job_id: job.get_status() for job in jobs}
            self._note(states)
            if all(state.finished for state in states.values()):
                break
            if time.monotonic() >= self.until:
                ids = ", ".join(job_id for job_id, state in states.items() if not state.finished)
                raise CheckFailed(f"AI Hub jobs {ids} are {RUNNING}")
            time.sleep(self.poll_s)

    def _note(self, states: dict[str, Any]) -> None:
        entries = []
        for entry in self.row.jobs:
            state = states.get(entry["id"])
            if state is not None and state.code != entry["status"]:
                self.settings.say(f"{entry['type']} job {entry['id']}: {state.code.lower().replace('_', ' ')}")
                entry = {**entry, "status": state.code}
            entries.append(entry)
        if tuple(entries) != self.row.jobs:
            self._keep(jobs=tuple(entries))

    def _keep(self, **changes: Any) -> None:
        """Change the row, here and on disk; it gets there with its first job or its first failure."""
        old, self.row = self.row, replace(self.row, **changes)
        if self.journal.results and self.journal.results[-1] is old:
            self.journal.replace_last(self.row)
        else:
            self.journal.add(self.row)


def _need_success(job: Any) -> None:
    """JobFailed with the service's reason and the address when a finished job did not succeed."""
    with asking(f"the state of job {job.job_id}"):
        state = job.get_status()
    if not state.success:
        reason = " ".join((state.message or "no reason given").split()).rstrip(".")
        raise JobFailed(f"AI Hub job {job.job_id} failed: {reason} ({job.url})")


def real_outputs(outputs: object, tensors: tuple[TensorSpec, ...], cases: int) -> dict[str, np.ndarray]:
    """What an inference job returned, as real numbers in the layout of the manifest: name -> (T, ...) float32.

    Args:
        outputs: name -> one array per case, in the order of the file's outputs. Names may be the service's own; then
            the order counts.
        tensors: the manifest's outputs.
        cases: T, how many cases were asked for.

    Raises:
        CheckFailed: outputs or cases are missing, or are not arrays.
    """
    if not isinstance(outputs, dict) or not outputs:
        raise CheckFailed("the inference job returned no outputs")
    if not all(t.name in outputs for t in tensors):
        if len(outputs) != len(tensors):
            names = ", ".join(t.name for t in tensors)
            raise CheckFailed(f"the inference job returned {', '.join(outputs)} instead of {names}")
        outputs = dict(zip((t.name for t in tensors), outputs.values(), strict=True))
    results = {}
    for tensor in tensors:
        frames = [np.asarray(frame) for frame in outputs[tensor.name]]
        alike = len({frame.shape for frame in frames}) == 1 and all(np.issubdtype(f.dtype, np.number) for f in frames)
        if len(frames) != cases or not alike or frames[0].ndim == 0:
            raise CheckFailed(f"the inference job returned {len(frames)} cases of {tensor.name} instead of {cases}")
        stored = np.concatenate([_as_manifest(frame, tensor) for frame in frames])
        results[tensor.name] = tensor.load(stored).astype(np.float32)
    return results


def _as_manifest(frame: np.ndarray, tensor: TensorSpec) -> np.ndarray:
    """One case in the manifest's layout: a compiler may have moved the channels."""
    axes = {"NHWC": (0, 2, 3, 1), "NCHW": (0, 3, 1, 2)}.get(tensor.layout)
    if axes and frame.ndim == 4 and frame.shape != tensor.shape:
        moved = frame.transpose(axes)
        return moved if moved.shape == tensor.shape else frame
    return frame
