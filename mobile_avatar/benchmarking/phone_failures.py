"""Why a tool failed on a phone, in one sentence, from its exit code and what it printed."""

import re

REASONS: tuple[tuple[int | None, str, str], ...] = (
    (
        None,
        r"CANNOT LINK EXECUTABLE[^\n]*?library \"([^\"]+)\" not found",
        "{tool} needs {match}, which lies neither in --tools nor in the SDK",
    ),
    (None, r"not executable: [^\n]*|Exec format error", "{tool} is not made for {abi} ({match}); use the build for it"),
    (None, r"No space left on device", "the phone is full; free some of its storage"),
    (126, r"", "the phone does not let {tool} be started in {folder} (mounted noexec, or forbidden by its policy)"),
    (127, r"[^\n]*not found[^\n]*", "a program is missing on the phone ({match})"),
    (137, r"", "the phone ended {tool} (signal 9), probably for lack of memory; close other apps"),
    (134, r"", "{tool} gave up (signal 6): {last}"),
    (139, r"", "{tool} crashed (signal 11): {last}"),
)
"""Exit code (None for any), pattern -> sentence; the first that fits."""


def why(tool: str, code: int, said: str, folder: str, abi: str) -> str:
    """One sentence for a failed call.

    Args:
        tool: name of the program.
        code: exit code of the lines.
        said: everything that was printed.
        folder: working directory on the phone.
        abi: kind of phone.
    """
    lines = [line.strip()[:200] for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it printed nothing"
    for wanted, pattern, sentence in REASONS:
        found = re.search(pattern, said)
        if found and wanted in (None, code):
            match = (found[1] if found.re.groups else found[0]).strip()[:200]
            return sentence.format(tool=tool, abi=abi, folder=folder, match=match, last=last)
    # The line that names an error tells more than the last one.
    line = next((line for line in lines if re.search(r"\berror\b|\bfail", line, re.IGNORECASE)), last)
    return f"{tool} ended with exit code {code}: {line}"
