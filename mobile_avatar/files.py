"""Writing beside and renaming: a failed or killed command leaves the old output, never half of a new one."""

import contextlib
import ctypes
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from mobile_avatar.errors import BadInput

AT_FDCWD = -100
RENAME_EXCHANGE = 2


def check_output(path: Path, force: bool, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse an output file that exists (without `force`), is a folder, is one of the inputs or cannot be written.

    Called before any work is done. Raises BadInput with one sentence that names the path and the remedy.
    """
    if any(given is not None and _same(given, path) for given in inputs):
        raise BadInput(f"{path} is also an input and would be lost; choose another output")
    if path.is_dir():
        raise BadInput(f"{path} is a folder; choose a file as the output")
    _check_place(path, force)


def check_output_folder(path: Path, force: bool, marker: str) -> None:
    """Refuse an output folder that exists (without `force`) or holds something that is not ours to replace.

    Args:
        marker: a file that only our own outputs have; a folder without it is replaced only when it is empty.
    """
    if path.exists() and not path.is_dir():
        raise BadInput(f"{path} is a file; choose a folder as the output")
    if path.is_dir() and not (path / marker).is_file() and any(path.iterdir()):
        raise BadInput(f"{path} holds other things (no {marker}) and is never replaced; choose another output")
    _check_place(path, force)


def _same(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)


def _check_place(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise BadInput(f"{path} exists already; pass --force to replace it or choose another output")
    # The nearest folder that exists decides: what lies below it will be made.
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    try:
        # Trying is the only test that holds for administrators, read-only mounts and odd file systems alike.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({folder}: {error.strerror}); choose another output") from error


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix beside `path`; on success it takes the place of `path`."""
    path = Path(path)
    made = _make_parent(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.absolute().parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give the result the permissions any new file would have.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        _remove_empty(made)


@contextlib.contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the place of `path` in one step.

    On Linux the exchange of an existing folder is a single atomic system call, so a kill at any moment leaves
    either the whole old folder or the whole new one.
    """
    path = Path(path)
    made = _make_parent(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.absolute().parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if not path.exists():
            os.rename(temporary, path)
        elif not _exchange(temporary, path):
            old = temporary.with_name(temporary.name + "-old")
            os.rename(path, old)
            os.rename(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(made)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def inside(folder: Path, name: str) -> Path:
    """The path of `name` inside `folder`; BadInput when it would lead out of it (absolute, `..`, or a link)."""
    root = Path(folder).resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise BadInput(f"{folder}: the entry {name!r} points outside the folder; the manifest is not to be trusted")
    return path


def _make_parent(path: Path) -> list[Path]:
    """Make the folder that `path` goes into; returns the folders that were not there before, deepest first."""
    parent = path.absolute().parent
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({error.strerror}); choose another output") from error
    return missing


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders that were made for an output that did not come; those that hold something stay."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths atomically; False where the system has no such call."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    return libc.renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0
