"""Progress goes to stderr: a bar on a terminal, few lines in a log, nothing when disabled."""

import os
import subprocess
import sys

import pytest

from mobile_avatar import progress as module
from mobile_avatar.progress import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances only when told to."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def slow(clock, count, seconds):
    for number in range(count):
        yield number
        clock.now += seconds


def lines(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_quick_work_is_one_line(capsys, clock):
    assert list(progress(slow(clock, 500, 0.0005), 500, "rendering")) == list(range(500))
    assert lines(capsys) == ["rendering: 500/500 (100%), 0 s"]


def test_long_work_is_a_line_per_tenth(capsys, clock):
    assert len(list(progress(slow(clock, 200, 0.2), 200, "rendering"))) == 200
    told = lines(capsys)
    assert len(told) == 10
    assert told[-1].startswith("rendering: 200/200 (100%)")


def test_very_slow_work_still_says_something(capsys, clock):
    list(progress(slow(clock, 30, 4.0), 1000, "updating"))
    assert 10 <= len(lines(capsys)) <= 11


def test_unknown_length(capsys, clock):
    assert len(list(progress(slow(clock, 30, 1.0), None, "tracking"))) == 30
    told = lines(capsys)
    assert told[-1].startswith("tracking: 30,")
    assert len(told) == 3


def test_silent_when_disabled_and_for_no_work(capsys):
    assert list(progress([1, 2], 2, "rendering", enabled=False)) == [1, 2]
    assert list(progress([], 0, "rendering")) == []
    assert lines(capsys) == []


def test_failure_passes_through(capsys):
    def broken():
        yield 1
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        list(progress(broken(), 2, "rendering"))


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_bar_on_a_terminal():
    main, terminal = os.openpty()
    code = "from mobile_avatar.progress import progress; print(sum(progress(range(50), 50, 'rendering')))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=terminal, text=True, timeout=60)
    os.close(terminal)
    shown = os.read(main, 65536).decode()
    os.close(main)
    assert done.stdout == "1225\n"
    assert "rendering: 100%" in shown
    assert "50/50" in shown
    assert "\r" in shown
