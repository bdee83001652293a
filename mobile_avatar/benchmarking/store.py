"""Results of a bundle, kept beside it in `measurements/`: one file per run, written after every row."""

import contextlib
import json
import tempfile
from pathlib import Path

from mobile_avatar.benchmarking.result import Result, now
from mobile_avatar.benchmarking.subject import Subject
from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file

FOLDER = "measurements"
FORMAT = 1


class Journal:
    """The results of one run; each row is on disk before the next is measured, so that a stop loses nothing."""

    def __init__(self, subject: Subject, place: str) -> None:
        self._folder = subject.folder / FOLDER
        self._place = place
        self.path: Path | None = None
        """The file; None until there is a first row."""
        self.results: list[Result] = []

    def prepare(self) -> None:
        """Refuse a bundle that cannot keep results, before anything is measured: BadInput."""
        try:
            self._folder.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
            remedy = "copy the bundle to where it can be written"
            raise BadInput(f"{self._folder} cannot keep results ({reason}); {remedy}") from error

    def add(self, result: Result) -> None:
        """Keep one more row."""
        self.results.append(result)
        self._write()

    def replace_last(self, result: Result) -> None:
        """Put a fuller version in the place of the last row, as a sustained run does every minute."""
        self.replace(-1, result)

    def replace(self, index: int, result: Result) -> None:
        """Put a fuller version in the place of row `index`."""
        self.results[index] = result
        self._write()

    def _write(self) -> None:
        if self.path is None:
            stamp = "".join(c for c in now().partition("+")[0] if c.isalnum())
            self.path = _free(self._folder, f"{self._place}-{stamp}")
        content = {"format": FORMAT, "results": [result.to_dict() for result in self.results]}
        with replace_file(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=1))


def stored_results(subject: Subject) -> tuple[list[Result], list[str]]:
    """All results of this bundle's model file, oldest first, and notes about files that were left out."""
    results, notes = [], []
    for path in sorted((subject.folder / FOLDER).glob("*.json")):
        try:
            found = _read(path)
        except BadInput as error:
            notes.append(str(error))
            continue
        results += [result for result in found if result.model_sha256 in subject.hashes]
        if any(result.model_sha256 not in subject.hashes for result in found):
            notes.append(f"{path} holds results of another model file; they are not used")
    return sorted(results, key=lambda result: result.taken), notes


def newest(results: list[Result]) -> list[Result]:
    """The last row of every (place, device, runtime, delegate, precision, threads, own file, graph), in order of time.

    A later failure does not hide an earlier figure; a cloud job that a later run picked up is shown there only.
    """
    collected = {name for row in results if not row.error for name in _job_names(row)}
    last: dict[tuple, Result] = {}
    for row in results:
        if row.error and collected.intersection(_job_names(row)):
            continue
        place = (row.place, row.device, row.runtime, row.delegate, row.precision, row.threads)
        key = (*place, row.own_file, row.graph, row.scope, bool(row.error))
        last.pop(key, None)
        last[key] = row
    return list(last.values())


def _job_names(row: Result) -> set[str]:
    """Ids of cloud jobs; a file from elsewhere may lack them."""
    return {str(job["id"]) for job in row.jobs if "id" in job}


def _read(path: Path) -> list[Result]:
    try:
        content = json.loads(path.read_text())
        version, rows = content["format"], list(content["results"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is not a benchmark result; delete it and measure again") from error
    if not isinstance(version, int) or version > FORMAT:
        raise BadInput(f"{path} has format {version}, this program reads up to {FORMAT}; update mobile-avatar")
    return [Result.from_dict(row, str(path)) for row in rows]


def _free(folder: Path, name: str) -> Path:
    """A file name that no other run of the same second has taken."""
    folder.mkdir(exist_ok=True)
    for number in range(1, 100):
        path = folder / (f"{name}.json" if number == 1 else f"{name}-{number}.json")
        with contextlib.suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
    raise BadInput(f"{folder} holds too many results of one second; try again")
