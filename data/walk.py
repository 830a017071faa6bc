"""The files below a folder: links are followed, no folder is read twice, and what is passed over is said.

Use: `found = walk("photos"); found.images, found.notes()`
"""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.errors import DataError
from data.names import as_text

# The names of image files, in small letters; what such a file really is, its bytes say.
PNG_IN_SHARDS = (".bmp", ".gif", ".tif", ".tiff")  # what data.build makes of them, see data.shards.writer
JPEG_IN_SHARDS = (".heic", ".heif", ".hif", ".avif")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", *PNG_IN_SHARDS, *JPEG_IN_SHARDS)
# Made by systems beside the files of their users; some hold small copies of every photo.
_NOT_THE_USERS = ("__MACOSX", "@eaDir")
_SHOWN = 3


@dataclass
class Found:
    """Paths from the folder, `/` between the parts, sorted. hidden: files and folders alike. again: folders that
    a link leads to a second time, or in a circle. unreadable: folders, with a `/` at their end."""

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What was passed over, in words, with examples."""
        passed_over = {
            "are no images by their names": self.others,
            "are hidden": self.hidden,
            "lead to a folder that is read already": self.again,
        }
        return [f"{len(paths)} passed over that {why}: {_some(paths)}" for why, paths in passed_over.items() if paths]

    def add(self, other: "Found", *, at: str) -> None:
        """Take in what was found below the folder `at`."""
        for name, paths in vars(other).items():
            getattr(self, name).extend(f"{at}/{path}" for path in paths)


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _NOT_THE_USERS


def is_image_name(name: str) -> bool:
    """True for a visible file with an image's extension."""
    return not is_hidden(name) and name.lower().endswith(IMAGE_SUFFIXES)


def visible_folders(path: Path) -> tuple[list[Path], Found]:
    """The folders right in `path`, links among them, sorted by name, and what else lies there."""
    found = Found()
    folders = []
    for entry in _entries(path):
        if is_hidden(entry.name):
            found.hidden.append(entry.name)
        elif _is_folder(entry):
            if entry.is_symlink() and _holds(os.path.realpath(entry), path):
                found.again.append(entry.name)
            else:
                folders.append(path / entry.name)
        else:
            (found.images if _is_image(entry) else found.others).append(entry.name)
    return folders, found


def walk(root: Path, *, within: Path | None = None, pass_unreadable: bool = False) -> Found:
    """All files below `root`. Where a link and the folder itself are both below it, its files go by the folder's own
    path. within: a folder that `root` is a part of; no link leads back to it. DataError when a folder cannot be read,
    unless these are passed and listed.
    """
    found = Found()
    entered: set[str] = set()
    waiting = deque([""])  # links wait until all that is no link was read
    while waiting:
        start = waiting.popleft()
        real = os.path.realpath(root / start)
        if start and (_holds(real, root) or (within and _holds(real, within))):
            found.again.append(start)
        else:
            _walk(root, start, entered, waiting, found, pass_unreadable=pass_unreadable)
    for paths in vars(found).values():
        paths.sort()
    return found


def _walk(root: Path, start: str, entered: set[str], links: deque[str], found: Found, *, pass_unreadable: bool) -> None:
    folders = [start]
    while folders:
        folder = folders.pop()
        real = os.path.realpath(root / folder)
        if real in entered:
            found.again.append(folder)
            continue
        entered.add(real)
        try:
            entries = _entries(root / folder)
        except DataError:
            if not pass_unreadable:
                raise
            found.unreadable.append(f"{folder}/")
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if is_hidden(entry.name):
                found.hidden.append(path)
            elif _is_folder(entry):
                (links if entry.is_symlink() else folders).append(path)
            else:
                (found.images if _is_image(entry) else found.others).append(path)


def _holds(real: str, folder: Path) -> bool:
    """Whether the folder `real`, without links, is `folder` or one that it lies in."""
    return os.path.commonpath([real, os.path.realpath(folder)]) == real


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry))


def _is_image(entry: os.DirEntry[str]) -> bool:
    # A link to nothing is one, so that its sample is named as bad; a pipe is none, it would be waited for.
    if not is_image_name(entry.name):
        return False
    return entry.is_file(follow_symlinks=False) or os.path.isfile(entry) or not os.path.exists(entry)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error


def _some(paths: Sequence[str]) -> str:
    shown = ", ".join(map(as_text, paths[:_SHOWN]))
    return shown + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
