"""Times on a page: which rows were timed together, how many runs are behind a figure, how numbers look."""

from dataclasses import replace

import pytest

from mobile_avatar.benchmarking.result import OperatorTime, Result
from mobile_avatar.benchmarking.subject import open_subject
from mobile_avatar.reporting import words
from mobile_avatar.reporting.collect import collect
from mobile_avatar.reporting.latency import count, group, methods
from mobile_avatar.reporting.page import render_report
from mobile_avatar.reporting.terms import terms
from mobile_avatar.reporting.verdicts import parity_verdict
from tests.reporting.html import Page
from tests.reporting.rows import TAKEN, host_row, phone_row, store
from tests.reporting.test_page import changed

LATER = "2026-02-03T04:05:06+00:00"
IN_TURNS = "timed in turns with the other rows of this run; per frame"


def test_rows_of_a_computer_stand_with_their_run(split):
    subject = open_subject(split)
    old = host_row(subject, runtime="torch-plain", method=IN_TURNS)
    new = [host_row(subject, threads=n, p50_ms=4.0 * n, taken=LATER, method=IN_TURNS) for n in (1, 2)]
    phones = [phone_row(subject), phone_row(subject, delegate="CPU", taken=LATER, p50_ms=10.0)]
    first, other, phone = group([old, *new, *phones])
    assert (first.when, first.earlier, [row.share for row in first.rows]) == ("2026-02-03 04:05 UTC", False, [0.5, 1.0])
    assert (other.when, other.earlier, [row.share for row in other.rows]) == ("2026-01-02 03:04 UTC", True, [1.0])
    assert phone.when == "2026-01-02 03:04 UTC to 2026-02-03 04:05 UTC"
    assert [row.share for row in phone.rows] == [0.5, 1.0]
    assert methods(first)[0][0] == IN_TURNS
    assert methods(other)[0][0] == "per frame", "nothing else is shown of that run"


def test_the_page_tells_runs_apart(split, tmp_path):
    folder = changed(split, tmp_path)
    subject = open_subject(folder)
    store(subject, host_row(subject, runtime="onnxruntime", delegate="CPU", taken=LATER, runs=2, p50_ms=0.5))
    text = Page(render_report(collect(folder))).text
    assert "place: host · taken 2026-02-03 04:05 UTC" in text
    assert "this host: earlier run of 2026-01-02 03:04 UTC" in text
    assert text.index("taken 2026-02-03") < text.index("earlier run of 2026-01-02")
    assert "MEASURED few runs: 2, this host" in text, "beside the figure in the head"


@pytest.mark.parametrize(("runs", "said"), [(1, "few runs: 1"), (9, "few runs: 9"), (10, "10 runs"), (None, "")])
def test_how_many_runs(split, runs, said):
    assert count(host_row(open_subject(split), runs=runs)) == said


def test_an_estimate_adds_up():
    layers = (OperatorTime("a", "Conv", "GPU", 1.1, 1.0, 0.5), OperatorTime("b", "Conv", "GPU", 2.1, 0.5, 2.0))
    row = Result("estimated", "estimate", "chip", "roofline", "fp16", TAKEN, "0", operators=layers, mean_ms=3.2)
    found = dict(terms(replace(row, compute_ms=1.5, traffic_ms=2.5)))
    assert list(found) == ["Compute", "Memory traffic", "The longer of the two, layer by layer", "Starting 2 layers"]
    assert list(found.values()) == pytest.approx([1.5, 2.5, 3.0, 0.2])
    assert terms(replace(row, operators=())) == []
    assert terms(replace(row, operators=(replace(layers[0], traffic_ms=None),))) == []


def test_the_terms_of_an_estimate_are_on_the_page(native):
    facts = collect(native)
    parts = [ms for _, ms in terms(facts.estimate)]
    assert sum(parts[2:]) == pytest.approx(facts.estimate.mean_ms, abs=0.01)
    text = Page(render_report(facts)).text
    assert f"The longer of the two, layer by layer {parts[2]:.2f} ms" in text


@pytest.mark.parametrize(("value", "shown"), [(0.004, "0.00"), (9.994, "9.99"), (10, "10.0"), (123.4, "123.4")])
def test_milliseconds_have_two_decimals_below_ten_and_one_above(value, shown):
    assert words.ms(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("run `a <b>` now", "run <code>a &lt;b&gt;</code> now"),
        ("one ` alone <i>", "one ` alone &lt;i&gt;"),
        ("`a` and `b`", "<code>a</code> and <code>b</code>"),
        (None, ""),
    ],
)
def test_commands_in_sentences_are_code(value, shown):
    assert str(words.code(value)) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(LATER, "2026-02-03 04:05 UTC"), ("2026-02-03T04:05:06+02:00", "2026-02-03 02:05 UTC")]
)
def test_dates(value, shown):
    assert words.date(value) == shown
    assert words.date("<some day>") == "<some day>"


def test_integers_are_within_a_gate_and_not_the_same_as_torch():
    row = {"passed": True, "psnr_db": 33.04, "threshold_db": 25.0, "runner": "litert-cpu", "max_abs": 1.2}
    parity = [row | {"output": "lf", "psnr_db": 40.0}, row | {"output": "image"}]
    sentence = parity_verdict("w8a8", parity, [], "", []).sentence
    assert sentence == (
        "Within the gate of w8a8: worst image, 33.0 dB (at least 25), "
        "at most 153 of 255 levels off in one pixel of the image, in litert-cpu"
    )
    assert "computes what torch computes" in parity_verdict("fp16", parity, [], "", []).sentence
