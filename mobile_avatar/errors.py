"""The errors that a user may see: one sentence each, and the exit code that goes with it."""


def first_line(error: BaseException) -> str:
    """What another library said, short enough for a sentence; its type where it said nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


class MobileAvatarError(Exception):
    """Base of every expected failure; the command line prints its message and exits with `exit_code`."""

    exit_code = 2


class BadInput(MobileAvatarError):
    """Wrong usage or a bad file: which one, what is wrong, what to do (exit code 2)."""


class CheckFailed(MobileAvatarError):
    """Something was made, but a check (parity, budget, strict) did not pass (exit code 1)."""

    exit_code = 1


class MissingTool(MobileAvatarError):
    """A tool, package or account that the request needs is not there (exit code 3)."""

    exit_code = 3
