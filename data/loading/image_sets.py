"""Where the photos to evaluate or predict come from: a shard folder, a folder of photos, or one photo.

photos = open_images("holiday/"); photos.read(0, 3)
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from data.errors import BadSample, DataError
from data.index import INDEX_NAME, Index, load_index
from data.index.labels import MISSING
from data.names import as_text
from data.sampling.sampler import Run
from data.shards.range_cache import DEFAULT_CACHE_BYTES, RangeCache
from data.shards.shard_reader import ShardReader
from data.storage import is_remote
from data.walk import walk
from launch.cache_folder import cache_folder


class ImageSet(Protocol):
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

    def prefetch(self, group: int, first: int, last: int) -> None:
        """Photos first..last-1 are read next."""
        ...


class ShardImages:
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

    def prefetch(self, group: int, first: int, last: int) -> None:
        self._open().prefetch([Run(group, first, last)])

    def _open(self) -> ShardReader:
        if self._reader is None:
            max_bytes = DEFAULT_CACHE_BYTES
            cache = RangeCache(cache_folder("shards"), max_bytes=max_bytes) if is_remote(self.index.root) else None
            self._reader = ShardReader(self.index, cache)
        return self._reader


@dataclass(frozen=True)
class FileImages:
    """Image files below a folder; their keys are their paths from there as text, so the folder may move. A folder that
    cannot be read stands for its photos; its path ends with a slash."""

    folder: Path
    files: Sequence[str]
    tasks: Sequence[str] = ()

    @property
    def counts(self) -> np.ndarray:
        return np.array([len(self.files)], dtype=np.int64)

    def name(self, group: int, number: int) -> tuple[str, str]:
        return "", as_text(self.files[number])

    def labels(self, group: int, number: int) -> np.ndarray:
        return np.full(len(self.tasks), MISSING)

    def read(self, group: int, number: int) -> bytes:
        try:
            if self.files[number].endswith("/"):
                os.scandir(self.folder / self.files[number]).close()
                raise BadSample("could not be read when the photos were looked for")
            return (self.folder / self.files[number]).read_bytes()
        except OSError as error:
            raise BadSample(f"cannot be read ({error.strerror})") from error

    def prefetch(self, group: int, first: int, last: int) -> None:
        return None


def open_images(place: str) -> tuple[ShardImages | FileImages, list[str]]:
    """The photos of a shard folder (local or remote), a folder (recursive, sorted by path) or a file, and remarks for
    the user. Raises DataError when there are none."""
    path = Path(place.removeprefix("file://"))
    if is_remote(place) or (path / INDEX_NAME).exists():
        return ShardImages(load_index(place)), []
    if path.is_file():
        return FileImages(path.parent, [path.name]), []
    if not path.is_dir():
        raise DataError(f"--data {place}: no such file or folder")
    found = walk(path, pass_unreadable=True)
    if not found.images and not found.unreadable:
        splits = sorted(str(index.parent) for index in path.glob(f"*/{INDEX_NAME}"))
        hint = f"; it holds shard folders, take one of {', '.join(splits)}" if splits else ""
        raise DataError(f"--data {place}: no photos found (.jpg, .jpeg, .png, .webp, .bmp, .gif){hint}")
    return FileImages(path, sorted([*found.images, *found.unreadable])), found.notes()


class ImageSubset:
    """At most `count` photos as one group; the same ones in the same order every time.

    shuffled: a set may be ordered by class, and each batch shall have photos from all over it; batch norms measured on
    one class at a time would miss how the classes differ.
    """

    def __init__(self, photos: ImageSet, *, count: int, shuffled: bool = False) -> None:
        self._photos = photos
        ends = np.cumsum(photos.counts)
        total = int(ends[-1]) if len(ends) else 0
        picked = np.arange(min(count, total)) * total // max(1, min(count, total))
        if shuffled:
            picked = np.random.default_rng(0).permutation(picked)
        self._group = np.searchsorted(ends, picked, side="right")
        self._number = picked - np.concatenate([[0], ends])[self._group]

    @property
    def tasks(self) -> Sequence[str]:
        return self._photos.tasks

    @property
    def counts(self) -> np.ndarray:
        return np.array([len(self._group)], dtype=np.int64)

    def name(self, group: int, number: int) -> tuple[str, str]:
        return self._photos.name(*self._place(number))

    def labels(self, group: int, number: int) -> np.ndarray:
        return self._photos.labels(*self._place(number))

    def read(self, group: int, number: int) -> bytes:
        return self._photos.read(*self._place(number))

    def prefetch(self, group: int, first: int, last: int) -> None:
        for number in range(first, last):
            at, photo = self._place(number)
            self._photos.prefetch(at, photo, photo + 1)

    def _place(self, number: int) -> tuple[int, int]:
        return int(self._group[number]), int(self._number[number])
