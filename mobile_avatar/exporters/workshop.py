"""A quiet corner for talkative converters: nothing on the terminal, their temporary files inside the bundle folder."""

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from mobile_avatar.errors import CheckFailed, MobileAvatarError, first_line
from mobile_avatar.quiet import quiet


@contextlib.contextmanager
def workshop(folder: Path, converter: str) -> Iterator[None]:
    """Run a converter silently, with Python's temporary files inside `folder`: a kill leaves nothing elsewhere.

    Raises:
        CheckFailed: `converter` failed; one sentence with its own message.
    """
    scratch = tempfile.mkdtemp(prefix=".work-", dir=folder)
    default, tempfile.tempdir = tempfile.tempdir, scratch
    variables = set(os.environ)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (MobileAvatarError, ImportError):
        raise
    except Exception as error:
        raise CheckFailed(f"{converter} could not convert this graph: {first_line(error)}") from error
    finally:
        tempfile.tempdir = default
        # torch and litert-torch remember caches and options in the environment; the caches just went away.
        for name in set(os.environ) - variables:
            del os.environ[name]
        shutil.rmtree(scratch, ignore_errors=True)
