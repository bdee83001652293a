"""Bundles and pages that several tests look at, made once."""

from pathlib import Path

import pytest

from mobile_avatar.benchmarking.subject import open_subject
from mobile_avatar.reporting.collect import collect
from mobile_avatar.reporting.page import render_report
from tests.reporting.bundles import export
from tests.reporting.rows import host_row, phone_row, store


@pytest.fixture(scope="session")
def split(tmp_path_factory) -> Path:
    """A bundle of the split warp with stored measurements; look, do not touch."""
    folder = export(tmp_path_factory.mktemp("report") / "split")
    subject = open_subject(folder)
    slow = host_row(subject, runtime="torch-plain", delegate="", own_file=False, p50_ms=16.0)
    store(subject, host_row(subject, runtime="onnxruntime", delegate="CPU"), slow, place="host")
    refused = phone_row(subject, delegate="NNAPI", error="the delegate refused it", p50_ms=None, mean_ms=None, jobs=())
    store(subject, phone_row(subject), refused)
    return folder


@pytest.fixture(scope="session")
def content(split) -> str:
    """The page of that bundle."""
    return render_report(collect(split))


@pytest.fixture(scope="session")
def native(tmp_path_factory) -> Path:
    """A bundle whose graph draws the image; look, do not touch."""
    return export(tmp_path_factory.mktemp("report") / "native", "native")
