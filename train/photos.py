"""Where the photos to evaluate or predict come from: a shard folder, a folder of photos, or one photo.

photos = open_photos("holiday/"); photos.read(0, 3)
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from data.cache import RangeCache
from data.errors import BadSample, DataError
from data.index import INDEX_NAME, Index, load_index
from data.order import Run
from data.reader import ShardReader
from data.sources.source import is_image_name
from data.storage import is_remote
from train.config import CacheConfig
from train.losses import MISSING
from train.machine import shard_cache_folder


class Photos(Protocol):
    """Numbered photos in groups (shards). Loader processes work on copies: nothing is open until the first read."""

    @property
    def tasks(self) -> Sequence[str]:
        """Names of the labels, in their order."""
        ...

    @property
    def counts(self) -> np.ndarray:
        """Photos per group, int64 [num_groups]."""
        ...

    def name(self, group: int, number: int) -> tuple[str, str]:
        """(shard, key)."""
        ...

    def labels(self, group: int, number: int) -> np.ndarray:
        """int [num_tasks], -1 where the label is missing."""
        ...

    def read(self, group: int, number: int) -> bytes:
        """The encoded image. Raises BadSample."""
        ...

    def will_need(self, group: int, first: int, last: int) -> None:
        """Photos first..last-1 are read next."""
        ...


class ShardPhotos:
    """The samples of a shard index, checked against its hashes."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.tasks = list(index.tasks)
        self._reader: ShardReader | None = None

    @property
    def counts(self) -> np.ndarray:
        return self.index.counts

    def name(self, group: int, number: int) -> tuple[str, str]:
        return self.index.shards[group].name, self._open().info(group).key(number)

    def labels(self, group: int, number: int) -> np.ndarray:
        return self._open().info(group).labels[number]

    def read(self, group: int, number: int) -> bytes:
        return self._open().read(group, number)

    def will_need(self, group: int, first: int, last: int) -> None:
        self._open().will_need([Run(group, first, last)])

    def _open(self) -> ShardReader:
        if self._reader is None:
            max_bytes = int(CacheConfig().max_gigabytes * 1e9)
            cache = RangeCache(shard_cache_folder(), max_bytes=max_bytes) if is_remote(self.index.root) else None
            self._reader = ShardReader(self.index, cache)
        return self._reader


@dataclass(frozen=True)
class FilePhotos:
    """Image files below a folder; their keys are their paths from there, so the folder may move. A folder that cannot
    be read stands for its photos; its key ends with a slash."""

    folder: Path
    keys: Sequence[str]
    tasks: Sequence[str] = ()

    @property
    def counts(self) -> np.ndarray:
        return np.array([len(self.keys)], dtype=np.int64)

    def name(self, group: int, number: int) -> tuple[str, str]:
        return "", self.keys[number]

    def labels(self, group: int, number: int) -> np.ndarray:
        return np.full(len(self.tasks), MISSING)

    def read(self, group: int, number: int) -> bytes:
        path = self.folder / self.keys[number]
        try:
            if self.keys[number].endswith("/"):
                os.scandir(path).close()
                raise BadSample("could not be read when the photos were looked for")
            if not stat.S_ISREG(path.stat().st_mode):  # one end of a pipe waits for the other
                raise BadSample("is not a file with bytes to read")
            return path.read_bytes()
        except OSError as error:
            raise BadSample(f"cannot be read ({error.strerror})") from error

    def will_need(self, group: int, first: int, last: int) -> None:
        return None


def open_photos(place: str) -> tuple[ShardPhotos | FilePhotos, list[str]]:
    """The photos of a shard folder (local or remote), a folder (recursive, sorted by path) or a file, and remarks for
    the user. Raises DataError when there are none."""
    path = Path(place.removeprefix("file://"))
    if is_remote(place) or (path / INDEX_NAME).exists():
        return ShardPhotos(load_index(place)), []
    if path.is_file():
        return FilePhotos(path.parent, [path.name]), []
    if not path.is_dir():
        raise DataError(f"--data {place}: no such file or folder")
    images, others = _files_below(path)
    if not images:
        splits = sorted(str(index.parent) for index in path.glob(f"*/{INDEX_NAME}"))
        hint = f"; it holds shard folders, take one of {', '.join(splits)}" if splits else ""
        raise DataError(f"--data {place}: no photos found (.jpg, .jpeg, .png, .webp, .bmp, .gif){hint}")
    notes = [f"passed over because their names are not those of images: {_some(others)}"] if others else []
    return FilePhotos(path, images), notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _files_below(root: Path) -> tuple[list[str], list[str]]:
    """(images and unreadable folders, other visible files) as sorted paths from `root`; folders behind links are
    entered once."""
    images: list[str] = []
    others: list[str] = []
    entered: set[str] = set()

    def keep(error: OSError) -> None:
        images.append(f"{Path(error.filename).relative_to(root).as_posix()}/")

    for parent, folders, names in os.walk(root, followlinks=True, onerror=keep):
        if (real := os.path.realpath(parent)) in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        visible = [name for name in names if not name.startswith(".")]
        for name in visible:
            path = Path(parent, name).relative_to(root).as_posix()
            (images if is_image_name(name) else others).append(path)
    return sorted(images), sorted(others)
