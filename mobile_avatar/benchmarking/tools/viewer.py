"""Programs of a vendor's SDK that run on this computer and print what a pulled log holds."""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mobile_avatar.benchmarking.tools.pulled import MOST_LOG
from mobile_avatar.errors import CheckFailed

LIBRARIES = ("", "../../lib/x86_64-linux-clang", "../lib")
"""Where its shared libraries lie, seen from the program's folder: flat, or in an SDK."""
LONGEST_S = 120


def view(folder: Path, program: str, arguments: Sequence[str]) -> str:
    """What `program` of `folder` prints, errors included; its exit code says less than what it printed.

    Raises CheckFailed when it cannot be started or does not end.
    """
    folder = Path(folder).resolve()
    libraries = [str((folder / place).resolve()) for place in LIBRARIES]
    old = os.environ.get("LD_LIBRARY_PATH")
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join([*libraries, *([old] if old else [])])}
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile() as out:
        try:
            # A file instead of a pipe: only as much of it is read as a log may have.
            subprocess.run(
                [str(folder / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=place,
                env=environment,
                timeout=LONGEST_S,
                check=False,
            )
        except OSError as error:
            raise CheckFailed(
                f"{folder / program} cannot be started ({error.strerror}); take the SDK's build for this computer"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise CheckFailed(f"{program} did not end within {LONGEST_S} s; measure again") from error
        out.seek(0)
        return out.read(MOST_LOG).decode(errors="replace")
