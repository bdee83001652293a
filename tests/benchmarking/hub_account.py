"""An account on the local AI Hub, and a bundle to measure there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from mobile_avatar.benchmarking import aihub
from mobile_avatar.benchmarking.places import Settings
from mobile_avatar.benchmarking.result import Result
from mobile_avatar.benchmarking.store import Journal
from mobile_avatar.benchmarking.subject import Subject, open_subject
from mobile_avatar.files import sha256
from tests.benchmarking.hosted_phones import TOKEN, Service
from tests.benchmarking.small_bundle import small_bundle

SAMPLE = Path(__file__).parent / "recorded" / "aihub-profile.json"
QUICK = Settings(runs=10, say=lambda line: None)


def write_account(path: Path, url: str, token: str = TOKEN) -> None:
    """The file that `qai-hub configure` writes."""
    path.write_text(f"[api]\napi_url = {url}\nweb_url = {url}\napi_token = {token}\nverbose = True\n")


def open_service(golden: dict[str, np.ndarray], spec) -> Service:
    """A service whose phones compute the golden outputs, a little off, as the file stores them."""
    rng = np.random.default_rng(1)

    def answer(inputs: dict) -> dict:
        assert set(inputs) == {"keypoints"}
        near = {t.name: golden[t.name] + rng.normal(0, 1e-3, golden[t.name].shape) for t in spec.outputs}
        return {t.name: list(t.store(near[t.name].astype(np.float32))[:, None]) for t in spec.outputs}

    return Service(json.loads(SAMPLE.read_text()), answer)


def bundle(folder: Path, target: str, **options) -> tuple[Subject, dict, object]:
    """An opened small bundle, its golden outputs and its spec; a DLC comes with its source."""
    path, spec, golden = small_bundle(folder, target, **options)
    if target == "snpe":
        (path / "source").mkdir()
        (path / "source" / "render.onnx").write_bytes(b"the graph of the DLC")
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["roles"]["source"] = "source/render.onnx"
        manifest["files"].append({"path": "source/render.onnx", "sha256": sha256(path / "source/render.onnx")})
        (path / "manifest.json").write_text(json.dumps(manifest))
    return open_subject(path), golden, spec


def measured(subject: Subject, wait_s: float = 60.0, **settings) -> list[Result]:
    """The rows of one run; an exception of it comes through, with the rows in the bundle."""
    journal = Journal(subject, "aihub")
    aihub.measure(subject, replace(QUICK, **settings), journal, wait_s=wait_s, poll_s=0.0)
    return journal.results
