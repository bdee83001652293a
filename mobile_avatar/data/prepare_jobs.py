"""Which videos there are, what they are called in the dataset, and which shard prepares them."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from mobile_avatar.errors import BadInput

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".3gp", ".wmv", ".flv")
LONGEST_NAME = 80


@dataclass(frozen=True)
class VideoFile:
    """A video to prepare."""

    path: Path
    key: str
    """Its path below the folder that was given, or its name; decides the shard, on every machine alike."""
    person: str
    video: str

    @property
    def item(self) -> str:
        return f"{self.person}/{self.video}"


def find_videos(given: Iterable[Path]) -> list[VideoFile]:
    """All videos of files, folders (searched to the bottom) and text lists (.txt, one path per line).

    PERSON/VIDEO.mp4 below a folder is called so; PERSON/VIDEO/CLIP.mp4 becomes PERSON/VIDEO_CLIP; a single file is
    called by its name twice. Where two videos would be called the same, both get a hash of their path.

    Raises:
        BadInput: something given does not exist, or no video is in it.
    """
    given = [Path(path) for path in given]
    found: dict[Path, VideoFile] = {}
    for place in given:
        for path, key in _expand(place):
            found.setdefault(path.resolve(), VideoFile(path, key, *_names(PurePath(key))))
    if not found:
        raise BadInput(f"{given[0]}: no videos here; known are {', '.join(SUFFIXES)}")
    videos = list(found.values())
    uses = Counter(video.item.casefold() for video in videos)
    return [_with_hash(video) if uses[video.item.casefold()] > 1 else video for video in videos]


def parse_shard(text: str) -> tuple[int, int]:
    """ "3/64" to (3, 64). Raises BadInput unless 1 <= 3 <= 64."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    index, count = (int(number) for number in match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise BadInput(f"--shard {text}: write I/N with I from 1 to N, as 3/64")
    return index, count


def in_shard(videos: Sequence[VideoFile], index: int, count: int) -> list[VideoFile]:
    """The videos of shard `index` (from 1) of `count`: decided by each key alone, so shards never meet."""
    return [video for video in videos if int(_digest(video.key), 16) % count == index - 1]


def _expand(place: Path) -> Iterable[tuple[Path, str]]:
    if place.is_dir():
        for folder, names, files in os.walk(place):
            names[:] = sorted(name for name in names if not name.startswith("."))
            for name in sorted(files):
                if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                    path = Path(folder, name)
                    yield path, path.relative_to(place).as_posix()
    elif not place.is_file():
        raise BadInput(f"{place}: there is no such video, folder or list")
    elif place.suffix.lower() == ".txt":
        yield from _listed(place)
    else:
        yield place, place.name


def _listed(place: Path) -> Iterable[tuple[Path, str]]:
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"{place}: not a text list of videos in UTF-8, one path per line") from error
    for line in filter(None, map(str.strip, lines)):
        yield place.parent / line, line


def _names(key: PurePath) -> tuple[str, str]:
    parts = key.parts[:-1]
    if key.is_absolute() or ".." in parts or not parts:
        return _clean(key.stem), _clean(key.stem)
    if len(parts) == 1:
        return _clean(parts[0]), _clean(key.stem)
    return _clean(parts[-2]), _clean(f"{parts[-1]}_{key.stem}")


def _clean(name: str) -> str:
    """A folder's name on any file system, not hidden."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".-")[:LONGEST_NAME].rstrip(".") or "unnamed"


def _with_hash(video: VideoFile) -> VideoFile:
    return replace(video, video=f"{video.video}-{_digest(str(video.path))[:8]}")


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()
