"""Run the command line inside the test process, as a user would: arguments in, exit code and output out."""

import sys
from dataclasses import dataclass

import pytest

from mobile_avatar.cli.main import main


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The error message; there must be exactly one, on the last line."""
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, self.err
        assert self.err.splitlines()[-1] == errors[0], self.err
        assert "Traceback" not in self.err
        return errors[0].removeprefix("error: ")


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> Finished:
    """Call `mobile-avatar ARGUMENTS`; output is captured at the file descriptors, so C++ prints count too."""
    saved, sys.argv = sys.argv, ["mobile-avatar", *map(str, arguments)]
    capfd.readouterr()
    try:
        with pytest.raises(SystemExit) as exit_:
            main()
    finally:
        sys.argv = saved
    out, err = capfd.readouterr()
    return Finished(exit_.value.code, out, err)
