"""Why a tool failed on a phone, as far as its exit code tells more than what it printed."""

from mobile_avatar.benchmarking.tools.pulled import complaint
from mobile_avatar.errors import CheckFailed

REASONS: tuple[tuple[int | None, str, str], ...] = (
    (None, "No space left on device", "the phone is full; free some of its storage"),
    (126, "Permission denied", "{folder} does not let programs start (mounted noexec, or forbidden by its policy)"),
    (137, "", "the phone ended it, probably for lack of memory; close other apps"),
)
"""Exit code (None for any) and words among what was printed -> the reason; the first that fits."""


def failure(tool: str, code: int, said: str, folder: str) -> CheckFailed:
    """The error for a call that ended with an exit code other than 0.

    Args:
        tool: name of the program.
        code: exit code of the lines.
        said: everything that was printed.
        folder: working directory on the phone.
    """
    for wanted, words, reason in REASONS:
        if wanted in (None, code) and words in said:
            return CheckFailed(f"{tool} ended with exit code {code}: {reason.format(folder=folder)}")
    return complaint(tool, said, f"ended with exit code {code}")
